"""How well scores agree with people: metrics, intervals, tables, pages."""
