"""Files of another user: who runs a command as somebody else reads one line, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mas_edge.protocol.errors import DeviceError, ServerError

NOBODY = 65534
# Modules are imported before: nobody may not even read them where the checkout is private.
AS_SOMEBODY_ELSE = f"""
import importlib, os, sys
package, *words = sys.argv[1:]
command = importlib.import_module(package)
command.build_parser()
import mas_edge.fleet.folder, mas_edge.fleet.signing.ceremony, mas_edge.orchestrator.view, device_runtime.identity
if os.getuid() == 0:
    os.seteuid({NOBODY})
sys.exit(command.main(words))
"""


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("mas_edge.cli", ["fleet", "list", "{closed}/fleet"]),
        ("mas_edge.cli", ["fleet", "init", "{closed}/fleet", "--host", "192.0.2.7"]),
        ("mas_edge.cli", ["sign", "status", "{closed}/signing"]),
        ("mas_edge.cli", ["sign", "init", "{closed}/signing"]),
        ("mas_edge.cli", ["rollout", "{closed}/run"]),
        ("mas_edge.cli", ["rollout", "{closed}/run", "pause"]),
        ("device_runtime.cli", ["run", "--name", "pi", "--state", "{closed}/pi", "--data", "{closed}/data"]),
    ],
)
def test_what_another_user_owns_is_told_in_one_line(tmp_path: Path, package: str, words: list[str]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    given = [word.format(closed=closed) for word in words]
    try:
        ended = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY_ELSE, package, *given], capture_output=True, text=True, check=False
        )
    finally:
        closed.chmod(0o700)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(closed) in line
    assert ended.returncode == (ServerError if package == "mas_edge.cli" else DeviceError).exit_code
