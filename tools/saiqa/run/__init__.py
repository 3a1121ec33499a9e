"""Rating many images, keeping the ratings, going on where a run was stopped."""
