"""The demo: a whole fleet on one machine, watched live, with pictures at the end."""
