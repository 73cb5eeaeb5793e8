"""What a service is installed on: which manager of services runs here, whose files are whose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mas_edge.protocol.errors import DeviceError

Manager = Literal["systemd", "systemd-user", "termux"]


@dataclass(frozen=True)
class Host:
    """Where a service would live; ``root`` stands before every path of the system (for images and tests)."""

    manager: Manager
    home: Path
    prefix: Path = Path("/")  # of Termux: /data/data/com.termux/files/usr
    root: Path = Path("/")
    states: Path | None = None  # of a user: where XDG_STATE_HOME points, if it is set

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Host:
        """Look at this machine.

        Raises:
            DeviceError: there is no manager of services that we know, or Termux lacks its package.
        """
        home = Path(environment.get("HOME") or Path.home())
        prefix = Path(environment.get("PREFIX", "/"))
        states = Path(environment["XDG_STATE_HOME"]) if environment.get("XDG_STATE_HOME") else None
        if "com.termux" in prefix.parts:
            if not (prefix / "bin" / "sv-enable").exists():
                message = "Termux has no services yet: pkg install termux-services, restart Termux, then try again"
                raise DeviceError(message)
            return cls("termux", home, prefix, root, states)
        if not (root / "run" / "systemd" / "system").is_dir():
            message = (
                "no manager of services is known here: expected systemd or Termux; have whatever starts programs "
                "on this system run `mas-edge-device run ...` at boot"
            )
            raise DeviceError(message)
        return cls("systemd" if os.geteuid() == 0 else "systemd-user", home, prefix, root, states)

    @property
    def state(self) -> Path:
        """Below it every device has its state directory."""
        if self.manager == "systemd":
            return self.root / "var/lib/mas-edge"
        return (self.states or self.home / ".local/state") / "mas-edge"
