"""The rooms: generated, furnished, given faults, ray-traced, rated by simulated people."""
