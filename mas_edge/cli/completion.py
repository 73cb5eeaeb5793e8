"""``mas-edge completion``: what makes a shell complete the verbs and options of both programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mas_edge.protocol.errors import ServerError

SHELLS = ("bash", "zsh", "fish", "tcsh")
PROGRAMS = ("mas-edge", "mas-edge-device")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print what makes your shell complete verbs and options",
        description="Print the completion of both programs, or of one. For bash, put the line of the example into "
        "~/.bashrc; for zsh and fish write it where they look, as _mas-edge in a folder of $fpath, or as "
        "~/.config/fish/completions/mas-edge.fish.",
        epilog='example: eval "$(mas-edge completion bash)"',
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.add_argument("--program", choices=PROGRAMS, help="only this one; zsh needs a file for each")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    if find_spec("shtab") is None:
        message = "completion needs shtab: pip install 'mas-edge[server]'"
        raise ServerError(message)
    import shtab

    import device_runtime.cli
    import mas_edge.cli

    makers = {"mas-edge": mas_edge.cli.build_parser, "mas-edge-device": device_runtime.cli.build_parser}
    for program in [args.program] if args.program else PROGRAMS:
        parser = makers[program]()
        for action in _actions(parser):
            if action.type is Path and action.choices is None:
                kind = shtab.DIRECTORY if action.metavar in ("DIR", "RUN") else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]  # this is how shtab is told
        print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of a parser and of its verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
