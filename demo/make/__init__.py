"""How the demo is made: ``render`` its rooms, ``learn`` its checkpoint. Run with demo/ and tools/ on the path (build.sh)."""
