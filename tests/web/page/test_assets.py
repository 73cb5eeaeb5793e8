"""The page's files: small, readable, from nowhere but here, and no way for data to become markup."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from mas_edge.web.pages import PAGE, PageFiles

FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
OWN = [path for path in FILES if path.parent.name != "vendor" and path.suffix in (".js", ".css", ".html")]
VENDORED = re.findall(
    r"\| `([\w.-]+)` \|.*`([\w.-]+LICENSE)` \| `([0-9a-f]{64})` \|", (PAGE / "vendor" / "README.md").read_text()
)
# Ways from text to markup or code: none of them is needed to draw a page.
UNSAFE = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "dangerouslySetInnerHTML",
    "eval(",
    "new Function",
)


def test_each_vendored_file_is_the_release_that_its_list_names_and_has_its_licence() -> None:
    assert {name for name, _, _ in VENDORED} == {
        path.name for path in (PAGE / "vendor").iterdir() if path.suffix in (".js", ".css")
    }
    for name, licence, digest in VENDORED:
        assert hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == digest, name
        assert (PAGE / "vendor" / licence).is_file()


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_is_short_and_makes_no_markup_of_data(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 500
    assert [word for word in UNSAFE if word in text] == []
    assert re.findall(r"https?://(?!www\.w3\.org/)[\w.]+", text) == []  # the namespace of SVG is a name, not an address
    assert not re.search(r'<\w+[^>]*\son[a-z]+="|style="', text), "the content security policy forbids it"


def test_the_whole_page_is_smaller_than_one_picture() -> None:
    assert sum(path.stat().st_size for path in FILES) < 400_000
    assert max(path.stat().st_size for path in FILES) < 100_000


def test_every_file_that_the_page_names_is_served() -> None:
    files = PageFiles()
    index = (PAGE / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="([^"]+)"', index):
        assert files.find(f"/{name}") is not None, name
    named = {PAGE / name for name in re.findall(r'(?:href|src)="(js/[^"]+)"', index)}
    assert named == set((PAGE / "js").rglob("*.js"))  # all at once: not one after the other as each is imported
    for path in OWN:
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"
