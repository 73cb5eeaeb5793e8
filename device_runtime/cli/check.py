"""``mas-edge-device check``: what is wrong with a data folder, in plain words."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mas_edge.protocol.errors import DataError

if TYPE_CHECKING:
    from device_runtime.data import DataFolder


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "check",
        help="say in plain words what is wrong with a data folder",
        description="Read every number of a data folder and say what is wrong with it: missing files, shapes, types, "
        "NaN, labels out of range, a split without test samples. Ends with 4 if anything is.",
        epilog="example: mas-edge-device check --data /srv/watch/watch-01",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder with data.toml")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the folder; return 0 if a device can train on it, else the exit code of a DataError."""
    from device_runtime.data import open_data, problems  # NumPy comes with it: only this verb pays

    found = problems(args.data)
    summary = {} if found else _summary(open_data(args.data))
    if args.json:
        print(json.dumps({"directory": str(args.data), "ok": not found, "problems": found, **summary}, indent=2))
    elif found:
        for problem in found:
            print(f"error: {args.data}: {problem}", file=sys.stderr)
    else:
        _print_table(args.data, summary)
    return DataError.exit_code if found else 0


def _summary(data: DataFolder) -> dict[str, Any]:
    split = data.arrays["split"]
    test = int(split.sum())
    return {
        "input_shape": data.input_shape,
        "samples": {"train": len(split) - test, "test": test},
        "tasks": {
            name: {"kind": data.header.tasks[name].kind, "train": count.train, "test": count.test}
            for name, count in data.counts().items()
        },
    }


def _print_table(directory: Path, summary: dict[str, Any]) -> None:
    samples = summary["samples"]
    print(f"{directory} is fine: samples of shape {summary['input_shape']}, of which labelled")
    width = max(len("all samples"), *(len(name) for name in summary["tasks"]))
    print(f"{'task':<{width}}  {'kind':<11}  {'train':>8}  {'test':>8}")
    for name, task in summary["tasks"].items():
        print(f"{name:<{width}}  {task['kind']:<11}  {task['train']:>8}  {task['test']:>8}")
    print(f"{'all samples':<{width}}  {'':<11}  {samples['train']:>8}  {samples['test']:>8}")
