"""SA-BENCH's stages, which meet only in files: questions, ratings, scores."""
