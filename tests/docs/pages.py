"""What the tests of the documentation read: fenced blocks, tables, headings, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# What stands in the line above a block that the tests cannot run here, and why.
NOT_EXECUTED = re.compile(r"<!-- not executed(?:: (.+?))? -->\n\n?\Z")


class Block(NamedTuple):
    """One fenced block. ``excuse`` is why it is not executed; None: it is."""

    line: int
    language: str
    title: str
    text: str
    excuse: str | None


def pages() -> list[Path]:
    """Every page of the project."""
    folders = ("docs", "broker", "models", "tools")
    return [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, m.start()) + 1, m[1], m[2] or "", m[3], _excuse(text[: m.start()]))
        for m in FENCE.finditer(text)
    ]


def _excuse(above: str) -> str | None:
    found = NOT_EXECUTED.search(above)
    return (found[1] or "") if found else None


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> list[str]:
    """What its headings are called in links."""
    return [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for _, title in HEADING.findall(prose(page))]


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    text = prose(page)
    start = re.search(rf"^#+ {re.escape(title)}\n", text, re.MULTILINE)
    assert start, f"{page.name} has no heading {title!r}"
    following = HEADING.search(text, start.end())
    return text[start.end() : following.start() if following else len(text)]


def rows(text: str, table: int = 0) -> list[list[str]]:
    """The cells of one of the tables in ``text``, without the head."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in tables[table].splitlines()[2:]]


def in_ticks(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)
