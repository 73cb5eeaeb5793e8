"""The page for when something is wrong shows the words that the programs really say."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, in_ticks, prose, rows

PAGE = ROOT / "docs" / "guides" / "troubleshooting.md"
SAID = re.findall(r"\| it says \|[^\n]*\n\|---\|---\|\n((?:\|.*\|\n)+)", prose(PAGE))


def _said() -> list[str]:
    head = "| it says | why |\n|---|---|\n"
    return [word for table in SAID for row in rows(head + table) for word in in_ticks(row[0])]


@pytest.fixture(scope="module")
def sources() -> str:
    """All of our code, with strings that are broken over lines in one piece."""
    paths = [path for package in ("mas_edge", "device_runtime") for path in sorted((ROOT / package).rglob("*.py"))]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in paths))


@pytest.mark.parametrize("words", _said())
def test_it_is_said_somewhere(words: str, sources: str) -> None:
    for part in filter(None, (piece.strip() for piece in words.split("..."))):
        assert part in sources, f"no message holds {part!r}"


def test_the_page_has_messages() -> None:
    assert len(_said()) > 15
