"""The audit: does a checkpoint work as a scorer at all?"""
