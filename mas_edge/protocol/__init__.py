"""What crosses the broker: topics, messages, artifacts, weights, programs. No torch, no sockets, no disk.

This is the only room of ``mas_edge`` that a device imports.
"""
