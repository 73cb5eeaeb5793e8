"""The page's files: small, readable, from nowhere but here, and no way for data to become markup."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from mas_edge.web.bundle import join_scripts, join_styles
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


def test_every_command_that_the_page_names_is_there() -> None:
    named = {found for path in OWN for found in re.findall(r"<code>(mas-edge(?:-device)?) ([a-z]+)", path.read_text())}
    assert ("mas-edge", "serve") in named
    parsers = {"mas-edge": mas_edge.cli.build_parser(), "mas-edge-device": device_runtime.cli.build_parser()}
    verbs = {
        (program, verb)
        for program, parser in parsers.items()
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for verb in action.choices
    }
    assert named <= verbs


def test_the_whole_page_is_smaller_than_one_picture() -> None:
    assert sum(path.stat().st_size for path in FILES) < 400_000
    assert max(path.stat().st_size for path in FILES) < 100_000


def test_every_file_that_the_page_names_is_served() -> None:
    files = PageFiles()
    index = (PAGE / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="([^"]+)"', index):
        assert files.find(f"/{name}") is not None, name
    for path in OWN:
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_scripts_and_styles_are_joined_whole_each_module_after_those_that_it_imports() -> None:
    script, style = join_scripts(PAGE).decode(), join_styles(PAGE).decode()
    joined = re.findall(r"^// ([\w/]+\.js)$", script, re.MULTILINE)
    root = PAGE / "js"
    assert sorted(joined) == sorted(
        str(path.relative_to(root)) for path in root.rglob("*.js") if path.name != "begin.js"
    )
    assert re.findall(r"^(?:import|export)\b.*", script, re.MULTILINE) == [], "bundle.py does not know this form"
    for place, name in enumerate(joined):
        for needed in re.findall(r'from "(\.[^"]+)"', (root / name).read_text()):
            found = (root / name).parent / needed
            assert str(found.resolve().relative_to(root)) in joined[:place], f"{name} comes before {needed}"
    assert all(path.read_text() in style for path in PAGE.rglob("*.css"))
    for library in PAGE.glob("vendor/*.js"):
        assert library.read_text().partition("//# sourceMappingURL")[0] in script


def test_a_joined_file_is_made_anew_when_a_part_of_it_is_another(tmp_path: Path) -> None:
    folder = shutil.copytree(PAGE, tmp_path / "page")
    files = PageFiles(folder)
    page = files.find("/page.js")
    assert page is not None
    before = files.body(page)
    assert files.body(page) is before
    changed = folder / "js" / "units.js"
    changed.write_text(changed.read_text() + "\n// another\n")
    os.utime(changed, ns=(2**61, 2**61))  # later than any file here
    assert b"// another" in files.body(page).data
    assert files.body(page).etag != before.etag
