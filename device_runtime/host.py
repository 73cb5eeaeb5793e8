"""The machine's own words: its files under /sys and /proc, and what its commands print.

One value says where to look, so that a recorded tree of a board can stand in for the board.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mas_edge.protocol.errors import DeviceError

# A file in /sys holds one number or one word; more than this is no such file.
MAX_TEXT = 64 * 1024
# ``vcgencmd`` answers in milliseconds, ``termux-battery-status`` in seconds; what takes longer hangs.
COMMAND_LIMIT_S = 10.0


class SensorError(DeviceError):
    """A sensor is not there, cannot be read, or says what cannot be; never ends a training."""


@dataclass(frozen=True)
class Host:
    """``root`` stands for /; commands are looked for in ``search_path``, or where the shell does."""

    root: Path = Path("/")
    search_path: str | None = None

    def text(self, path: str) -> str:
        """What the file ``path`` holds, without white space around it.

        Raises:
            SensorError: it is not there, not to be read, or no text.
        """
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                data = file.read(MAX_TEXT)
            return data.decode("utf-8").strip("\0\n\t ")
        except PermissionError:
            message = f"{path} may not be read by this user"
            raise SensorError(message) from None
        except OSError as error:  # also EIO, ENODEV, EAGAIN: what drivers answer when the chip does not
            message = f"{path} cannot be read: {error.strerror or type(error).__name__}"
            raise SensorError(message) from None
        except UnicodeDecodeError:
            message = f"{path} holds no text"
            raise SensorError(message) from None

    def number(self, path: str) -> int:
        """The whole number in the file ``path``.

        Raises:
            SensorError: as ``text``, or it is no whole number.
        """
        text = self.text(path)
        try:
            return int(text)
        except ValueError:
            message = f"{path} holds {text[:40]!r}; expected a whole number"
            raise SensorError(message) from None

    def has(self, path: str) -> bool:
        """Whether the file is there."""
        return os.access(self.root / path.lstrip("/"), os.F_OK)

    def glob(self, pattern: str) -> Iterator[str]:
        """The paths, as on the machine itself, that match ``pattern``; in order."""
        try:
            found = sorted(self.root.glob(pattern.lstrip("/")))
        except OSError:  # a folder that may not be listed, as on Android
            return
        for path in found:
            yield "/" + str(path.relative_to(self.root))

    def command(self, name: str) -> str:
        """Where the command ``name`` is; empty if it is not installed."""
        return shutil.which(name, path=self.search_path) or ""

    def run(self, command: Sequence[str], limit_s: float = COMMAND_LIMIT_S) -> str:
        """What a command prints.

        Raises:
            SensorError: it is not installed, failed, or took longer than ``limit_s`` seconds.
        """
        where = self.command(command[0])
        if not where:
            message = f"the command {command[0]} is not installed"
            raise SensorError(message)
        try:
            done = subprocess.run(  # noqa: S603 - a fixed name and fixed arguments
                [where, *command[1:]], capture_output=True, text=True, timeout=limit_s, check=False,
                stdin=subprocess.DEVNULL, errors="replace",
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            why = f"no answer in {limit_s:g} s" if isinstance(error, subprocess.TimeoutExpired) else error.strerror
            message = f"{' '.join(command)}: {why}"
            raise SensorError(message) from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().partition("\n")[0][:200]
            message = f"{' '.join(command)} ended with {done.returncode}: {said or 'it said nothing'}"
            raise SensorError(message)
        return done.stdout


def board_model(host: Host) -> str:
    """Such as "Raspberry Pi Zero 2 W Rev 1.0"; empty if the board does not say."""
    try:
        return host.text("/proc/device-tree/model")
    except SensorError:
        return ""


def on_termux(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is Termux itself (Android); not a distribution inside of it."""
    return "com.termux" in environment.get("PREFIX", "")
