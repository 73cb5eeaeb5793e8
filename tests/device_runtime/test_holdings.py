"""What a data folder holds is counted in another process, and the agent needs no NumPy until it trains."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_runtime.data import open_data
from device_runtime.holdings import look
from mas_edge.protocol.errors import DataError
from tests.device_runtime.folders import arrays, write
from tests.device_runtime.test_data import with_reader

# What a real agent does until it has said its birth; then says which of these modules it holds.
AGENT = """
import json, sys
from pathlib import Path
import device_runtime.cli
device_runtime.cli.build_parser()
from device_runtime.holdings import look
from device_runtime.runtime import Runtime, Settings
folder, state = map(Path, sys.argv[1:])
runtime = Runtime(Settings("pi-1", "fleet", "mqtt://127.0.0.1:9", state, "torch"), look(folder))
birth = runtime.agent.on_connected(0.0)[0].message
print(json.dumps([birth.tasks["gait"].train, [name for name in ("numpy", "torch") if name in sys.modules]]))
"""


def test_a_folder_that_was_looked_at_holds_what_the_open_one_does(tmp_path: Path) -> None:
    folder = write(tmp_path)
    found, data = look(folder), open_data(folder)
    assert (found.input_shape, found.counts()) == (data.input_shape, data.counts())
    assert found.opened() is found.opened()
    assert found.opened().counts() == data.counts()
    assert data.opened() is data


def test_what_is_wrong_with_a_folder_is_said_in_the_same_words(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "gait.npy").unlink()
    with pytest.raises(DataError) as here:
        open_data(folder)
    with pytest.raises(DataError) as there:
        look(folder)
    assert str(there.value) == str(here.value)


def test_a_folder_that_goes_after_it_was_looked_at_is_missed_when_it_is_needed(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    found = look(folder)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="there is nothing of that name"):
        found.opened()


def talks(_: Path) -> Any:
    print('{"counts": {"gait": {"train": 9, "test": 9}}')
    print("a library that says something")
    return arrays()


def dies_elsewhere(_: Path) -> Any:
    if Path(sys.argv[0]).stem == "holdings":
        os.kill(os.getpid(), signal.SIGKILL)
    return arrays()


@pytest.mark.parametrize("reader", ["talks", "dies_elsewhere"])
def test_a_reader_that_prints_or_dies_in_the_other_process_changes_nothing(reader: str, tmp_path: Path) -> None:
    files = write(tmp_path / "files")
    assert look(with_reader(tmp_path, f"{__name__}:{reader}")).counts() == open_data(files).counts()


def test_an_agent_holds_no_numpy_before_it_trains(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    command = [sys.executable, "-c", AGENT, str(folder), str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [open_data(folder).counts()["gait"].train, []]
