"""Whether a command line of a page can be typed: verbs and options that there are, files of ours that there are."""

from __future__ import annotations

import re
import shlex

import tomllib

import device_runtime.cli
import mas_edge.cli
from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WHEEL = f"mas_edge-{PROJECT['version']}-py3-none-any.whl"
PARSERS = {"mas-edge": mas_edge.cli.build_parser, "mas-edge-device": device_runtime.cli.build_parser}
# What other people's programs are asked to do, as far as nobody can look at it here.
OTHERS = ("apt", "pkg", "proot-distro", "scp", ".", "exec", "exec nice", "curl", "eval", "python3", "mpremote")
ASSIGNMENT = re.compile(r"^[A-Z_]+=\S+$")


def can_be_typed(line: str) -> None:
    """Raises AssertionError (or what the parser ends with) if it cannot."""
    if line.startswith("#!"):
        return
    words = shlex.split(re.split(r" [<>|&](?: |$)", line)[0])
    while words[0] == "sudo" or ASSIGNMENT.match(words[0]):
        words = words[1:]
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program in PARSERS:
        if "--help" not in arguments:
            PARSERS[program]().parse_args(arguments)
    elif program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(), line
    elif program == "pip":
        _pip(arguments, line)
    elif program == "python":
        _python(arguments, line)
    else:
        assert program in OTHERS, f"nobody knows how to run {line!r}"


def _pip(arguments: list[str], line: str) -> None:
    for word in arguments:
        if found := re.fullmatch(r"(\.|mas-edge|mas_edge-.+\.whl)(?:\[([\w,-]+)\])?", word):
            assert not found[1].endswith(".whl") or found[1] == WHEEL, line
            check_extras(found[2])


def check_extras(extras: str | None) -> None:
    """``a,b`` names extras that exist."""
    named = set(extras.split(",")) if extras else set()
    assert named <= PROJECT["optional-dependencies"].keys(), extras


def _python(arguments: list[str], line: str) -> None:
    if arguments[0] == "-m":
        known = arguments[1] == "venv" or (ROOT / f"{arguments[1].replace('.', '/')}.py").exists()
        assert known, line
        return
    script = (ROOT / arguments[0]).read_text(encoding="utf-8")
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in script, f"{line}: {arguments[0]} has no {option}"
