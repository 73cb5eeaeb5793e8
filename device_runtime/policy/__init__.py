"""The owner's rules: when this device may train, how much of its processor, and what of its power is known.

Rules are data and judging them is a pure function of what was found out about the device; the gate turns judgements
into one word for the orchestrator and into pauses between two batches.
"""
