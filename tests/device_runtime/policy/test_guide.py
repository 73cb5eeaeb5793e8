"""The guides' policy files are policies, name every key, and their commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from device_runtime.cli import build_parser
from device_runtime.policy.file import read_policy
from device_runtime.policy.processor import Processor
from device_runtime.policy.rules import Rules
from device_runtime.power.survey import PowerSettings

GUIDES = Path(__file__).parents[3] / "docs" / "guides"
TABLES = {"policy.md": (Rules, Processor), "energy.md": (PowerSettings,)}


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}.*?\n(.*?)^```", (GUIDES / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", TABLES)
def test_the_policy_of_a_guide_can_be_read_and_names_every_key(page: str, tmp_path: Path) -> None:
    (text,) = fenced(page, "toml")
    everything = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)  # also what is commented out
    (tmp_path / "policy.toml").write_text(everything)
    read_policy(tmp_path / "policy.toml")
    named = set(re.findall(r"^(\w+) = ", everything, re.MULTILINE))
    assert named == {name for table in TABLES[page] for name in table.__struct_fields__}


@pytest.mark.parametrize("page", TABLES)
def test_the_commands_of_a_guide_parse(page: str) -> None:
    for block in fenced(page, "sh"):
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "mas-edge-device"
            build_parser().parse_args(words)


@pytest.mark.parametrize("page", TABLES)
def test_the_links_of_a_guide_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (GUIDES / page).read_text()):
        assert (GUIDES / target).exists()
