"""``mas-edge split``: the best split of tasks into groups, for any affinity matrix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mas_edge.cli.progress import if_slow
from mas_edge.mas.affinity import AffinityMatrix, from_csv, self_affinities
from mas_edge.mas.automatic import Choice, choose_split
from mas_edge.mas.cost_table import costs_from_csv
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.split import Split, SplitSearch, value_of
from mas_edge.mas.subsets import Floats
from mas_edge.protocol.errors import JobError

_Content = TypeVar("_Content")
AUTO = "auto"
AFTER_SPLIT = 0.7  # of the rounds: the published schedule merges for 30 of 100
HEAD_COST = 0.1  # of the encoder's, where no costs are given: the encoder-heavy networks that MAS is for

EXAMPLE = """\
examples:
  mas-edge split affinity.csv --groups 2
  mas-edge split affinity.csv --groups auto
  mas-edge split affinity.csv --groups 2 --costs costs.csv --limit parameters=70000

costs.csv says what the encoder and the head of each task cost, of any resources:

  part,parameters,multiply_accumulates
  encoder,65800,6710000
  exercise,2700,680000
  side,2100,640000
  forecast,2700,680000

affinity.csv has a header row and a first column of task names, and in row i, column j how much
an encoder step on task i lowers the loss of task j (the diagonal is not used):

  source,exercise,side,forecast
  exercise,0,0.31,-0.02
  side,0.27,0,0.01
  forecast,0.04,0.03,0
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its arguments."""
    parser = verbs.add_parser(
        "split",
        help="find the best split of tasks into groups from an affinity matrix",
        description="Find the partition of the tasks into N groups whose tasks help each other most: exact up to 20 "
        "tasks, and with a bound beyond.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "matrix", type=Path, metavar="MATRIX.csv", help="the affinities, row = source, column = recipient"
    )
    parser.add_argument(
        "--groups", type=_number_of_groups, required=True, metavar="N", help="exactly this many groups; auto: what pays"
    )
    parser.add_argument("--at-most", action="store_true", help="fewer than N groups may win, as in the released code")
    parser.add_argument("--costs", type=Path, metavar="COSTS.csv", help="what the encoder and each head cost")
    parser.add_argument(
        "--limit", type=_limit, action="append", default=[], metavar="RESOURCE=MOST",
        help="what a group may cost at most, of a column of COSTS.csv; may be repeated",
    )  # fmt: skip
    auto = parser.add_argument_group("with --groups auto")
    auto.add_argument("--cost", metavar="RESOURCE", help="the column of COSTS.csv to count (default: the first)")
    auto.add_argument(
        "--after-split", type=float, default=AFTER_SPLIT, metavar="SHARE",
        help="share of the rounds that the groups train for (default: %(default)s)",
    )  # fmt: skip
    auto.add_argument(
        "--errors", type=Path, metavar="ERRORS.csv", help="the standard errors of the affinities, like MATRIX.csv"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the search beyond 20 tasks (default: 0)")
    parser.add_argument(
        "--json", action="store_true",
        help='print {"value": float, "groups": [[name, ...], ...], "bound": float, "optimal": bool}; '
        'with auto also "candidates" and "reason"',
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the best split. Raises JobError for a file that cannot be read or a number of groups that cannot be."""
    matrix = _matrix(args.matrix)
    costs = _costs(args.costs, matrix.tasks) if args.costs else {}
    limits = [GroupLimit(resource, _column(costs, resource, "--limit"), most) for resource, most in args.limit]
    if args.groups == AUTO:
        with if_slow("looking for the best splits"):
            choice = _choice(args, matrix, costs, limits)
        print(json.dumps({**_fields(choice.split), **_table(choice)}) if args.json else _auto_page(choice))
        return 0
    search = SplitSearch(matrix, args.groups, args.at_most, limits, args.seed)
    with if_slow("looking for the best split"):
        best = search.best()
        said = json.dumps(_fields(best)) if args.json else _page(matrix, best, search.runner_up())
    print(said)
    return 0


def _choice(
    args: argparse.Namespace, matrix: AffinityMatrix, costs: dict[str, Costs], limits: Sequence[GroupLimit]
) -> Choice:
    if args.at_most:
        message = "--at-most needs a number of groups: auto compares all of them"
        raise JobError(message)
    counted = Costs(1.0, dict.fromkeys(matrix.tasks, HEAD_COST))
    if costs or args.cost:
        counted = _column(costs, args.cost or next(iter(costs)), "--cost")
    errors = _errors(args.errors, matrix.tasks) if args.errors else None
    return choose_split(matrix, counted, args.after_split, errors, limits, args.seed)


def _number_of_groups(text: str) -> int | str:
    return AUTO if text == AUTO else int(text)


_number_of_groups.__name__ = "number of groups"  # as argparse names it in its message


def _limit(text: str) -> tuple[str, float]:
    resource, _, most = text.partition("=")
    return resource, float(most)


_limit.__name__ = "RESOURCE=MOST"


def _column(costs: dict[str, Costs], resource: str, option: str) -> Costs:
    if resource not in costs:
        known = f"it has {', '.join(costs)}" if costs else "give one with --costs"
        message = f"{option}: no column {resource!r} in the table of costs; {known}"
        raise JobError(message)
    return costs[resource]


def _matrix(path: Path) -> AffinityMatrix:
    return _read(path, "affinities", from_csv)


def _costs(path: Path, tasks: Sequence[str]) -> dict[str, Costs]:
    return _read(path, "costs", lambda text: costs_from_csv(text, tasks))


def _errors(path: Path, tasks: Sequence[str]) -> Floats:
    """Return the standard errors in the order of the tasks."""
    errors = _matrix(path)
    if set(errors.tasks) != set(tasks):
        message = f"{path}: expected the standard errors of the tasks {', '.join(tasks)}, got {', '.join(errors.tasks)}"
        raise JobError(message)
    order = [errors.tasks.index(task) for task in tasks]
    return errors.values[np.ix_(order, order)]


def _read(path: Path, content: str, parse: Callable[[str], _Content]) -> _Content:
    """Return what a file holds. Raises JobError that names it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}; expected a CSV file of {content}"
        raise JobError(message) from None
    except UnicodeDecodeError:
        message = f"cannot read {path}: it is not UTF-8 text; expected a CSV file of {content}"
        raise JobError(message) from None
    try:
        return parse(text)
    except JobError as error:
        message = f"{path}: {error}"
        raise JobError(message) from None


def _fields(split: Split) -> dict[str, Any]:
    return {"value": split.value, "groups": split.groups, "bound": split.bound, "optimal": split.optimal}


def _table(choice: Choice) -> dict[str, Any]:
    """Return the candidates and the reason as JSON."""
    rows = [
        {
            "groups": row.groups, "value": row.split.value, "split": row.split.groups, "gain": row.gain,
            "noise": row.noise, "cost": row.cost, "chosen": row.chosen,
        }
        for row in choice.candidates
    ]  # fmt: skip
    return {"candidates": rows, "reason": choice.reason}


def _page(matrix: AffinityMatrix, best: Split, runner_up: Split | None) -> str:
    """Return the result for people."""
    width = max(map(len, matrix.tasks))
    together = value_of(matrix, [matrix.tasks])
    return "\n".join(
        [
            f"best split        {best.value:+.6f}   {_in_braces(best)}",
            f"runner-up         {runner_up.value:+.6f}   {_in_braces(runner_up)}"
            if runner_up
            else "runner-up         none",
            f"all in one        {together:+.6f}   (every task alone has the same value)",
            *_proof(best),
            "",
            "self-affinity, the score of a task left alone:",
            *(
                f"  {task:<{width}}  {value:+.6f}"
                for task, value in zip(matrix.tasks, self_affinities(matrix), strict=True)
            ),
        ]
    )


def _auto_page(choice: Choice) -> str:
    """Return the table of candidates, and why one was chosen."""
    rows = [
        f"{'>' if row.chosen else ' '} {row.groups:>6}  {row.split.value:+.6f}  {row.gain:+.6f}  {row.noise:.6f}"
        f"  {row.cost:6.2f}  {_in_braces(row.split)}"
        for row in choice.candidates
    ]
    head = "  groups      value       gain     noise    cost  split"
    note = "gain and noise: against all in one; cost: of the whole job, against staying merged"
    return "\n".join([choice.reason, *_proof(choice.split), "", head, *rows, "", note])


def _proof(best: Split) -> list[str]:
    """Say how much better a split may be that was not found; nothing if it is proven that none is."""
    return (
        [] if best.optimal else [f"bound             {best.bound:+.6f}   (no split is better; this one may be beaten)"]
    )


def _in_braces(split: Split) -> str:
    return " ".join("{" + ", ".join(group) + "}" for group in split.groups)
