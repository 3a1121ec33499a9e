"""Files on disk or behind a URL; knows nothing of models."""
