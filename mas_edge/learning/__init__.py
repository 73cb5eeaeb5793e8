"""Networks, losses, metrics and the functional train step (torch)."""
