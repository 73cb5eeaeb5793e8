"""``mas-edge split``: the best split of tasks into groups, for any affinity matrix."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mas_edge.mas.affinity import AffinityMatrix, from_csv, self_affinities
from mas_edge.mas.merge import all_in_one
from mas_edge.mas.split import Split, SplitSearch, value_of
from mas_edge.protocol.errors import JobError

EXAMPLE = """\
example:
  mas-edge split affinity.csv --groups 2

where affinity.csv has a header row and a first column of task names, and in row i, column j how much
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
        description="Find the partition of the tasks into N groups whose tasks help each other most; exact.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "matrix", type=Path, metavar="MATRIX.csv", help="the affinities, row = source, column = recipient"
    )
    parser.add_argument("--groups", type=int, required=True, metavar="N", help="exactly this many groups")
    parser.add_argument("--at-most", action="store_true", help="fewer than N groups may win, as in the released code")
    parser.add_argument("--json", action="store_true", help='print {"value": float, "groups": [[name, ...], ...]}')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the best split. Raises JobError for a file that cannot be read or a number of groups that cannot be."""
    matrix = _read(args.matrix)
    search = SplitSearch(matrix, args.groups, at_most=args.at_most)
    best = search.best()
    if args.json:
        print(json.dumps({"value": best.value, "groups": best.groups}))
    else:
        print(_page(matrix, best, search.runner_up()))
    return 0


def _read(path: Path) -> AffinityMatrix:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}; expected a CSV file of affinities"
        raise JobError(message) from None
    except UnicodeDecodeError:
        message = f"cannot read {path}: it is not UTF-8 text; expected a CSV file of affinities"
        raise JobError(message) from None
    try:
        return from_csv(text)
    except JobError as error:
        message = f"{path}: {error}"
        raise JobError(message) from None


def _page(matrix: AffinityMatrix, best: Split, runner_up: Split | None) -> str:
    """Return the result for people."""
    width = max(map(len, matrix.tasks))
    together = value_of(matrix, [all_in_one(matrix.tasks).tasks])
    return "\n".join(
        [
            f"best split        {best.value:+.6f}   {_in_braces(best)}",
            f"runner-up         {runner_up.value:+.6f}   {_in_braces(runner_up)}"
            if runner_up
            else "runner-up         none",
            f"all in one        {together:+.6f}   (every task alone has the same value)",
            "",
            "self-affinity, the score of a task left alone:",
            *(
                f"  {task:<{width}}  {value:+.6f}"
                for task, value in zip(matrix.tasks, self_affinities(matrix), strict=True)
            ),
        ]
    )


def _in_braces(split: Split) -> str:
    return " ".join("{" + ", ".join(group) + "}" for group in split.groups)
