"""What poisoned updates do to a job, by how its updates are aggregated.

python tools/bench_poisoning.py --json poisoning.json

A hundred devices hold the watch recordings (a tenth of a person each); some of them lie in every round they are in.
Each run is a whole simulated one of the real orchestrator, programs and training, quarantine included. Its number is
the mean over the tasks of the final test loss, divided by that of the undisturbed run with the plain mean and the same
seed; a seed decides who lies, who is drawn into rounds, and the first weights. Each cell is the mean over the seeds
and, in brackets, the smallest and the largest. "lost": a run broke, or ended a thousand times worse. Runs that are in
the JSON file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace

from device_runtime.data_check import TEST, TRAIN
from mas_edge.datasets.watch import make_watch
from mas_edge.federation.methods import with_method
from mas_edge.job import Federation, Job, check, load_job
from mas_edge.orchestrator import view
from mas_edge.protocol.errors import EdgeError
from mas_edge.simulation.poison import ATTACKS, flip_labels, poisoner
from mas_edge.simulation.run import Simulation, honest

PARTS = 10  # devices that share a person's recordings
TASKS = ("exercise", "gravity", "rotation")  # of every kind one: a class, a direction, numbers
RULES: dict[str, dict[str, Any]] = {
    "mean": {},
    "clip": {"clip_norm": "auto"},
    "median": {"robust": "median"},
    "trimmed": {"robust": "trimmed", "trim": 0.4},  # 8 of 20 at either end: more than the largest share of the fleet
}
LABELS = "label flip"
RATE = 0.1  # twice the job's: a device has a tenth of the steps
LOST = 1e3  # beyond so many times the undisturbed loss nothing is learnt any more
Results = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what poisoned updates do.")
    parser.add_argument("--shares", nargs="+", type=int, default=[1, 10, 30], metavar="PERCENT")
    parser.add_argument("--attacks", nargs="+", default=[*ATTACKS, LABELS])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--devices-per-round", type=int, default=20)
    parser.add_argument("--job", type=Path, default=Path("models/watch.toml"))
    parser.add_argument("--json", type=Path, help="write the runs to this file, and go on with those that are there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as simulations do: the same sums on every machine
    found: Results = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="poisoning-") as folder:
        ground = Ground(Path(folder), job_of(options))
        for seed in options.seeds:
            for name, rule, attack, share in cases(options.rules, options.attacks, options.shares):
                key = f"{name}, seed {seed}"
                if key not in found:
                    about = {"rule": rule, "attack": attack, "share": share, "seed": seed}
                    found[key] = about | ground.run(RULES[rule], attack, share, seed)
                    print(f"{key}: {found[key]['losses'] or found[key]['problem']}", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(markdown(found, options.rules))
    return 0


def cases(rules: Sequence[str], attacks: Sequence[str], shares: Sequence[int]) -> Iterator[tuple[str, str, str, int]]:
    """The runs: (name, rule, attack, percent of devices), the undisturbed ones first."""
    for rule in rules:
        yield f"{rule}, undisturbed", rule, "", 0
    for attack in attacks:
        for share in shares:
            for rule in rules:
                yield f"{rule}, {attack}, {share} %", rule, attack, share


def job_of(options: argparse.Namespace) -> Job:
    """The watch's job, all in one network: what is measured is the aggregation."""
    job = load_job(options.job)
    federation = Federation(
        rounds=options.rounds, merge_rounds=options.rounds, groups=1, devices_per_round=options.devices_per_round,
        batch_size=job.federation.batch_size, min_devices=1, min_reports=3,
    )  # fmt: skip
    tasks = [task for task in job.tasks if task.name in TASKS]
    optimizer = replace(job.optimizer, learning_rate=RATE)
    small = replace(
        job, tasks=tasks, federation=federation, optimizer=optimizer, engines=["torch"], card=type(job.card)()
    )  # fmt: skip
    return with_method(small, "all-in-one")


class Ground:
    """The data of a hundred devices, and the programs that all runs share."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder, self._job = folder, job
        make_watch(folder / "watch")
        self._honest = folder / "honest"
        for person in sorted((folder / "watch").glob("*/data.toml")):
            for part in range(PARTS):
                part_of(person.parent, part, self._honest / f"{person.parent.name}-{part}")
        self._devices = sorted(path.name for path in self._honest.iterdir())
        (folder / "exports").mkdir()

    def run(self, rule: dict[str, Any], attack: str, share: int, seed: int) -> dict[str, Any]:
        """One run; its final test losses by task, or what was wrong."""
        liars = random.Random(seed).sample(
            self._devices, share * len(self._devices) // 100
        )  # nested as the share grows
        state, began = self._folder / "state", time.process_time()
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        (state / "exports").symlink_to(self._folder / "exports")
        job = check(replace(self._job, seed=seed, federation=replace(self._job.federation, **rule)))
        tamper = poisoner(attack, liars, seed) if attack in ATTACKS else honest
        problem = ""
        try:
            Simulation(job, self._data(attack, liars), state, tamper=tamper).run()
        except EdgeError as error:
            problem = str(error)
        rounds = view.read(state).rounds
        in_rounds = [sum(n in liars for n in record.selected) for record in rounds if record.kind == "train"]
        losses = {} if problem else next(r.losses for r in reversed(rounds) if r.kind == "evaluate")
        return {
            "losses": losses, "problem": problem, "liars": len(liars), "cpu_seconds": time.process_time() - began,
            "most_liars_in_a_round": max(in_rounds, default=0),
        }  # fmt: skip

    def _data(self, attack: str, liars: Sequence[str]) -> Path:
        if attack != LABELS:
            return self._honest
        false = self._folder / "false"
        shutil.rmtree(false, ignore_errors=True)
        false.mkdir()
        for name in self._devices:
            if name in liars:
                shutil.copytree(self._honest / name, false / name)
                flip_labels(false / name)
            else:
                (false / name).symlink_to(self._honest / name)
        return false


def part_of(person: Path, part: int, target: Path) -> None:
    """Every tenth of a person's training and test windows."""
    split = np.load(person / "split.npy")
    chosen = np.sort(np.concatenate([np.flatnonzero(split == kind)[part::PARTS] for kind in (TRAIN, TEST)]))
    target.mkdir(parents=True)
    shutil.copy(person / "data.toml", target)
    for path in person.glob("*.npy"):
        np.save(target / path.name, np.load(path)[chosen])


def markdown(found: Results, rules: Sequence[str]) -> str:
    """The table of relative losses."""
    bases = {run["seed"]: run["losses"] for run in found.values() if (run["rule"], run["attack"]) == ("mean", "")}
    lines = [f"| attack | devices | most in a round | {' | '.join(rules)} |", f"|---|---|---|{'---|' * len(rules)}"]
    for key in dict.fromkeys((run["attack"], run["share"]) for run in found.values()):
        runs = [run for run in found.values() if (run["attack"], run["share"]) == key and run["seed"] in bases]
        cells = [
            shown([relative(run["losses"], bases[run["seed"]]) for run in runs if run["rule"] == rule])
            for rule in rules
        ]  # fmt: skip
        most = max(run["most_liars_in_a_round"] for run in runs)
        lines.append(f"| {key[0] or 'none'} | {key[1]} % | {most} | {' | '.join(cells)} |")
    return "\n".join(lines)


def relative(losses: dict[str, float], base: dict[str, float]) -> float:
    """The mean over tasks of a loss to the undisturbed one."""
    return float(np.mean([losses[task] / base[task] for task in base])) if losses else float("inf")


def shown(ratios: Sequence[float]) -> str:
    """A cell: the mean over the seeds, the smallest and the largest."""
    if not ratios:
        return ""
    lost = sum(ratio > LOST for ratio in ratios)
    if lost:
        return "lost" if lost == len(ratios) else f"lost in {lost} of {len(ratios)}"
    return f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
