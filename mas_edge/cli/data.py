"""``mas-edge data``: make device folders out of recordings that a pip package ships."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from device_runtime.data import open_data
from mas_edge.datasets.watch import make_watch


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "data",
        help="make device folders out of real recordings",
        description="Make a fleet's data folders out of recordings that a pip package ships; nothing is downloaded.",
        epilog="example: mas-edge data watch --out ./watch",
    )
    sets = parser.add_subparsers(dest="data_set", required=True, metavar="SET")
    watch = sets.add_parser(
        "watch",
        help="ten people with a smart watch: 10 devices, six tasks",
        description="Turn the 140 smart-watch recordings of the pip package seglearn 1.2.5 (10 people, 7 shoulder "
        "exercises, both arms) into 10 device folders with six tasks. The package's file is opened only if its "
        "sha256 is the known one. A second run finds the folders and changes nothing.",
        epilog="example: mas-edge data watch --out ./watch && mas-edge-device check --data ./watch/watch-01",
    )
    watch.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    watch.add_argument("--json", action="store_true", help="print one JSON object")
    watch.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the folders, or find them; print where they are and what they hold."""
    made = make_watch(args.out)
    devices = {}
    for folder in made.folders:
        split = open_data(folder).arrays["split"]
        devices[folder.name] = {"train": int((split == 0).sum()), "test": int((split == 1).sum())}
    if args.json:
        print(json.dumps({"directory": str(made.directory), "created": made.created, "devices": devices}, indent=2))
        return 0
    train, test = (sum(counts[split] for counts in devices.values()) for split in ("train", "test"))
    state = "made from the recordings of seglearn 1.2.5 (sha256 checked)" if made.created else "already there, whole"
    print(f"{made.directory}: {len(devices)} device folders, {state}")
    print(f"{train} training and {test} test samples; no window of a test recording is trained on")
    return 0
