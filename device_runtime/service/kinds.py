"""The files and commands of each manager of services. Pure: a host and the agent's command in, an installation out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_runtime.service.access import owner_of
from device_runtime.service.host import Host, Manager
from device_runtime.service.installation import Command, File, Installation
from mas_edge.protocol.errors import DeviceError

# The agent says that it lives at every turn of its loop, twice a second; on a Pi under load a turn takes seconds.
WATCHDOG_S = 120
# After these exit codes a new start would end in the same way: usage, data folder.
HOPELESS = "2 4"
NICE = 10  # the owner's own programs go first
# runit looks for new services every 5 s; on a phone that is busy it takes longer.
RUNIT_S = 20.0
LEAVE_S = 20  # how long an agent may take to say goodbye


@dataclass(frozen=True)
class Agent:
    """The agent to run: its name, its whole command line, and the folders it needs."""

    name: str
    argv: tuple[str, ...]
    data: Path
    state: Path
    log: Path | None = None  # a file that it logs into

    @property
    def service(self) -> str:
        """The name of the service; one device may run agents of several fleets."""
        return f"mas-edge-{self.name}"


def plan(agent: Agent, host: Host) -> Installation:
    """Work out what installing the agent on this host means.

    Raises:
        DeviceError: a path cannot stand in the manager's files.
    """
    for text in (*agent.argv, str(agent.data), str(agent.state), str(agent.log or "")):
        if any(character in text for character in "\n\r\0"):
            message = f"{text!r} cannot stand in the file of a service: expected text of one line"
            raise DeviceError(message)
    own = host.state / agent.name
    undo = f"{_UNDO} --name {agent.name}" + ("" if agent.state == own else f" --state {shlex.quote(str(agent.state))}")
    return msgspec.structs.replace(_KINDS[host.manager](agent, host), undo=undo)


def _systemd(agent: Agent, host: Host) -> Installation:
    """A unit of the system, run as the owner of the data folder."""
    unit = host.root / "etc/systemd/system" / f"{agent.service}.service"
    text = _unit(agent, _who(agent.data), "multi-user.target")
    return _enabled(File(str(unit), text), ["systemctl"], agent.service)


def _systemd_user(agent: Agent, host: Host) -> Installation:
    """A unit of one user, who stays logged in as far as systemd is concerned."""
    unit = host.home / ".config/systemd/user" / f"{agent.service}.service"
    found = _enabled(File(str(unit), _unit(agent, "", "default.target")), ["systemctl", "--user"], agent.service)
    return msgspec.structs.replace(
        found, manager="systemd-user", start=[*found.start, Command(["loginctl", "enable-linger"], needed=False)],
        hints=["if it stops when you log out: sudo loginctl enable-linger $USER", *found.hints],
        kept=["that your services run while you are logged out; if none needs it: loginctl disable-linger"],
    )  # fmt: skip


def _enabled(unit: File, systemctl: list[str], service: str) -> Installation:
    reload = [*systemctl, "daemon-reload"]
    user = "--user " if "--user" in systemctl else ""
    return Installation(
        "systemd", [unit], [Command(reload), Command([*systemctl, "enable", "--now", f"{service}.service"])],
        [Command([*systemctl, "disable", "--now", f"{service}.service"], needed=False)],
        hints=[f"its log: journalctl {user}-u {service}"], after=[Command(reload, needed=False)],
    )  # fmt: skip


def _who(data: Path) -> str:
    """The line that says as whom the agent runs."""
    owner = owner_of(data)
    return "DynamicUser=yes" if owner is None else f"User={owner}"


def _unit(agent: Agent, who: str, target: str) -> str:
    # A unit of a user cannot be given another user, nor most of the walls.
    writes = " ".join(_quoted(f"-{path}") for path in (agent.state, agent.log.parent if agent.log else None) if path)
    walls = _WALLS.format(writes=writes, name=agent.name, who=who) if who else ""
    return f"""\
# Written by mas-edge-device install; removed by mas-edge-device uninstall --name {agent.name}
[Unit]
Description=mas-edge device {agent.name}
Wants=network-online.target
After=network-online.target time-sync.target
# A broker may be away for days: never stop trying.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={" ".join(_quoted(word) for word in agent.argv)}
Restart=always
RestartSec=5
RestartPreventExitStatus={HOPELESS}
WatchdogSec={WATCHDOG_S}
# Ctrl-C's signal: it leaves the fleet politely.
KillSignal=SIGINT
SuccessExitStatus=130
Nice={NICE}
CPUWeight=20
IOSchedulingClass=idle
OOMPolicy=stop
{walls}
[Install]
WantedBy={target}
"""


# Not here: MemoryDenyWriteExecute and PrivateDevices, because engines write machine code and use the GPU.
_WALLS = """
{who}
StateDirectory=mas-edge/{name}
ReadWritePaths={writes}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
"""


def _quoted(word: str | Path) -> str:
    """Quote a word of a unit file: systemd expands % and $, and splits at blanks."""
    text = str(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(character in text for character in " \t;'\"\\") else text


def _termux(agent: Agent, host: Host) -> Installation:
    """A service of runit, and a script that Termux:Boot runs."""
    shell, directory = host.prefix / "bin/sh", host.prefix / "var/service" / agent.service
    run = f"#!{shell}\nexec 2>&1\nexec nice -n {NICE} {shlex.join(agent.argv)}\n"
    # Without the wake lock Android lets the processor sleep in the middle of a round.
    boot = f"#!{shell}\ntermux-wake-lock\n. {host.prefix}/etc/profile\n"
    # What termux-services sets in a shell; one that was opened before it was installed does not have it.
    services = ["env", f"SVDIR={host.prefix}/var/service"]
    log = f"{host.prefix}/var/log/sv/{agent.service}"
    return Installation(
        "termux",
        [
            File(str(directory / "run"), run, 0o755),
            File(str(host.home / ".termux/boot" / agent.service), boot, 0o755),
        ],
        [Command([*services, f"{host.prefix}/bin/sv-enable", agent.service], patience_s=RUNIT_S, advice=_REOPEN)],
        [
            Command([*services, f"{host.prefix}/bin/sv-disable", agent.service], needed=False),
            Command([*services, f"{host.prefix}/bin/sv", "-w", str(LEAVE_S), "stop", agent.service], needed=False),
        ],
        links=[(str(directory / "log/run"), str(host.prefix / "share/termux-services/svlogger"))],
        hints=[
            "install the app Termux:Boot from where Termux came from, and open it once: then it starts with the phone",
            "Android settings, apps, Termux, battery: unrestricted; else it is stopped in the background",
            f"its log: {log}/current",
        ],
        folders=[str(directory)], kept=[f"its log: rm -r {log}"],
    )  # fmt: skip


_UNDO = "mas-edge-device uninstall"
_REOPEN = "if termux-services is new here, type exit in every session of Termux, open it again, and install again"
_KINDS: dict[Manager, Callable[[Agent, Host], Installation]] = {
    "systemd": _systemd,
    "systemd-user": _systemd_user,
    "termux": _termux,
}
