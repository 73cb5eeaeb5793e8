from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.engines import available
from device_runtime.engines.selftest import ANSWER, DATA
from mas_edge.export.targets import TARGETS
from mas_edge.protocol import program as program_format
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import unpack
from tests.docs.pages import ROOT

_PACKAGES = {target.engine: target.packages for target in TARGETS.values() if target.emitter}
# The engines whose programs can be made and checked in this environment.
MADE_HERE = [name for name in available() if all(map(find_spec, _PACKAGES.get(name, ())))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tool makes now."""
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, str(ROOT / "tools" / "make_selftest.py"), "--out", str(folder)]
    subprocess.run([*command, "--engine", *MADE_HERE], check=True, capture_output=True)
    return folder


def test_an_engine_that_cannot_be_emitted_here_is_left_as_it_is_and_said(tmp_path: Path) -> None:
    if "litert" in MADE_HERE:
        pytest.skip("all of them can be")
    command = [sys.executable, str(ROOT / "tools" / "make_selftest.py"), "--out", str(tmp_path), "--engine", "litert"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stderr.startswith("litert: left as it is: ")
    assert [path.name for path in tmp_path.iterdir()] == [ANSWER]


@pytest.mark.parametrize("engine", MADE_HERE)
def test_the_program_that_ships_is_the_one_that_is_made(made: Path, engine: str) -> None:
    """If an emitter was changed on purpose: ``python tools/make_selftest.py``, each engine in its environment."""
    shipped, again = ((folder / f"{engine}.program").read_bytes() for folder in (DATA, made))
    assert computed_by(program_format.load(shipped)) == computed_by(program_format.load(again))


def computed_by(program: Program) -> tuple[Any, ...]:
    """All of a program that a result depends on."""
    calls = [(m.inputs, m.outputs, m.results, m.nodes, m.constants, m.graph) for m in program.methods.values()]
    return program.engine, program.layout, program.targets, list(program.methods), calls, program.file


def test_the_answer_that_ships_is_that_of_eager(made: Path) -> None:
    shipped, again = (unpack((folder / ANSWER).read_bytes()) for folder in (DATA, made))
    assert shipped.keys() == again.keys()
    for name, array in shipped.items():
        np.testing.assert_allclose(array, again[name], rtol=1e-6, atol=1e-7)


def test_what_ships_is_small() -> None:
    assert max(path.stat().st_size for path in DATA.iterdir()) < 64_000
