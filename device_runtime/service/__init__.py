"""The agent as a service of the system it runs on: systemd (Jetson, Raspberry Pi), or runit under Termux (Android).

What is to be written and run is worked out first, without touching anything (``Installation``), so that it can be shown
and tested; ``install`` and ``uninstall`` then do exactly that, and say so.
"""

from device_runtime.service.access import check_access
from device_runtime.service.host import Host
from device_runtime.service.installation import Command, File, Installation, install, installed_at, uninstall
from device_runtime.service.kinds import Agent, plan

__all__ = [
    "Agent", "Command", "File", "Host", "Installation", "check_access", "install", "installed_at", "plan", "uninstall",
]  # fmt: skip
