"""Model families: an encoder, and a head per kind of task."""
