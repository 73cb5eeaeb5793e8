"""How long the split search takes, and how close it comes to what no split exceeds.

python tools/bench_split.py --json split.json

Three tables: the exact search (N = 3, and every N from 1 to n at once); the search for many tasks with its bound, on
pure noise and on planted groups; and how often that search finds the optimum where the exact one knows it. ``closed``
is the share of the way from all in one to the bound that the split goes: 1 is proven to be the best. Seconds are wall
time of one process; set OMP_NUM_THREADS=1 to keep it to one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mas_edge.mas import tabu
from mas_edge.mas.affinity import AffinityMatrix, self_affinities
from mas_edge.mas.solvers import ExactSolver, Solver, TabuSolver
from mas_edge.mas.subsets import Floats
from mas_edge.mas.tabu import Problem

PLANTED = 5  # groups
NOISE = 0.3  # of planted matrices, whose affinities are 1 inside of a group and 0 between groups
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the split search.")
    parser.add_argument("--exact", nargs="+", type=int, default=[*range(5, 19)], metavar="N")
    parser.add_argument("--many", nargs="+", type=int, default=[20, 30, 40, 50], metavar="N")
    parser.add_argument("--groups", nargs="+", type=int, default=[2, 5, 10, 20])
    parser.add_argument("--check", nargs="+", type=int, default=[8, 9, 10, 11, 12, 13, 14], metavar="N")
    parser.add_argument("--seeds", type=int, default=5, help="random matrices of each number of tasks to check")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args(arguments)
    tables = {
        "exact": list(exact(options.exact)),
        "many": list(many(options.many, options.groups)),
        "check": list(check(options.check, options.seeds)),
    }
    for rows in tables.values():
        print(markdown(rows), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")
    return 0


def exact(tasks: Sequence[int]) -> Iterator[Row]:
    """Time the exact search; it has every sub-problem solved when it is made."""
    for n in tasks:
        problem = problem_of(noise(n, 0))
        one, _ = timed(lambda problem=problem: ExactSolver(problem, [3]).best([3]))
        every = range(1, n + 1)
        all_numbers, _ = timed(lambda problem=problem, every=every: ExactSolver(problem, every).best(every))
        yield {"tasks": n, "seconds, N = 3": one, "seconds, every N": all_numbers}


def many(tasks: Sequence[int], groups: Sequence[int]) -> Iterator[Row]:
    """Time the search for many tasks, and hold what it finds against the bound."""
    for n in tasks:
        for name, matrix in (("noise", noise(n, 0)), (f"{PLANTED} planted", planted(n, 0))):
            problem = problem_of(matrix)
            for count in (count for count in groups if count < n):
                searching, solver = timed(lambda problem=problem, count=count: TabuSolver(problem, [count], 0))
                value = value_of(problem, solver, count)
                bounding, bound = timed(lambda solver=solver, count=count, value=value: solver.bound([count], value))
                together = float(problem.alone.sum())
                yield {
                    "tasks": n, "matrix": name, "N": count, "search s": searching, "bound s": bounding,
                    "value": value / n, "bound": bound / n, "closed": (value - together) / (bound - together),
                }  # fmt: skip


def check(tasks: Sequence[int], seeds: int) -> Iterator[Row]:
    """Count how often the search for many tasks finds the optimum of pure noise, for N from 2 to n - 1."""
    for n in tasks:
        found, bounds = [], []
        for seed in range(seeds):
            problem = problem_of(noise(n, seed))
            known = ExactSolver(problem, range(1, n + 1))
            for count in range(2, n):
                searched = TabuSolver(problem, [count], 0)
                best, value = value_of(problem, known, count), value_of(problem, searched, count)
                found.append(value >= best - 1e-9)
                bounds.append(searched.bound([count], value) >= best - 1e-9)
        yield {"tasks": n, "searches": len(found), "optima found": sum(found), "bounds that hold": sum(bounds)}


def problem_of(matrix: AffinityMatrix) -> Problem:
    """Return the search's problem, without limits."""
    values = matrix.off_diagonal
    return Problem(values + values.T, self_affinities(matrix), np.zeros((0, len(values))))


def value_of(problem: Problem, solver: Solver, count: int) -> float:
    """Return the sum of scores of the best split that a solver has."""
    labels: tabu.Labels = np.zeros(len(problem.alone), np.int64)
    for number, group in enumerate(solver.best([count])):
        labels[list(group)] = number
    return problem.value(labels)


def noise(n: int, seed: int) -> AffinityMatrix:
    """Return affinities that say nothing: independent normal numbers."""
    return named(np.random.default_rng(seed).normal(size=(n, n)))


def planted(n: int, seed: int) -> AffinityMatrix:
    """Return affinities of groups that are there."""
    group = np.arange(n) % PLANTED
    clear = np.where(group[:, None] == group, 1.0, 0.0)
    return named(clear + NOISE * np.random.default_rng(seed).normal(size=(n, n)))


def named(values: Floats) -> AffinityMatrix:
    """Return the matrix with numbers for names."""
    return AffinityMatrix(tuple(map(str, range(len(values)))), values)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that it took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def markdown(rows: Sequence[Row]) -> str:
    """Return a table."""
    head = list(rows[0])
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])


if __name__ == "__main__":
    raise SystemExit(main())
