"""Signed metadata (TUF) of what a fleet's devices may take: keys, the repository, and the rare offline ceremonies.

keys         Ed25519 keys as files
repository   the metadata on disk; what the orchestrator signs by itself, day by day
publisher    what one run of an orchestrator signs: lists and plans
ceremony     what the keyholders sign: the beginning, renewal, new online keys, a new keyholder
"""
