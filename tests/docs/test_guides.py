"""The guides' code blocks, executed in order in one empty folder, as a reader would.

A block with a title is written to that file. A ``python`` block runs, a ``sh`` block is a command line of ours; a
``text`` block is what the block before it printed. ``run`` needs a broker and only has its arguments parsed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import device_runtime.cli
import mas_edge.cli

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block."""

    line: int
    language: str
    title: str
    text: str


def blocks(guide: Path) -> list[Block]:
    page = guide.read_text(encoding="utf-8")
    return [Block(page.count("\n", 0, m.start()) + 1, m[1], m[2] or "", m[3]) for m in FENCE.finditer(page)]


class Reader:
    """Someone who does what a guide says, from top to bottom."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"__name__": "guide"}
        self.done = 0
        self.exit_codes: list[int] = []

    def follow(self, guide: Path) -> None:
        printed = ""
        for block in blocks(guide):
            where = f"{guide.name}:{block.line}"
            if block.title:
                self._write(Path(block.title), block.text)
            elif block.language == "text":
                assert printed == block.text, f"{where} shows something else than what was printed"
            else:
                printed = self._run(block, where)
            self.done += 1

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    def _run(self, block: Block, where: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, where, "exec"), self._names)
            elif block.language == "sh":
                self.exit_codes += [command(shlex.split(line)) for line in block.text.splitlines()]
            else:
                pytest.fail(f"{where}: nobody knows how to run a block of {block.language}")
        return printed.getvalue()


def command(words: list[str]) -> int:
    program, *arguments = words
    if program == "mas-edge":
        return mas_edge.cli.main(arguments)
    assert program == "mas-edge-device"
    parsed = device_runtime.cli.build_parser().parse_args(arguments)
    return 0 if parsed.verb == "run" else device_runtime.cli.main(arguments)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads, modules = torch.get_num_threads(), set(sys.modules)
    torch.set_num_threads(1)  # on nets of this size threads only get into each other's way
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        if name.split(".")[0] == "pumps":
            del sys.modules[name]


@pytest.mark.usefixtures("empty_folder")
def test_the_guides_do_what_they_say() -> None:
    reader = Reader()
    reader.follow(GUIDES / "own-data.md")
    assert reader.exit_codes == [0, 4, 0, 0]  # the second one checks a folder that was broken on purpose
    reader.exit_codes.clear()
    reader.follow(GUIDES / "own-network.md")
    reader.follow(GUIDES / "export.md")
    assert reader.exit_codes == [0, 0]
    assert reader.done == sum(page.count("\n```") // 2 for page in pages())


def test_every_fence_of_a_guide_is_understood() -> None:
    """A block that the pattern misses would not be tested."""
    for page, guide in zip(pages(), guides(), strict=True):
        assert len(blocks(guide)) == page.count("\n```") // 2, guide.name


def test_every_link_between_guides_leads_somewhere() -> None:
    for page, guide in zip(pages(), guides(), strict=True):
        for target in re.findall(r"\]\(([^)#]+)", page):
            assert (guide.parent / target).exists(), f"{guide.name} links to {target}"


def guides() -> list[Path]:
    return [GUIDES / "own-data.md", GUIDES / "own-network.md", GUIDES / "export.md"]


def pages() -> list[str]:
    return [guide.read_text(encoding="utf-8") for guide in guides()]
