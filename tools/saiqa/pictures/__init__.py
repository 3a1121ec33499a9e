"""Arbitrary pictures: lists of them, files of scores, the best of a group."""
