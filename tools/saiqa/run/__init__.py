"""Rating many images, storing the ratings, and resuming stopped runs."""
