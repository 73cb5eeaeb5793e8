"""The files that a comparison ends in: ``table.md``, ``table.csv``, ``table.json``, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mas_edge.protocol.errors import ServerError
from mas_edge.simulation import plots
from mas_edge.simulation.compare import Compared
from mas_edge.simulation.table import to_csv, to_json, to_markdown


@dataclass(frozen=True)
class Report:
    """What was written, and where."""

    markdown: str
    json: str
    files: list[Path]


def write_report(compared: Compared, out: Path) -> Report:
    """Write tables and pictures into ``out``. Raises ServerError if they cannot be written."""
    try:
        pictures = plots.draw_all(compared, out)
        texts = {
            "table.md": to_markdown(compared.comparison, pictures),
            "table.csv": to_csv(compared.comparison),
            "table.json": to_json(compared.comparison),
        }
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"{out} cannot be written to: {error}; free some space, or choose another --out"
        raise ServerError(message) from None
    return Report(texts["table.md"], texts["table.json"], [out / name for name in (*texts, *pictures)])
