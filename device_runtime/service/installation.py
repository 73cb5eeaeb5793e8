"""Writing a service's files and running its commands, and undoing both: what was done is noted beside the state."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from mas_edge.protocol.errors import DeviceError

NOTE = "service.json"
COMMAND_S = 60.0  # a manager of services answers within seconds; beyond this it hangs
Say = Callable[[str], None]


class File(msgspec.Struct, frozen=True):
    """A file of the service."""

    path: str
    text: str
    mode: int = 0o644


class Command(msgspec.Struct, frozen=True):
    """A command of the manager of services; one that is not ``needed`` may fail."""

    argv: list[str]
    needed: bool = True

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Installation(msgspec.Struct, frozen=True):
    """All of it: files to write, links (path, target), what to run then, and what to run before it is undone."""

    manager: str
    files: list[File]
    start: list[Command]
    stop: list[Command]
    links: list[tuple[str, str]] = []
    hints: list[str] = []  # what only a person can do

    def steps(self) -> list[str]:
        """What will be done, a line each."""
        written = [f"write {file.path}" for file in self.files]
        linked = [f"link {path} to {target}" for path, target in self.links]
        return [*written, *linked, *(f"run {command}" for command in self.start)]


class Note(msgspec.Struct, frozen=True):
    """What was installed, for the day it is undone."""

    installation: Installation
    digests: dict[str, str]


def install(installation: Installation, state: Path, say: Say) -> None:
    """Write, link, run; say each step once it is done.

    Raises:
        DeviceError: a service is installed already, a file cannot be written, or a command fails; what was written
            until then stays noted, so that ``uninstall`` removes it.
    """
    if (state / NOTE).exists():
        message = f"a service is installed for {state} already: run `mas-edge-device uninstall` first"
        raise DeviceError(message)
    digests = {file.path: _digest(file.text) for file in installation.files}
    _write(state / NOTE, msgspec.json.format(msgspec.json.encode(Note(installation, digests))).decode(), 0o600)
    for file in installation.files:
        _write(Path(file.path), file.text, file.mode)
        say(f"wrote {file.path}")
    for path, target in installation.links:
        _link(Path(path), target)
        say(f"linked {path} to {target}")
    for command in installation.start:
        _run(command)
        say(f"ran {command}")


def uninstall(state: Path, say: Say) -> None:
    """Undo what ``install`` did for this state directory; a file that was changed since is left and named.

    Raises:
        DeviceError: nothing is installed there, or a file cannot be removed.
    """
    note = read_note(state)
    for command in note.installation.stop:
        _run(msgspec.structs.replace(command, needed=False))
        say(f"ran {command}")
    for link, _ in note.installation.links:
        if Path(link).is_symlink():
            _remove(Path(link))
            say(f"removed {link}")
    for file in note.installation.files:
        _undo(Path(file.path), note.digests[file.path], say)
    _remove(state / NOTE)
    say(f"kept {state}: models, programs and updates; delete it to forget them")


def _undo(path: Path, digest: str, say: Say) -> None:
    if not path.is_file():
        say(f"{path} was gone already")
    elif _digest(path.read_text(encoding="utf-8", errors="replace")) != digest:
        say(f"left {path}: it was changed since it was written; delete it yourself")
    else:
        _remove(path)
        if path.parent.name.startswith("mas-edge") and not any(path.parent.iterdir()):
            path.parent.rmdir()  # a folder that was made for this service alone
        say(f"removed {path}")


def _write(path: Path, text: str, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; what was installed so far is undone by `uninstall`"
        raise DeviceError(message) from None


def _link(path: Path, target: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    except OSError as error:
        message = f"cannot link {path} to {target}: {error.strerror}"
        raise DeviceError(message) from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot remove {path}: {error.strerror}; run this as the user who installed it"
        raise DeviceError(message) from None


def read_note(state: Path) -> Note:
    """What was installed for this state directory.

    Raises:
        DeviceError: nothing was, or the note cannot be read.
    """
    path = state / NOTE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except FileNotFoundError:
        message = f"no service is installed for {path.parent}: expected {path}; give the --name or --state of one"
        raise DeviceError(message) from None
    except (OSError, msgspec.MsgspecError) as error:
        message = f"{path} cannot be read: {error}; remove the service's files by hand"
        raise DeviceError(message) from None


def _run(command: Command) -> None:
    try:
        ended = subprocess.run(command.argv, capture_output=True, text=True, check=False, timeout=COMMAND_S)  # noqa: S603
        problem = ended.stderr.strip() or f"exit code {ended.returncode}" if ended.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem and command.needed:
        message = f"{command} failed: {problem}; `mas-edge-device uninstall` undoes what was installed so far"
        raise DeviceError(message)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
