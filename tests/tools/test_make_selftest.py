from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_runtime.engines.selftest import ANSWER, DATA
from mas_edge.protocol import program as program_format
from mas_edge.protocol.weights import unpack
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tool makes now."""
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, str(ROOT / "tools" / "make_selftest.py"), "--out", str(folder)]
    subprocess.run([*command, "--engine", "torch", "onnxruntime"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_the_program_that_ships_is_the_one_that_is_made(made: Path, engine: str) -> None:
    shipped, again = ((folder / f"{engine}.program").read_bytes() for folder in (DATA, made))
    assert program_format.load(shipped) == program_format.load(again)


def test_the_answer_that_ships_is_that_of_eager(made: Path) -> None:
    shipped, again = (unpack((folder / ANSWER).read_bytes()) for folder in (DATA, made))
    assert shipped.keys() == again.keys()
    for name, array in shipped.items():
        np.testing.assert_allclose(array, again[name], rtol=1e-6, atol=1e-7)


def test_what_ships_is_small() -> None:
    assert max(path.stat().st_size for path in DATA.iterdir()) < 64_000
