"""What a run came to, for people and for their tools: a report, TensorBoard's event files, logs."""
