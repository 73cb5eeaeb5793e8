"""Data sets made from what a package ships: one folder a device."""
