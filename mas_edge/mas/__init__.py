"""Merge, affinity and split: pure functions on names and numbers."""
