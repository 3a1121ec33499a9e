"""Pairwise preferences of people, and the weights of the overall score fitted to them."""
