"""How well scores agree with people: figures, intervals, tables, pages."""
