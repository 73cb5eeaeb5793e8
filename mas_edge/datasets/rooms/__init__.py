"""Rooms: procedural indoor scenes with exact ground truth for nine dense tasks; one building, one device."""
