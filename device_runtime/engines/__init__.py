"""Engines: what runs a program on a device. One small interface, one module each."""
