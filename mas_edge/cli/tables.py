"""Rows of text as columns that are as wide as they must be."""

from __future__ import annotations

from collections.abc import Sequence


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for the heads and one a row, two spaces between columns; the last column is as long as it likes."""
    every = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
