"""SA-BENCH's stages, connected only by files: questions, ratings, scores."""
