"""The matrix of task affinities: validated, averaged, read from and written to CSV text.

``values[i, j]`` is S_ij, how much an encoder step on task i lowers the loss of task j: row = source, column =
recipient. The diagonal is measured but no score uses it; a task left alone is scored by its self-affinity instead.
This module does not know how an affinity is measured, where a file lies, or how tasks are split.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.errors import JobError

Floats = NDArray[np.float64]

# Affinities are relative loss drops per unit of step size: far below this. Above it their sums could overflow.
MAX_AFFINITY = 1e100
_READABLE = 0.01  # from here on two decimals say something
CORNER = "source"  # first cell of the header we write; on reading it may be anything


@dataclass(frozen=True, eq=False)
class AffinityMatrix:
    """Affinities between named tasks; ``values`` is float64 of shape (n, n), row = source i, column = recipient j.

    Raises:
        JobError: a task name is empty, repeated or not printable; the values are not a square of the tasks' number, or
            one of them is not finite or is over MAX_AFFINITY.
    """

    tasks: tuple[str, ...]
    values: Floats

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)  # a copy: nobody else can change it
        values.setflags(write=False)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "values", values)
        _check_names(self.tasks)
        n = len(self.tasks)
        if values.shape != (n, n):
            message = f"affinity matrix of {n} tasks: expected values of shape ({n}, {n}), got {values.shape}"
            raise JobError(message)
        bad = np.argwhere(~(np.abs(values) <= MAX_AFFINITY))  # true for NaN as well
        if len(bad):
            i, j = bad[0]
            message = (
                f"affinity of {self.tasks[i]!r} on {self.tasks[j]!r} is {values[i, j]}: "
                f"expected a finite number of at most {MAX_AFFINITY:g}"
            )
            raise JobError(message)

    @property
    def off_diagonal(self) -> Floats:
        """The values with zeros on the diagonal, shape (n, n): all that scores are made of."""
        values = self.values.copy()
        np.fill_diagonal(values, 0.0)
        return values


def readable_power(matrix: Sequence[Sequence[float]]) -> int:
    """The power of ten in units of which a matrix (n x n, row = source) is shown: 0 while two decimals say something.

    How large affinities are depends on how they are measured: from 1 for a lookahead to a millionth at the features.
    """
    reach = max((abs(v) for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j), default=0.0)
    return math.floor(math.log10(reach)) if 0 < reach < _READABLE else 0


def self_affinities(matrix: AffinityMatrix) -> Floats:
    """Return what each task scores when it is left alone, shape (n,).

    S_ii := sum_{j != i} (S_ij + S_ji) / (2 (n - 1)), the rule of MAS (ICCV 2023) and of its released code. A single
    task has nobody to help or to harm it: 0.
    """
    n = len(matrix.tasks)
    if n == 1:
        return np.zeros(1)
    values = matrix.off_diagonal
    both_ways: Floats = values.sum(axis=0) + values.sum(axis=1)
    return both_ways / (2 * (n - 1))


def to_csv(matrix: AffinityMatrix) -> str:
    """Return the matrix as CSV text that ``from_csv`` reads back to the last bit."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([CORNER, *matrix.tasks])
    for task, row in zip(matrix.tasks, matrix.values.tolist(), strict=True):
        writer.writerow([task, *map(repr, row)])
    return text.getvalue()


def from_csv(text: str) -> AffinityMatrix:
    """Read a matrix: a header row and a first column of task names, row = source i, column = recipient j.

    The columns may stand in another order than the rows; the rows' order is kept. A cell on the diagonal may be empty
    (read as 0: nothing uses it). Blank lines and a byte order mark are skipped.

    Raises:
        JobError: with the line and the column of what is wrong.
    """
    lines = list(_lines(text))
    if len(lines) < 2:
        message = "affinity CSV: expected a header row of task names and one row for each task, got no such rows"
        raise JobError(message)
    (header_line, (_, *columns)), *rows = lines
    _check_columns(columns, header_line)
    values: dict[str, list[float]] = {}
    for line, (source, *cells) in rows:
        if source in values:
            message = f"affinity CSV, line {line}: task {source!r} has a second row; expected one row for each task"
            raise JobError(message)
        if source not in columns:
            message = f"affinity CSV, line {line}: row {source!r} has no column; the columns are {_listed(columns)}"
            raise JobError(message)
        values[source] = _row(source, columns, cells, line)
    if missing := [name for name in columns if name not in values]:
        message = f"affinity CSV: the header names {_listed(missing)}, but no row does; expected one row for each task"
        raise JobError(message)
    order = [columns.index(task) for task in values]
    return AffinityMatrix(tuple(values), np.array(list(values.values()))[:, order])


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the stripped cells of every line that is not blank."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        message = f"affinity CSV, line {reader.line_num}: not comma-separated values ({error})"
        raise JobError(message) from None


def _check_columns(columns: Sequence[str], line: int) -> None:
    if not columns:
        message = f"affinity CSV, line {line}: expected an empty cell, then task names, all after commas; got one cell"
        raise JobError(message)
    try:
        _check_names(columns)
    except JobError as error:
        message = f"affinity CSV, line {line}: {error}"
        raise JobError(message) from None


def _row(source: str, columns: Sequence[str], cells: Sequence[str], line: int) -> list[float]:
    if len(cells) != len(columns):
        message = (
            f"affinity CSV, line {line}: expected {len(columns)} values after {source!r}, one for each column of the "
            f"header, got {len(cells)}"
        )
        raise JobError(message)
    return [_number(cell, line, source, recipient) for recipient, cell in zip(columns, cells, strict=True)]


def _number(cell: str, line: int, source: str, recipient: str) -> float:
    if not cell and source == recipient:
        return 0.0
    try:
        number = float(cell.replace("_", "?"))  # Python reads 1_5 as 15; in a file it is a slip
    except ValueError:
        number = np.nan
    if not abs(number) <= MAX_AFFINITY:
        message = f"affinity CSV, line {line}, column {recipient!r}: expected a finite number, got {cell!r}"
        raise JobError(message)
    return number


def _check_names(tasks: Sequence[str]) -> None:
    if not tasks:
        message = "affinity matrix: expected at least one task, got none"
        raise JobError(message)
    for position, task in enumerate(tasks):
        if not task or not task.isprintable() or task != task.strip():
            message = f"task name {position + 1} is {task!r}: expected printable text with no space at its ends"
            raise JobError(message)
        if task in tasks[:position]:
            message = f"task {task!r} is named twice: expected every name once"
            raise JobError(message)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
