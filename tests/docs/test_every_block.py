"""Every fenced block of every page is executed, read by what reads such a file, or says why it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

from device_runtime.policy.file import read_policy
from mas_edge.job import parse_job
from tests.docs.pages import ROOT, Block, blocks, in_ticks, pages
from tests.docs.typed import can_be_typed

RUN = ("sh", "bash", "python")
# Which test does what a page says, block by block, and fails on one that it cannot do.
BY = {
    "tests/docs/test_readme.py": ("README", "docs/guides/operate", "docs/guides/first-ten-minutes"),
    "tests/docs/test_guides.py": ("docs/guides/own-data", "docs/guides/own-network", "docs/guides/export"),
    "tests/datasets/test_rooms_guide.py": ("docs/guides/rooms",),
    "tests/docs/test_device_pages.py": ("docs/devices/linux",),
    "tests/docs/test_workshop_pages.py": (
        "CONTRIBUTING",
        *(
            f"docs/guides/{name}"
            for name in (
                "api", "brokers", "compare", "energy", "home-assistant", "how-it-works", "methods", "policy", "report",
                "rollout", "security", "signing", "terminal",
            )
        ),
    ),
}  # fmt: skip
EXECUTED_BY = {f"{page}.md": test for test, those in BY.items() for page in those}
FOUND = [(page, block) for page in pages() for block in blocks(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def names(found: list[tuple[Path, Block]]) -> list[str]:
    return [f"{name_of(page)}:{block.line}" for page, block in found]


@pytest.mark.parametrize(("page", "block"), FOUND, ids=names(FOUND))
def test_a_block_is_executed_or_says_why_not(page: Path, block: Block) -> None:
    if block.excuse is not None:
        assert len(block.excuse.split()) > 1, f"{name_of(page)}:{block.line} is marked without a reason"
        for named in in_ticks(block.excuse):
            assert (ROOT / named).exists(), f"{name_of(page)}:{block.line}: {named}"
    elif block.language in RUN:
        assert name_of(page) in EXECUTED_BY, f"{name_of(page)}:{block.line} is executed by no test: add it, or say why"


def test_the_tests_that_do_what_pages_say_name_those_pages() -> None:
    for page, test in EXECUTED_BY.items():
        code = (ROOT / test).read_text(encoding="utf-8")
        assert re.search(rf'"{Path(page).stem}(\.md)?"', code), f"{test} does not name {page}"


def test_an_excuse_stands_above_a_block_and_nowhere_else() -> None:
    for page in pages():
        excuses = re.findall("^<!-- not executed", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(excuses) == sum(block.excuse is not None for block in blocks(page)), name_of(page)


def test_the_pattern_misses_no_fence() -> None:
    """A block that is not found would not be tested."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if "{toctree}" not in text:
            assert len(blocks(page)) == len(re.findall(r"^ *```", text, re.MULTILINE)) // 2, name_of(page)


def test_no_command_hides_in_an_indented_block() -> None:
    command = re.compile(r"^ {4}(?:sudo |\$ |[A-Z_]+=\S+ )?\S*(?:mas-edge|pip|python|make|apt)[ -].*$", re.MULTILINE)
    for page in pages():
        assert not command.findall(page.read_text(encoding="utf-8")), name_of(page)


@pytest.mark.parametrize("page", sorted({page for page, _ in FOUND}), ids=name_of)
def test_every_command_of_a_page_can_be_typed(page: Path) -> None:
    for block in blocks(page):
        for line in block.text.splitlines() if block.language in ("sh", "bash") else ():
            can_be_typed(line)


# ---------------------------------------------------------------- files that a page shows


def as_job(text: str) -> object:
    """A part of a job file, with the rest that such a file has to have."""
    given = tomllib.loads(text)
    for key, rest in {"data": "input_shape = [3]", "federation": "rounds = 4\nmerge_rounds = 2"}.items():
        text += "" if key in given else f"\n[{key}]\n{rest}\n"
    if "tasks" not in given:
        text += "".join(f'\n[[tasks]]\nname = "{name}"\nkind = "value"\n' for name in "ab")
    return parse_job(text if "name" in given else f'name = "example"\n{text}')


def as_policy(text: str, folder: Path) -> object:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return read_policy(path)


def reader_of(text: str) -> str:
    """What reads such a file: it is told by its keys."""
    keys = tomllib.loads(text).keys()
    if keys & {"rules", "power", "processor"}:
        return "policy"
    return "folder" if "format" in keys else "job"


TOML = [(page, block) for page, block in FOUND if block.language == "toml"]


@pytest.mark.parametrize(("page", "block"), TOML, ids=names(TOML))
def test_a_file_that_a_page_shows_is_read_by_what_reads_such_a_file(page: Path, block: Block, tmp_path: Path) -> None:
    readers: dict[str, Callable[[str], object]] = {
        "policy": lambda text: as_policy(text, tmp_path), "job": as_job, "folder": tomllib.loads,
    }  # fmt: skip
    kind = reader_of(block.text)
    if kind == "folder" or page.name == "first-ten-minutes.md":
        # The first lies beside its arrays; the second is wrong on purpose, and the page shows what is said to it.
        assert block.title, name_of(page)
        assert name_of(page) in EXECUTED_BY
    else:
        assert readers[kind](block.text)


JSON = [(page, block) for page, block in FOUND if block.language == "json"]
READ_BY = {
    "docs/protocol/README.md": "tests/docs/test_protocol_page.py",
    "docs/devices/microboard.md": "tests/docs/test_workshop_pages.py",
}


@pytest.mark.parametrize(("page", "block"), JSON, ids=names(JSON))
def test_a_json_block_is_one_and_a_test_gives_it_to_who_reads_it(page: Path, block: Block) -> None:
    assert json.loads(block.text)
    assert f'"{page.name}"' in (ROOT / READ_BY[name_of(page)]).read_text(encoding="utf-8")
