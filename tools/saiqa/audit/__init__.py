"""Whether a checkpoint is a scorer at all."""
