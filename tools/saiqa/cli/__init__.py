"""The commands, one file each, and ``saiqa``, which names them all (``main``)."""
