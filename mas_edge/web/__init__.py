"""The HTTP API, its live stream, metrics and the page: a process of its own that reads a run's state directory."""
