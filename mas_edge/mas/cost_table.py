"""The costs of the encoder and of each head, for any resources, as CSV text.

    part,parameters,multiply_accumulates
    encoder,65800,6710000
    depth,2700,680000

A header row names the resources, and a first column the parts: ``encoder`` and every task.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mas_edge.mas.limits import Costs
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import ENCODER


def costs_from_csv(text: str, tasks: Sequence[str]) -> dict[str, Costs]:
    """Return the costs by resource, in the order of the columns. Blank lines and a byte order mark are skipped.

    Raises:
        JobError: the text is not such a table, a part is missing, unknown or there twice, or a cell is no number of at
            least 0.
    """
    try:
        rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))
    except csv.Error as error:
        message = f"cost CSV: not comma-separated values ({error})"
        raise JobError(message) from None
    lines = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not lines or len(lines[0]) < 2 or not all(lines[0][1:]) or len(set(lines[0])) < len(lines[0]):
        message = "cost CSV: expected a header row such as 'part,parameters', with each resource named once"
        raise JobError(message)
    header, *parts = lines
    _check_parts([part for part, *_ in parts], tasks)
    columns: dict[str, dict[str, float]] = {resource: {} for resource in header[1:]}
    for part, *cells in parts:
        if len(cells) != len(columns):
            message = (
                f"cost CSV, row {part!r}: expected {len(columns)} numbers, one for each resource, got {len(cells)}"
            )
            raise JobError(message)
        for (resource, column), cell in zip(columns.items(), cells, strict=True):
            column[part] = _number(cell, part, resource)
    return {
        resource: Costs(column[ENCODER], {task: column[task] for task in tasks}) for resource, column in columns.items()
    }


def _check_parts(parts: Sequence[str], tasks: Sequence[str]) -> None:
    for part in parts:
        if parts.count(part) > 1:
            message = f"cost CSV: {part!r} has {parts.count(part)} rows: expected one"
            raise JobError(message)
        if part not in (ENCODER, *tasks):
            message = f"cost CSV: row {part!r} is neither {ENCODER!r} nor a task; the tasks are {', '.join(tasks)}"
            raise JobError(message)
    if missing := [part for part in (ENCODER, *tasks) if part not in parts]:
        message = f"cost CSV: no row for {', '.join(map(repr, missing))}: expected one for the encoder and every task"
        raise JobError(message)


def _number(cell: str, part: str, resource: str) -> float:
    try:
        number = float(cell.replace("_", "?"))  # Python reads 1_5 as 15; in a file it is a slip
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        message = f"cost CSV, row {part!r}, column {resource!r}: expected a number of at least 0, got {cell!r}"
        raise JobError(message)
    return number
