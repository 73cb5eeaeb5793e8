"""The pinned environment of a server fits pyproject.toml, and the bill of materials lists the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("starlette==0.1 --hash=sha256:" + "0" * 64, "starlette is pinned, and nobody needs it"),
        ("-msgspec", "msgspec is not pinned, "),
        ("-cffi", "cffi is not pinned, cryptography needs it"),
        ("numpy==0.1 --hash=sha256:" + "0" * 64, "numpy is pinned at 0.1, "),
    ],
)
def test_a_lock_that_lacks_something_or_holds_too_much_is_told(tmp_path: Path, line: str, says: str) -> None:
    name = line.removeprefix("-").partition("==")[0]
    kept = [each for each in (TOOLS / "server.lock").read_text().splitlines() if not each.startswith(f"{name}==")]
    (tmp_path / "lock").write_text("\n".join([*kept, *([] if line.startswith("-") else [line])]) + "\n")
    command = [sys.executable, str(TOOLS / "lock_server.py"), "--check", "--lock", str(tmp_path / "lock")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert any(problem.startswith(says) for problem in checked.stdout.splitlines()), checked.stdout


def test_the_bill_of_materials_is_of_the_lock() -> None:
    bill = json.loads((TOOLS / "server.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = {f"{one['name']}=={one['version']}": one["hashes"][0]["content"] for one in bill["components"]}
    assert listed == _pinned()
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in bill["components"])
