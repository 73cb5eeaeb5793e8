"""Boards as recorded: a text file of ``path: content`` lines, and of commands, laid out as a tree that stands for /."""

from __future__ import annotations

import re
from pathlib import Path

from device_runtime.host import Host

BOARDS = Path(__file__).parent / "power" / "boards"
_COMMAND = re.compile(r"^\$ ([\w-]+).*$")


def host_of(board: str, directory: Path) -> Host:
    """Lay out ``boards/<board>.txt`` in ``directory``; its commands become real programs that print what was recorded.

    A line ``/path: content`` is a file; ``$ command`` begins what the command prints, up to the next one.
    """
    root, programs = directory / "root", directory / "bin"
    root.mkdir(parents=True)
    programs.mkdir()
    printed: dict[str, list[str]] = {}
    command = ""
    for line in (BOARDS / f"{board}.txt").read_text(encoding="utf-8").splitlines():
        if match := _COMMAND.match(line):
            command = match[1]
            printed[command] = []
        elif command:
            printed[command].append(line)
        elif line.startswith("/"):
            path, _, content = line.partition(": ")
            write(root, path, content)
    for name, lines in printed.items():
        install(programs, name, "\n".join(lines))
    return Host(root, str(programs))


def write(root: Path, path: str, content: str) -> None:
    """One file of a tree, with the line end that the kernel gives."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content + "\n", encoding="utf-8")


def install(programs: Path, name: str, prints: str, code: int = 0) -> None:
    """A program that prints and ends; the shell's own words only, so that it finds them without a PATH."""
    script = f"#!/bin/sh\nwhile IFS= read -r line; do echo \"$line\"; done <<'END'\n{prints}\nEND\nexit {code}\n"
    (programs / name).write_text(script, encoding="utf-8")
    (programs / name).chmod(0o755)
