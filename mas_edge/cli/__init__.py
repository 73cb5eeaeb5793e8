"""The command ``mas-edge``: one file a verb; this file only names them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from device_runtime.cli import execute, with_verbs
from mas_edge.protocol.errors import ServerError

VERBS = (
    "demo", "serve", "job", "web", "token", "status", "runs", "devices", "report", "rollout", "release", "fleet",
    "sign", "data", "simulate", "swarm", "compare", "split", "export", "inspect", "doctor", "chaos", "completion",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="mas-edge",
        description="Federated multi-task learning on edge devices: merge, train, measure affinity, split, deploy.",
        epilog="exit codes: 0 done, 2 usage, 3 job, 4 data, 5 broker, 6 orchestrator, 7 device, 8 wire, 9 run aborted, "
        "130 Ctrl-C",
    )
    return with_verbs(parser, "mas_edge.cli", VERBS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    return execute(build_parser(), argv, ServerError.exit_code)
