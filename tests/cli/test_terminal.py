"""What holds for every verb of both programs: examples that parse, JSON, exit codes, completion in a real shell."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from device_runtime.cli import CUT_OFF, INTERRUPTED
from mas_edge.cli import main
from mas_edge.cli.serve import ABORTED
from mas_edge.protocol import errors
from mas_edge.protocol.errors import EdgeError

PARSERS = {"mas-edge": mas_edge.cli.build_parser(), "mas-edge-device": device_runtime.cli.build_parser()}
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "terminal.md"


def verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that a person asks for help: every verb, also those of verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield verb
                yield from verbs(verb)


EVERY = {verb.prog: verb for parser in PARSERS.values() for verb in verbs(parser)}


def commands(text: str) -> list[list[str]]:
    """The words of our own commands in a line for a shell."""
    inner = re.sub(r'^eval "\$\((.*)\)"$', r"\1", text, flags=re.MULTILINE)
    parts = re.split(r"\s*(?:&&|;|\||&|\n)\s*", inner)
    lines = [shlex.split(re.sub(r"\s[<>]\s*\S+", "", part), comments=True) for part in parts]
    words = [line[line[0] == "sudo" :] for line in lines if line]
    return [[word for word in line if word != "..."] for line in words if line[0] in PARSERS]


@pytest.mark.parametrize("prog", EVERY)
def test_every_help_ends_with_an_example_of_its_own_that_parses(prog: str) -> None:
    _, said, example = (EVERY[prog].epilog or "").partition("example")
    assert said, f"{prog} --help shows no example"
    found = commands(example.lstrip("s").removeprefix(":").strip())
    assert any(prog == " ".join(words[: len(prog.split())]) for words in found), f"{prog}: {found}"
    for program, *words in found:
        PARSERS[program].parse_args(words)


# What a program need not read: they serve until they are stopped (their log is JSON, if that is asked for), print a
# script for a shell, or ask a person for a passphrase.
SILENT = {
    "mas-edge swarm", "mas-edge web", "mas-edge completion", "mas-edge fleet serve", "mas-edge fleet passphrase",
    "mas-edge-device run",
}  # fmt: skip
SERVING = {"mas-edge serve", "mas-edge web", "mas-edge fleet serve", "mas-edge-device run"}


def options(prog: str) -> set[str]:
    """What may be given to a verb."""
    return {option for action in EVERY[prog]._actions for option in action.option_strings}


def is_leaf(prog: str) -> bool:
    """Whether a verb does something itself."""
    return not any(isinstance(action, argparse._SubParsersAction) for action in EVERY[prog]._actions)


def test_every_verb_prints_json_too() -> None:
    assert {prog for prog in EVERY if is_leaf(prog) and "--json" not in options(prog)} == SILENT


@pytest.mark.parametrize("prog", sorted(SERVING))
def test_whatever_serves_logs_json_and_into_a_file(prog: str) -> None:
    assert {"--log-json", "--log-file"} <= options(prog)


def test_the_table_of_exit_codes_is_the_tree_of_errors() -> None:
    rows = re.findall(r"^\| (\d+) \|.*?\| ?(?:`(\w+)`)?", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {int(code): name for code, name in rows}
    tree = {
        kind.exit_code: name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, EdgeError) and kind.__base__ in (EdgeError, Exception)
    }
    assert told == {0: "", 2: "", ABORTED: "", INTERRUPTED: "", CUT_OFF: "", **tree}


@pytest.mark.parametrize("program", PARSERS)
def test_the_codes_that_a_help_names_are_those_of_the_table(program: str) -> None:
    named = re.findall(r"(\d+) [a-zA-Z]", (PARSERS[program].epilog or "").partition("exit codes:")[2])
    table = re.findall(r"^\| (\d+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(table)
    assert {"0", "2", "130"} <= set(named)


ASK = """
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=()
function_of=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function_of" "$1" "${!#}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bash sources."""
    script = tmp_path_factory.mktemp("completion") / "mas-edge.bash"
    with pytest.MonkeyPatch.context() as patch, script.open("w", encoding="utf-8") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mas-edge", "sta"], {"status"}),
        (["mas-edge", "status", "--wa"], {"--watch"}),
        (["mas-edge", "rollout", "runs/watch", "pau"], {"pause"}),
        (["mas-edge", "fleet", "inv"], {"invite"}),
        (["mas-edge", "simulate", "--device", "cu"], {"cuda"}),
        (["mas-edge-device", "unin"], {"uninstall"}),
        (["mas-edge", "serve", "--state", "{here}/mas"], set()),  # a file is no directory
        (["mas-edge", "serve", "--limits", "{here}/mas"], {"{here}/mas-edge.bash"}),
    ],
)
def test_bash_completes_verbs_options_choices_and_paths(completion: Path, words: list[str], expected: set[str]) -> None:
    here = str(completion.parent)
    bash = shutil.which("bash")
    assert bash is not None
    asked = [word.format(here=here) for word in words]
    done = subprocess.run(
        [bash, "--norc", "-c", ASK, "bash", completion, *asked], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == {word.format(here=here) for word in expected}


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_get_both_programs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    both = capsys.readouterr().out
    assert main(["completion", shell, "--program", "mas-edge-device"]) == 0
    one = capsys.readouterr().out
    assert one in both
    assert "rollout" in both
    assert "rollout" not in one
    assert "uninstall" in one
