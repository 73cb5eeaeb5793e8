"""Rounds as a state machine without I/O: selection, deadlines, aggregation, schedule."""
