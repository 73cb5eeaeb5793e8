"""The page on the method: its matrix splits as it says, and its pictures are there."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import mas_edge.cli
from tests.docs.pages import LINK, ROOT, blocks, prose

PAGE = ROOT / "docs" / "guides" / "how-it-works.md"


def test_the_matrix_of_the_page_splits_into_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix, command = blocks(PAGE)
    Path(matrix.title).write_text(matrix.text)
    assert mas_edge.cli.main(command.text.split()[1:]) == 0
    assert "{segmentation, depth, normals} {keypoints, edges}" in capsys.readouterr().out


def test_every_picture_says_what_it_shows() -> None:
    pictures = [PAGE.parent / link for link in LINK.findall(prose(PAGE)) if link.endswith(".svg")]
    assert len(pictures) == 3
    for picture in pictures:
        root = ElementTree.parse(picture).getroot()
        assert root.get("aria-label") == root.findtext("{http://www.w3.org/2000/svg}title")
