"""The pinned environment of a server fits pyproject.toml, and the bill of materials lists the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.docs.pages import ROOT

TOOLS = ROOT / "tools"


def _pinned() -> dict[str, str]:
    lines = [line for line in (TOOLS / "server.lock").read_text().splitlines() if not line.startswith("#")]
    pinned = [re.fullmatch(r"([a-z0-9-]+==\S+) --hash=sha256:([0-9a-f]{64})", line) for line in lines]
    return {found[1]: found[2] for found in pinned if found is not None} if all(pinned) else {}


def test_the_lock_gives_what_the_project_asks_for() -> None:
    command = [sys.executable, str(TOOLS / "lock_server.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{checked.stdout}make it anew: python tools/lock_server.py"
    assert len(_pinned()) > 20


def test_the_bill_of_materials_is_of_the_lock() -> None:
    bill = json.loads((TOOLS / "server.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = {f"{one['name']}=={one['version']}": one["hashes"][0]["content"] for one in bill["components"]}
    assert listed == _pinned()
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in bill["components"])
