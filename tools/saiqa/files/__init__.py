"""What lies on disk or behind a URL; knows no model."""
