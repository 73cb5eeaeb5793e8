"""What mosquitto is told so that only a fleet's members get in, each to its own topics."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from mas_edge.bundle import bundled

if TYPE_CHECKING:
    from mas_edge.fleet.folder import Fleet

# Two a device, and as many again that are being replaced: a fleet of 2500 devices. mosquitto takes 1 KB for an idle
# client, its TLS some 40 KB.
MAX_CONNECTIONS = 10_000
# A client that asks to be believed alive for longer than this after its last word is told this (MQTT 5).
MAX_KEEPALIVE_S = 300


def access_lines(fleet: Fleet, folder: Path, home_assistant: str = "") -> list[str]:
    """Lines for the listener in mosquitto.conf; writes the access list that they name into ``folder``.

    ``home_assistant`` is the prefix below which devices may show themselves to Home Assistant; "" = they may not.
    """
    rules = folder / "acl"
    names = {"fleet": fleet.settings.name, "home": home_assistant}
    templates = ["mosquitto.acl.template", *(["mosquitto-home-assistant.acl.template"] if home_assistant else [])]
    texts = [Template(bundled("broker", name).read_text()).substitute(names) for name in templates]
    rules.touch(mode=0o600)  # mosquitto 2.1 warns of one that others may read
    rules.write_text("".join(texts))
    return [
        f"max_connections {MAX_CONNECTIONS}",
        f"cafile {fleet.file('ca.pem')}",
        f"certfile {fleet.file('broker.pem')}",
        f"keyfile {fleet.file('broker.pem')}",
        f"crlfile {fleet.file('crl.pem')}",
        "tls_version tlsv1.2",  # or later
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {rules}",
        f"max_keepalive {MAX_KEEPALIVE_S}",
    ]
