"""The rooms: drawn, furnished, spoiled, traced, rated by simulated people."""
