"""``mas-edge export``: the trained groups of a run, or a file of weights, as models and programs for an engine."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mas_edge.job import Job, load_job
from mas_edge.protocol.errors import JobError

if TYPE_CHECKING:
    from mas_edge.export.describe import Trained
    from mas_edge.export.release import Export, Options
    from mas_edge.export.targets import Target

TARGETS = ("onnx", "executorch", "litert", "micro")
UNITS = {"": 1, "K": 1024, "M": 1024 * 1024}
EPILOG = """\
examples:
  mas-edge export demo-out --target onnx --out exported
  mas-edge export runs/watch --target onnx,executorch --precision int8 --data watch/watch-01 --out exported
  mas-edge export group-0.safetensors --job models/watch.toml --target onnx --out exported

Each group and target becomes a folder OUT/GROUP/TARGET-PRECISION with the model, its golden samples, the weights, the
training program, the verification of every output, and a model card. It is there as a whole or not at all.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export",
        help="export trained groups to ONNX, ExecuTorch, LiteRT or a microboard, verified, with a model card",
        description="Export the trained groups of a run, or a file of weights.\n"
        "What does not do what the network does in PyTorch is not written.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", type=Path, metavar="RUN_OR_CHECKPOINT",
        help="the --state of `serve`, the --out of `demo`, or a .safetensors file of weights (with --job)",
    )  # fmt: skip
    parser.add_argument(
        "--target", type=_targets, action="extend", required=True, metavar="TARGET",
        help=f"one or more of {', '.join(TARGETS)}, with commas or by repeating it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the exports go")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), help="of the inference model (default: fp32; int8 for micro)"
    )
    parser.add_argument("--group", default="", help="only this group of a run; the name of a checkpoint's export")
    parser.add_argument("--job", type=Path, metavar="FILE", help="the job file; a run knows its own")
    parser.add_argument("--tasks", default="", metavar="A,B", help="the tasks of a checkpoint (default: all in it)")
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="DIR",
        help="a device folder, may be repeated: int8 is calibrated on its training and measured on its test samples",
    )  # fmt: skip
    parser.add_argument(
        "--training", choices=("auto", "all", "none"), default="auto",
        help="training programs: of engines that train well, also of experimental ones, or none (default: auto)",
    )  # fmt: skip
    parser.add_argument("--flash", type=_size, default=0, metavar="SIZE", help="of a microboard, such as 512K")
    parser.add_argument("--ram", type=_size, default=0, metavar="SIZE", help="of a microboard, such as 128K")
    parser.add_argument("--force", action="store_true", help="replace exports that are there")
    parser.add_argument("--no-cache", action="store_true", help="emit and verify programs even if that was done before")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to stderr")
    parser.set_defaults(run=run)


def _targets(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TARGETS:
            message = f"there is no target {name!r}; allowed: {', '.join(TARGETS)}"
            raise argparse.ArgumentTypeError(message)
    return names


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KM]?)B?", text.strip(), re.IGNORECASE)
    if not found or not int(found[1]):
        message = f"{text!r} is no size: expected bytes, K or M of 1024, such as 512K"
        raise argparse.ArgumentTypeError(message)
    return int(found[1]) * UNITS[found[2].upper()]


def run(args: argparse.Namespace) -> int:
    """Export, and say what came out; an interrupted export leaves nothing half-written."""
    for number in (signal.SIGINT, signal.SIGTERM):  # either removes what is not whole; a shell's & ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    job = None if args.job is None else load_job(args.job)
    # Where a user keeps the modules that the job names: beside its file, or where the command is called.
    sys.path.insert(0, str(args.job.resolve().parent if args.job else Path.cwd()))
    exports = _export(args, job)
    if args.json:
        print(json.dumps({"exports": [_as_json(export) for export in exports]}, indent=2))
    else:
        print("\n".join(line for export in exports for line in _lines(export)))
    return 0


def _export(args: argparse.Namespace, job: Job | None) -> list[Export]:
    # torch and the exporters: not for other verbs, nor before the command line is known to be fine
    from mas_edge.cli.progress import Progress
    from mas_edge.export.cache import ExportCache, user_cache
    from mas_edge.export.folder import check_place, remove_empty
    from mas_edge.export.quality import open_samples
    from mas_edge.export.release import Options, check_options, export, place_of
    from mas_edge.export.targets import find_targets

    targets = find_targets(args.target)
    groups = _trained(args, job)
    samples = open_samples(args.data, groups[0].job.data.input_shape)
    wanted: list[tuple[Trained, Target, Options]] = []
    for group in groups:
        for target in targets:
            training = args.training == "all" or (args.training == "auto" and not target.experimental)
            precision = args.precision or target.precisions[0]
            options = Options(precision, samples, training, args.flash, args.ram)
            check_options(target, options)
            wanted.append((group, target, options))
    places = [place_of(args.out, group.group, target, options.precision) for group, target, options in wanted]
    progress = Progress(sys.stderr if args.json else sys.stdout)
    cache = None if args.no_cache else ExportCache(user_cache())
    try:
        for place in places:
            check_place(place, force=args.force)
        done = []
        for group, target, options in wanted:
            progress.head(f"{group.group} ({', '.join(group.tasks)}) to {target.name}, {options.precision}")
            done.append(export(group, target, options, args.out, cache, progress.step, force=args.force))
    finally:
        remove_empty([*(place.parent for place in places), args.out])
    return done


def _trained(args: argparse.Namespace, job: Job | None) -> list[Trained]:
    from mas_edge.orchestrator.trained import of_checkpoint, of_run

    if args.source.is_dir() or (job is None and not args.source.is_file()):
        if args.tasks:
            message = "--tasks is for a file of weights; of a run choose a group: --group NAME"
            raise JobError(message)
        groups = of_run(args.source, args.group)
        return groups if job is None else [_with_card(group, job, args.job) for group in groups]
    if job is None:
        message = f"{args.source} is a file; one of weights does not say what they are of: add --job FILE"
        raise JobError(message)
    tasks = [task.strip() for task in args.tasks.split(",") if task.strip()]
    return [of_checkpoint(args.source, job, args.group, tasks)]


def _with_card(group: Trained, job: Job, file: Path) -> Trained:
    """What people say about a model may be written after its training; nothing else of the job may be another."""
    from dataclasses import replace

    if msgspec.structs.replace(job, card=group.job.card) != group.job:
        message = f"{file} is not the job of this run: leave --job out, or change only its [card]"
        raise JobError(message)
    return replace(group, job=job)


def _as_json(export: Export) -> dict[str, Any]:
    return {
        "directory": str(export.directory),
        "seconds": round(export.seconds, 3),
        "card": msgspec.to_builtins(export.card),
        "verification": msgspec.to_builtins(export.report),
    }


def _lines(export: Export) -> list[str]:
    from mas_edge.export.report import table, worst_of_each

    size = sum(file.size for file in export.card.files)
    lines = ["", f"{export.directory}: {len(export.card.files) + 2} files, {size} bytes, {export.seconds:.1f} s"]
    worst = [comparison for comparison, _ in worst_of_each([*export.report.model, *export.report.program])]
    lines += [f"  {line}" for line in table(worst)]
    for loss in export.card.quantization:
        metric = "" if loss.fp32 is None else f"; {loss.metric} {loss.fp32:.4g} in fp32, {loss.int8:.4g} in int8"
        lines.append(f"  int8, {loss.task}: {100 * loss.relative_l2:.2f} % off (relative L2){metric}")
    return lines
