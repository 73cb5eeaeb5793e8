"""Trace once, emit, verify against eager before anything leaves the server."""
