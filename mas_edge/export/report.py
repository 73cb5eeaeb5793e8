"""What the verification of an export found, for people as a table and for machines as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mas_edge.export.verify import Comparison
from mas_edge.protocol.errors import ServerError

FORMAT = 1
MODEL = "model"  # stands where a program's comparisons name their method


class Loss(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What rounding to int8 costs one task, on real samples.

    ``relative_l2`` = |int8 - float32| / |float32| over the whole output. Metrics are those of the job, where labelled
    test samples were given.
    """

    task: str
    relative_l2: float
    samples: int
    metric: str = ""
    fp32: float | None = None
    int8: float | None = None
    labelled: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The verification of one export.

    ``model`` compares the exported model with the network in eager PyTorch, output by output; ``program`` every output
    of every method of the training program with ordinary training; ``quantization`` is what int8 costs.
    """

    format: int = FORMAT
    group: str
    target: str
    precision: str
    engine: str
    versions: dict[str, str]
    model: list[Comparison]
    program: list[Comparison] = []
    quantization: list[Loss] = []


def to_json(report: Report) -> bytes:
    """The report as JSON, the same for the same report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def from_json(data: bytes) -> Report:
    """Read ``to_json``. Raises ServerError."""
    try:
        return msgspec.json.decode(data, type=Report)
    except msgspec.MsgspecError as error:
        message = f"not a verification report: {error}"
        raise ServerError(message) from None


def worst_of_each(found: Sequence[Comparison]) -> list[tuple[Comparison, int]]:
    """The output nearest to its bound of each method, and how many outputs the method has; methods as they come."""
    methods: dict[str, list[Comparison]] = {}
    for comparison in found:
        methods.setdefault(comparison.method, []).append(comparison)
    return [(max(rows, key=lambda row: row.max_rel / row.tolerance), len(rows)) for rows in methods.values()]


def table(found: Sequence[Comparison]) -> list[str]:
    """One line an output, under a heading, in columns."""
    rows = [("method", "output", "max abs", "max rel", "allowed")]
    rows += [(c.method, c.output, f"{c.max_abs:.1e}", f"{c.max_rel:.1e}", f"{c.tolerance:.1e}") for c in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
