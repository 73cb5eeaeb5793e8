"""A whole job in one process, without sockets: the orchestrator's own machines, and virtual devices that train."""
