"""The edges of the runtime: MQTT and files. The orchestrator uses the same two."""
