"""Ovis2.5 in torch: pictures to pixels, tokens to log-probabilities."""
