"""The page on the method: its pictures are there, and say what they show."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.docs.pages import LINK, ROOT, prose

PAGE = ROOT / "docs" / "guides" / "how-it-works.md"


def test_every_picture_says_what_it_shows() -> None:
    pictures = [PAGE.parent / link for link in LINK.findall(prose(PAGE)) if link.endswith(".svg")]
    assert len(pictures) == 3
    for picture in pictures:
        root = ElementTree.parse(picture).getroot()
        assert root.get("aria-label") == root.findtext("{http://www.w3.org/2000/svg}title")
