"""Faults on purpose: processes that are killed, packets that are spoilt, and what must hold all the same."""
