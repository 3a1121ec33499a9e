"""Builds the demo: ``render`` makes its rooms, ``learn`` its checkpoint. Run with demo/ and tools/ on the path (build.sh)."""
