"""``mas-edge simulate``: a whole job in one process, by any method, on virtual devices."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from mas_edge.federation.flow import JobState
from mas_edge.federation.methods import named, names
from mas_edge.job import load_job


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "simulate",
        help="run a job in one process on virtual devices, by any method",
        description="Train and evaluate a job in one process: the orchestrator's own state machines and the exported "
        "programs, on virtual devices (the folders below DIR), without a broker. Nothing is deployed. Started again "
        f"with the same --state, it goes on where it was. Methods: {', '.join(names())}.",
        epilog="example: mas-edge data rooms --out rooms && "
        "mas-edge simulate rooms/job.toml --data rooms --method mas-2 --json mas-2.json",
    )
    parser.add_argument("job", type=Path, metavar="JOB", help="the job file (TOML)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data folder for each virtual device")
    parser.add_argument(
        "--method", default="", metavar="M", help="how to train, mas or mas-2; default: as the job says"
    )
    parser.add_argument("--groups", default="", metavar="N", help="the number of groups, or auto, of a method without")
    parser.add_argument("--seed", type=int, metavar="S", help="of weights, selection and batches; default: the job's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default cpu)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep the run here, and go on with what is here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result here")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="write event files for TensorBoard into DIR")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate one job and show what came of it."""
    from mas_edge.simulation.single import simulate_job, simulated_job, write_json

    job = simulated_job(load_job(args.job), named(args.method, args.groups), args.seed)
    shown = _silent if args.quiet else progress_on(sys.stderr)
    result = simulate_job(job, args.data, args.state, args.device, shown, args.tensorboard)
    if sys.stderr.isatty() and not args.quiet:
        print(file=sys.stderr)
    if args.json:
        write_json(result, args.json)
    print(_page(result, args.device))
    return 0


def _silent(_state: JobState) -> None:
    pass


def progress_on(output: TextIO) -> Callable[[JobState], None]:
    """Tells ``output`` each phase; on a terminal also the round of the network that is furthest behind."""
    phase = ""

    def show(state: JobState) -> None:
        nonlocal phase
        began, phase = state.phase != phase, state.phase
        if output.isatty():
            above = "\n" if began else ""
            print(f"{above}\r{_round(state):<40}", end="", file=output, flush=True)
        elif began:
            print(_round(state).partition(":")[0], file=output, flush=True)

    return show


def _round(state: JobState) -> str:
    phase = state.phase.replace("_", " ")
    merged = [state.merged] if state.merged else []
    training = {"merge": merged, "probe": state.probes, "groups": state.groups}.get(state.phase)
    if not training:
        return phase
    done, last = min(group.next_round for group in training), max(group.end_round for group in training)
    return f"{phase}: round {done} of {last}"


def _page(result: dict[str, Any], device: str) -> str:
    """The outcome for people."""
    outcome = result["outcome"]
    lines = [f"{'task':<14}{'test loss':>10}{'of constant':>13}{'in its unit':>13}{'metric':>9}"]
    for name, task in outcome["tasks"].items():
        lines.append(
            f"{name:<14}{task['loss']:>10.4f}{task['normalised']:>13.4f}{task['raw']:>13.4f}{task['metric']:>9.4f}"
        )
    affinity, source = outcome["affinity_seconds"], outcome["energy_source"]
    energy = f"{outcome['energy_joules']:.0f} J ({source})" if outcome["energy_joules"] else source
    clock = "device CPU" if device == "cpu" else "graphics processor, by the wall"
    reason = result["split"]["reason"]
    return "\n".join([
        *lines,
        f"total: normalised {outcome['normalised_total']:.4f} (mean over tasks), raw {outcome['raw_total']:.4f} (sum)",
        f"groups: {' | '.join(', '.join(group) for group in outcome['groups'])}",
        *([f"why: {reason}"] if reason else []),
        f"{clock}: {outcome['train_seconds']:.1f} s of training, {affinity:.1f} s of affinity; "
        f"{outcome['multiply_accumulates'] / 1e9:.1f} G multiply-accumulates",
        f"sent: {outcome['bytes_down'] / 1e6:.1f} MB down, {outcome['bytes_up'] / 1e6:.1f} MB up; energy {energy}",
    ])  # fmt: skip
