"""What mends what: a command for each thing that a device can lack, on each kind of board.

A board's own tools differ: systemd sets the clock of a Pi, Android that of a phone, also for a distribution that runs
inside of it. The table is whole: everything that ``doctor`` can miss has an answer on every kind.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from device_runtime.host import Host, board_model, on_termux

Kind = Literal["jetson", "raspberry-pi", "raspberry-pi-32", "termux", "proot", "linux"]
Lack = Literal[
    "clock", "network-time", "membership", "secure", "broker", "service", "temperature", "battery", "network", "idle",
    "memory", "disk", "power", "doubtful-power", "swap",
]  # fmt: skip
# Android's own: they are there in Termux, and in a distribution inside it.
_ANDROID = "/system/build.prop", "/data/data/com.termux"

_SET_CLOCK_PHONE = "Android settings, system, date and time: set automatically"
_TERMUX_API = "pkg install termux-api, and install the app Termux:API from where Termux came from; open it once"
_OUTSIDE = f"in Termux, outside of this distribution: {_TERMUX_API}"
_SWAP = (
    "stop other programs, or add swap: sudo fallocate -l 1G /swapfile && sudo chmod 600 /swapfile && sudo mkswap "
    "/swapfile && sudo swapon /swapfile"
)
_CALIBRATE = "for better joules: a plug meter, then [power] watts_per_core = WATTS in the file of --policy"
_LEAVE_OUT = "leave the rule out of the policy file"
_JOIN = "{me} join{state} - < token.txt (the token: mas-edge fleet invite DIR NAME, on the server)"
_RUN = "{me} run{state} --name {name} --data DIR"
_INSTALL = "{me} install --service{state} --name {name} --data DIR"

# Where a kind has no answer of its own, that of "linux" holds.
_TABLE: dict[Lack, dict[Kind, str]] = {
    "clock": {
        "linux": "sudo timedatectl set-ntp true; without systemd: sudo date -s 'YYYY-MM-DD HH:MM'",
        "jetson": "sudo timedatectl set-ntp true",
        "raspberry-pi": "sudo timedatectl set-ntp true",
        "raspberry-pi-32": "sudo timedatectl set-ntp true",
        "termux": _SET_CLOCK_PHONE,
        "proot": _SET_CLOCK_PHONE,
    },
    "network-time": {
        "linux": "sudo timedatectl set-ntp true, and let UDP port 123 out",
        "termux": _SET_CLOCK_PHONE,
        "proot": _SET_CLOCK_PHONE,
    },
    "membership": {"linux": _JOIN},
    "secure": {
        "linux": "pip install 'mas-edge[secure]'",
        "termux": "pkg install python-cryptography, then pip install 'mas-edge[secure]'",
    },
    "broker": {"linux": "{me} doctor --broker mqtt://HOST:1883"},
    "service": {
        "linux": f"{_INSTALL}; without systemd, whatever starts programs: {_RUN}",
        "jetson": _INSTALL,
        "raspberry-pi": _INSTALL,
        "raspberry-pi-32": _INSTALL,
        "termux": f"pkg install termux-services, open Termux anew, then {_INSTALL}",
        "proot": "in Termux, outside of this distribution: pkg install termux-services, and a script for it, as "
        f"docs/devices/termux-proot.md has it: it runs `proot-distro login debian -- {_RUN}`",
    },
    "temperature": {
        "linux": "sudo modprobe coretemp (Intel), k10temp (AMD) or the board's own driver; a virtual machine has none: "
        + _LEAVE_OUT,
        "jetson": "in a container: docker run -v /sys:/sys:ro; else sudo reboot: its kernel has zones on every Jetson",
        "raspberry-pi": "sudo apt full-upgrade, then sudo reboot: the firmware has a sensor on every Pi",
        "raspberry-pi-32": "sudo apt full-upgrade, then sudo reboot: the firmware has a sensor on every Pi",
        "termux": _TERMUX_API,
        "proot": _OUTSIDE,
    },
    "battery": {
        "linux": f"ls /sys/class/power_supply/*/ shows what its driver says; if that is wrong, {_LEAVE_OUT}",
        "termux": _TERMUX_API,
        "proot": _OUTSIDE,
    },
    "network": {
        "linux": "sudo nmtui, or ip route to see what there is; it has to name a way out (default)",
        "termux": _TERMUX_API,
        "proot": _OUTSIDE,
    },
    "idle": {
        "linux": "mount -t proc proc /proc, where it is a container; or leave the rule idle out of the policy file",
        "termux": "Android tells no app what others do: leave the rule idle out of the policy file",
        "proot": "Android tells no app what others do: leave the rule idle out of the policy file",
    },
    "memory": {"linux": "mount -t proc proc /proc, where it is a container"},
    "disk": {"linux": "mkdir -p DIR, with the directory of --state"},
    "power": {
        "linux": _CALIBRATE,
        "jetson": "sudo modprobe ina3221 (Thor: ina238), outside of a container; " + _CALIBRATE,
        "termux": _TERMUX_API,
        "proot": _OUTSIDE,
    },
    "doubtful-power": {"linux": _CALIBRATE},
    "swap": {"linux": _SWAP, "termux": "close other apps", "proot": "close other apps"},
}
# What root does on boards whose agent is a service of the system.
_BY_ROOT = ("membership", "service")
_FOR_32_BITS = ("litert",)
_JETSON_TORCH = "pip install --index-url INDEX torch, with the INDEX of your JetPack (docs/devices/jetson.md)"
_SYSTEM = ("jetson", "raspberry-pi", "raspberry-pi-32")


def kind_of(
    host: Host, environment: Mapping[str, str] = os.environ, *, wide: bool = sys.maxsize > 2**32
) -> Kind:  # fmt: skip
    """What this is. ``wide``: whether programs are 64-bit ones; a 32-bit system may run on a 64-bit kernel."""
    if on_termux(environment):
        return "termux"
    if any(host.has(path) for path in _ANDROID):
        return "proot"
    model = board_model(host)
    if "Jetson" in model or host.has("/etc/nv_tegra_release"):
        return "jetson"
    if model.startswith("Raspberry Pi"):
        return "raspberry-pi" if wide else "raspberry-pi-32"
    return "linux"


class Place(NamedTuple):
    """The kind of board, and which of its devices is meant; ``state``: its directory, if its owner has chosen one."""

    kind: Kind
    name: str = "NAME"
    state: Path | None = None

    def mend(self, lack: Lack) -> str:
        """The command that mends ``lack`` here, in one line."""
        table = _TABLE[lack]
        text = table.get(self.kind) or table["linux"]
        system = self.kind in _SYSTEM and lack in _BY_ROOT
        state = self.state
        if system and lack == "membership" and state is None:
            state = Path("/var/lib/mas-edge") / self.name  # where the service of the system looks for it
        me = f"{'sudo ' if system else ''}{command(whole=system or self.kind == 'proot')}"
        return in_this_python(text.format(me=me, name=self.name, state=f" --state {state}" if state else ""))


def for_engine(kind: Kind, name: str, advice: str) -> str:
    """What ``doctor`` says of an engine, made true for this board: what is published for it differs."""
    if advice and kind == "raspberry-pi-32" and name not in _FOR_32_BITS:
        return f"{name}: not published for 32-bit systems; rpi-imager writes a card with the 64-bit one"
    if advice and kind == "jetson" and name == "torch":
        advice += f"; for the graphics processor: {_JETSON_TORCH}"
    return in_this_python(advice)


def command(*, whole: bool = False) -> str:
    """How this program is called here; ``whole``: with its path, as sudo has another search path."""
    beside = Path(sys.executable).parent / "mas-edge-device"
    if not beside.exists():
        return f"{sys.executable} -m device_runtime"
    found = shutil.which("mas-edge-device")
    return "mas-edge-device" if not whole and found and Path(found) == beside else str(beside)


def in_this_python(text: str) -> str:
    """``text`` with the pip of this environment, where the shell would take another one, such as under sudo."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return text
    return text.replace("pip install", f"{sys.executable} -m pip install")
