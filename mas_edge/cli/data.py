"""``mas-edge data``: make device folders, out of recordings that a package ships or out of nothing."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from device_runtime.data import open_data
from mas_edge.cli.progress import if_slow
from mas_edge.datasets.fashion_mnist import SOURCE, FashionChoice, make_fashion
from mas_edge.datasets.rooms.folders import JOB, SHEET, RoomsChoice, make_rooms
from mas_edge.datasets.rooms.targets import TASKS
from mas_edge.datasets.watch import make_watch


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "data",
        help="make device folders: real recordings, or rendered rooms",
        description="Make a fleet's data folders: out of what a package ships, or by rendering; nothing is downloaded.",
        epilog="example: mas-edge data watch --out ./watch",
    )
    sets = parser.add_subparsers(dest="data_set", required=True, metavar="SET")
    _add_watch(sets)
    _add_rooms(sets)
    _add_fashion(sets)


def _add_watch(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    watch = sets.add_parser(
        "watch",
        help="ten people with a smart watch: 10 devices, six tasks",
        description="Turn the 140 smart-watch recordings of the pip package seglearn 1.2.5 (10 people, 7 shoulder "
        "exercises, both arms) into 10 device folders with six tasks. The package's file is opened only if its "
        "sha256 is the known one. A second run finds the folders and changes nothing.",
        epilog="example: mas-edge data watch --out ./watch && mas-edge-device check --data ./watch/watch-01",
    )
    _add_output(watch)
    watch.set_defaults(run=run)


def _add_rooms(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    default = RoomsChoice()
    rooms = sets.add_parser(
        "rooms",
        help="rendered rooms: a building a device, up to nine dense tasks",
        description="Render rooms with exact targets for up to nine tasks, one building a device, and write a job file "
        "and a contact sheet beside the device folders. The same arguments give the same rooms; a building depends on "
        "the seed and its own number only. A second run finds the folders and changes nothing. Tasks: "
        + ", ".join(f"{kind.letter} {kind.name}" for kind in TASKS) + ".",
        epilog="example: mas-edge data rooms --out ./rooms --devices 32 --size 64 --tasks sdnkterca",
    )  # fmt: skip
    _add_output(rooms)
    rooms.add_argument("--devices", type=int, default=default.devices, metavar="N", help="default: %(default)s")
    rooms.add_argument("--size", type=int, default=default.size, help="pixels: 32, 64 or 128 (default: %(default)s)")
    _add_samples(rooms, default.samples, default.test_samples, "of each building")
    rooms.add_argument("--first-building", type=int, default=1, metavar="N", help="others than 1 to 8: 1001, say")
    rooms.add_argument("--tasks", default=default.tasks, metavar="LETTERS", help="default: %(default)s")
    rooms.set_defaults(run=run)


def _add_fashion(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    default = FashionChoice()
    fashion = sets.add_parser(
        "fashion",
        help="pictures of clothes: Fashion-MNIST, parted by class, five tasks",
        description="Part the pictures of the Debian package dataset-fashion-mnist among devices, whose classes are "
        "drawn from a Dirichlet distribution, with five tasks: garment, rotation, silhouette, edges, inpainting. The "
        "same arguments give the same folders. A second run finds the folders and changes nothing.",
        epilog="example: mas-edge data fashion --out ./fashion --devices 20 --alpha 0.1",
    )
    _add_output(fashion)
    fashion.add_argument("--devices", type=int, default=default.devices, metavar="N", help="default: %(default)s")
    fashion.add_argument(
        "--alpha", type=float, default=default.alpha, help="small: few classes a device (default: %(default)s)"
    )
    _add_samples(fashion, default.samples, default.test_samples, "of each device")
    fashion.add_argument("--source", type=Path, default=SOURCE, metavar="DIR", help="default: %(default)s")
    fashion.set_defaults(run=run)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_samples(parser: argparse.ArgumentParser, train: int, test: int, whose: str) -> None:
    parser.add_argument("--samples", type=int, default=train, metavar="N", help=f"train on, {whose} (default: {train})")
    parser.add_argument("--test-samples", type=int, default=test, metavar="N", help=f"default: {test}")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Make the folders, or find them; print where they are and what they hold."""
    done: int = {"watch": _watch, "rooms": _rooms, "fashion": _fashion}[args.data_set](args)
    return done


def _watch(args: argparse.Namespace) -> int:
    with if_slow(f"making device folders in {args.out}"):
        made = make_watch(args.out)
    devices = _devices(made.folders)
    if args.json:
        return _print_json(made.directory, made.created, devices)
    state = "made from the recordings of seglearn 1.2.5 (sha256 checked)" if made.created else "already there, whole"
    print(f"{made.directory}: {len(devices)} device folders, {state}")
    print(f"{_total(devices)}; no window of a test recording is trained on")
    return 0


def _rooms(args: argparse.Namespace) -> int:
    choice = RoomsChoice(
        args.devices, args.size, args.samples, args.test_samples, args.seed, args.first_building, args.tasks
    )
    started = time.perf_counter()
    with if_slow(f"rendering rooms into {args.out}"):
        made = make_rooms(args.out, choice)
    seconds = time.perf_counter() - started
    devices = _devices(made.folders)
    sheet = made.directory / SHEET
    if args.json:
        extra = {"job": str(made.directory / JOB), "sheet": str(sheet) if sheet.exists() else None}
        return _print_json(made.directory, made.created, devices, **extra)
    images = choice.devices * (choice.samples + choice.test_samples)
    state = f"rendered in {seconds:.1f} s, {images / seconds:.0f} images/s" if made.created else "already there, whole"
    print(f"{made.directory}: {len(devices)} device folders, {state}")
    print(f"{_total(devices)}; no room that is tested on is trained on")
    print(f"job file: {made.directory / JOB}")
    missing = "none: matplotlib is missing (pip install 'mas-edge[server]')"
    print(f"contact sheet: {sheet if sheet.exists() else missing}")
    return 0


def _fashion(args: argparse.Namespace) -> int:
    choice = FashionChoice(args.devices, args.alpha, args.samples, args.test_samples, args.seed)
    with if_slow(f"making device folders in {args.out}"):
        made = make_fashion(args.out, choice, args.source)
    devices = _devices(made.folders)
    if args.json:
        return _print_json(made.directory, made.created, devices)
    state = f"made from the pictures in {args.source}" if made.created else "already there, whole"
    print(f"{made.directory}: {len(devices)} device folders, {state}")
    print(f"{_total(devices)}; no picture is on two devices")
    return 0


def _devices(folders: list[Path]) -> dict[str, dict[str, int]]:
    """The train and test samples of each device."""
    devices = {}
    for folder in folders:
        split = open_data(folder).arrays["split"]
        devices[folder.name] = {"train": int((split == 0).sum()), "test": int((split == 1).sum())}
    return devices


def _total(devices: dict[str, dict[str, int]]) -> str:
    train, test = (sum(counts[split] for counts in devices.values()) for split in ("train", "test"))
    return f"{train} training and {test} test samples"


def _print_json(directory: Path, created: bool, devices: dict[str, dict[str, int]], **extra: Any) -> int:
    print(json.dumps({"directory": str(directory), "created": created, "devices": devices, **extra}, indent=2))
    return 0
