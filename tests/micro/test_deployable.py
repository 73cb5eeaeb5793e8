"""Where no int8 model can be made for microboards, one line says what to install or to write."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mas_edge.export.micro.deployable import VARIABLE, make_deployable
from mas_edge.job import parse_job
from mas_edge.protocol.errors import EdgeError, JobError, ServerError
from tests.e2e.fleet import TASKS, job_text, write_folder

CASES: dict[str, tuple[str, str, type[EdgeError], str]] = {
    "no samples": ("python-of-litert", "", JobError, "name a device folder in data.calibration of the job"),
    "samples that are not there": ("python-of-litert", "/nowhere", JobError, "data.calibration: data folder /nowhere"),
    "a python that is not there": (
        "/no/python",
        "data",
        ServerError,
        "/no/python of MAS_EDGE_LITERT_PYTHON does not st",
    ),
    "a program that is none": ("/bin/true", "data", ServerError, "made no int8 model; is mas-edge installed there"),
    "no converter": (
        "",
        "data",
        ServerError,
        "pip install 'mas-edge[litert-export]' in an environment of its own, and s",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_in_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, folder, error, text = CASES[case]
    if case == "no converter" and find_spec("litert_torch"):
        pytest.skip("the converter is here")
    monkeypatch.setenv(VARIABLE, python)
    where = str(write_folder(tmp_path / "data")) if folder == "data" else folder
    job = parse_job(job_text().replace("[3, 16]", f'[3, 16]\ncalibration = "{where}"'))
    with pytest.raises(error) as raised:
        make_deployable(job, TASKS, np.zeros(1, np.float32))
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
