"""Writing a service's files and running its commands, and undoing both: what was done is noted beside the state."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mas_edge.protocol.errors import DeviceError

NOTE = "service.json"
COMMAND_S = 60.0  # a manager of services answers within seconds; beyond this it hangs
AGAIN_S = 1.0  # between two attempts of a command that is given time
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
    patience_s: float = 0.0  # for how long one that fails is tried again
    advice: str = ""  # what to do if it fails all the same

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Installation(msgspec.Struct, frozen=True):
    """All of it: links (path, target), files to write, what to run then, and what to run before and after it is undone.

    Links come first: runit takes a service up within seconds of seeing its folder, and its log only if that is there.
    """

    manager: str
    files: list[File]
    start: list[Command]
    stop: list[Command]
    links: list[tuple[str, str]] = []
    hints: list[str] = []  # what only a person can do
    folders: list[str] = []  # for this service alone: what the manager puts there goes with it
    after: list[Command] = []  # once the files are gone
    kept: list[str] = []  # what ``install`` changed and ``uninstall`` leaves, and how to undo it
    undo: str = "mas-edge-device uninstall"  # the whole command

    def steps(self) -> list[str]:
        """What will be done, a line each."""
        linked = [f"link {path} to {target}" for path, target in self.links]
        written = [f"write {file.path}" for file in self.files]
        return [*linked, *written, *(f"run {command}" for command in self.start)]


class Note(msgspec.Struct, frozen=True):
    """What was installed, for the day it is undone."""

    installation: Installation
    digests: dict[str, str]


def install(installation: Installation, state: Path, say: Say) -> None:
    """Link, write, run; say each step once it is done.

    Raises:
        DeviceError: a service is installed already, somebody else's file is in the way, one cannot be written, or a
            command fails; what was written until then stays noted, so that ``uninstall`` removes it.
    """
    if (state / NOTE).exists():
        message = f"a service is installed for {state} already: run `{read_note(state).installation.undo}` first"
        raise DeviceError(message)
    for file in installation.files:
        _untaken(file)
    digests = {file.path: _digest(file.text) for file in installation.files}
    note = msgspec.json.format(msgspec.json.encode(Note(installation, digests))).decode()
    _write(File(str(state / NOTE), note, 0o600), "nothing was installed; --state DIR names another place")
    back = f"what was installed so far is undone by `{installation.undo}`"
    for path, target in installation.links:
        _link(Path(path), target, back)
        say(f"linked {path} to {target}")
    for file in installation.files:
        _write(file, back)
        say(f"wrote {file.path}")
    for command in installation.start:
        problem = _run(command)
        if problem and command.needed:
            message = f"{command} failed: {problem}; {f'{command.advice}; ' if command.advice else ''}{back}"
            raise DeviceError(message)
        say(_ran(command, problem))


def uninstall(state: Path, say: Say) -> None:
    """Undo what ``install`` did for this state directory; a file that was changed since is left and named.

    Raises:
        DeviceError: nothing is installed there, or a file cannot be removed.
    """
    note = read_note(state)
    for command in note.installation.stop:
        say(_ran(command, _run(command)))
    for link, _ in note.installation.links:
        if Path(link).is_symlink():
            _remove(Path(link))
            say(f"removed {link}")
    for file in note.installation.files:
        _undo(Path(file.path), note.digests[file.path], say)
    for folder in note.installation.folders:
        _clear(Path(folder), {Path(file.path) for file in note.installation.files}, say)
    for command in note.installation.after:
        say(_ran(command, _run(command)))
    _remove(state / NOTE)
    for text in note.installation.kept:
        say(f"kept {text}")
    say(f"kept {state}: identity, models, programs and updates; delete it to forget them")


def installed_at(states: Sequence[Path]) -> Path:
    """The state directory of those for which something is installed; the first one if for none."""
    found = [state for state in states if os.access(state / NOTE, os.F_OK)]  # also where this user may not look
    return (found or states)[0].absolute()


def _untaken(file: File) -> None:
    path = Path(file.path)
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != file.text:
        message = f"{path} is there already, with another text: look at it, and move it away; nothing was installed"
        raise DeviceError(message)


def _undo(path: Path, digest: str, say: Say) -> None:
    if not path.is_file():
        say(f"{path} was gone already")
    elif _digest(path.read_text(encoding="utf-8", errors="replace")) != digest:
        say(f"left {path}: it was changed since it was written; delete it yourself")
    else:
        _remove(path)
        say(f"removed {path}")


def _clear(folder: Path, ours: set[Path], say: Say) -> None:
    """Remove a folder with what the manager of services put there; one in which a changed file was left is left too."""
    if not folder.is_dir() or any(path.exists() for path in ours if folder in path.parents):
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        message = f"cannot remove {folder}: {_why(error)}"
        raise DeviceError(message) from None
    say(f"removed {folder}")


def _write(file: File, back: str) -> None:
    path = Path(file.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(file.mode)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; {back}"
        raise DeviceError(message) from None


def _link(path: Path, target: str, back: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    except OSError as error:
        message = f"cannot link {path} to {target}: {error.strerror}; {back}"
        raise DeviceError(message) from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot remove {path}: {_why(error)}"
        raise DeviceError(message) from None


def _why(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return f"{error.strerror}; make it writable, then run this again"
    return f"{error.strerror}; run this as the user who installed it"


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
    except OSError as error:
        message = f"{path} cannot be read: {_why(error)}"
        raise DeviceError(message) from None
    except msgspec.MsgspecError as error:
        message = f"{path} cannot be read: {error}; remove the service's files by hand"
        raise DeviceError(message) from None


def _run(command: Command) -> str:
    """Run it, again and again while it fails and has time; return why it failed at last, or nothing."""
    until = time.monotonic() + command.patience_s
    while (problem := _problem(command)) and time.monotonic() < until:
        time.sleep(AGAIN_S)
    return problem


def _problem(command: Command) -> str:
    try:
        ended = subprocess.run(command.argv, capture_output=True, text=True, check=False, timeout=COMMAND_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (ended.stderr.strip() or ended.stdout.strip()).partition("\n")[0]  # runit complains on its standard output
    return said or f"exit code {ended.returncode}" if ended.returncode else ""


def _ran(command: Command, problem: str) -> str:
    return f"ran {command}, without success: {problem}" if problem else f"ran {command}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
