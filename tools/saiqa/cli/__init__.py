"""The commands, one file each, and ``saiqa``, which dispatches to them (``main``)."""
