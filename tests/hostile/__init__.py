"""Hostile and broken input: whatever arrives, no crash, no memory without bound, no half a file."""
