"""A writer of TensorBoard's event files beside a run, from its begin to its end."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from mas_edge.orchestrator.child import spawn
from mas_edge.protocol.errors import ServerError

log = logging.getLogger(__name__)

ONCE = "once"  # as the writer's last argument: what is there, and no waiting
LOG = "writer.log"  # in the folder of the event files
PATIENCE_S = 20.0  # for the last rounds; the whole of a run of 1,000 rounds takes it a few seconds


@contextmanager
def event_files(state: Path, directory: Path | None) -> Iterator[None]:
    """Have the run in ``state`` written into ``directory`` while the block runs; None: nothing is written.

    A writer that fails is a warning in the log: no run ends for it.

    Raises:
        ServerError: tensorboardX is not installed, or ``directory`` cannot be written to.
    """
    if directory is None:
        yield
        return
    if find_spec("tensorboardX") is None:
        message = "--tensorboard needs tensorboardX: pip install 'mas-edge[server]'"
        raise ServerError(message)
    command = [sys.executable, "-m", "mas_edge.reporting.tensorboard", str(state), str(directory)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / LOG).open("wb") as said:
            writer = spawn(command, "tensorboard", said)
    except OSError as error:
        message = f"--tensorboard {directory}: cannot be written to: {error.strerror}; choose another folder"
        raise ServerError(message) from None
    try:
        yield
    finally:
        _end(writer, command, directory)


def _end(writer: subprocess.Popen[bytes], command: list[str], directory: Path) -> None:
    writer.terminate()
    try:
        code = writer.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        writer.kill()
        code = writer.wait()
    if writer.stdin is not None:
        writer.stdin.close()
    if code == -signal.SIGTERM:  # the run was over before the writer could listen to us
        code = subprocess.run([*command, ONCE], stderr=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - ours
    if code:
        last = (directory / LOG).read_text(errors="replace").strip().splitlines()[-1:]
        log.warning("the event files in %s are not whole: %s", directory, *(last or [f"exit code {code}"]))
