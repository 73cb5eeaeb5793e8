"""What a clumsy owner writes into ``micro.json`` or copies onto a board: one line says what is wrong, and it ends."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import micro
from device_runtime.micro import settings as _settings
from tests.micro.board import command, environment, needs_micropython

settings: Any = _settings  # written for MicroPython, which has no types
GOOD = {
    "broker": "127.0.0.1", "port": 1, "fleet": "home", "name": "esp", "state": "flash", "input_shape": [6, 64],
    "data": "data", "tasks": {"way": {"kind": "class", "classes": 7}, "mean": {"kind": "value"}},
}  # fmt: skip
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no fleet": ({"fleet": None}, "lacks fleet"),
    "a name that is a number": ({"name": 7}, "lacks name"),
    "an empty broker": ({"broker": ""}, "lacks broker"),
    "a port in quotes": ({"port": "1883"}, "no whole number as port"),
    "an arena in words": ({"arena": "40K"}, "no whole number as arena"),
    "no shape": ({"input_shape": None}, "lacks input_shape"),
    "a shape of nothing": ({"input_shape": [6, 0]}, "lacks input_shape"),
    "no tasks, and samples": ({"tasks": None}, "lacks tasks"),
    "a list of tasks": ({"tasks": ["way"]}, "lacks tasks"),
    "a class of how many": ({"tasks": {"way": {"kind": "class"}}}, "a task way without a kind"),
    "a kind that boards have not": ({"tasks": {"way": {"kind": "dense_class"}}}, "a task way without a kind"),
    "a task that is a text": ({"tasks": {"way": "class"}}, "a task way without a kind"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_configuration_that_cannot_be_meant_is_told_by_its_key(what: str) -> None:
    change, told = WRONG[what]
    assert settings.complaint(GOOD) == ""
    assert told in settings.complaint({key: value for key, value in (GOOD | change).items() if value is not None})


def test_a_board_without_samples_needs_no_tasks() -> None:
    assert settings.complaint({key: GOOD[key] for key in ("broker", "fleet", "name", "state", "input_shape")}) == ""


@needs_micropython
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "micro.json cannot be read"),
        ('{"broker": "127.0.0.1",', "micro.json is no JSON"),
        ("[]", "micro.json is no object"),
        (json.dumps(GOOD | {"fleet": "ho me"}), "fleet 'ho me' is not a valid name"),
        (
            json.dumps(GOOD | {"data": "", "state": "/none/of/these"}),
            "that cannot be made",
        ),
    ],
    ids=["no file", "half a file", "a list", "a name with a space", "no folder"],
)
def test_a_board_that_cannot_begin_says_why_in_one_line(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "micro.json").write_text(text)
    board = subprocess.run(
        command("-m", "device_runtime.micro", "micro.json"), cwd=tmp_path, env=environment(), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert board.returncode == 7
    assert told in board.stdout
    assert len(board.stdout.splitlines()) == 1 + ("there is no data/x.npy" in board.stdout)
    assert board.stderr == ""


def write(folder: Path, **arrays: Any) -> None:
    good: dict[str, Any] = {
        "x": np.zeros((4, 6), np.float32),
        "split": np.zeros(4, np.uint8),
        "way": np.zeros(4, np.int64),
    }
    for name, array in (good | arrays).items():
        path = folder / f"{name}.npy"
        if isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "no file of this kind": ({"way": b"exercise,1,2,3\n" * 9}, "way.npy cannot be read"),
    "an empty file": ({"x": b""}, "x.npy cannot be read"),
    "a single number": ({"split": np.uint8(1)}, "split.npy cannot be read"),
    "fewer labels than samples": ({"way": np.zeros(3, np.int64)}, "way.npy does not hold 4 labels of kind class"),
    "classes with a point": ({"way": np.zeros(4)}, "way.npy does not hold 4 labels of kind class"),
    "columns before rows": ({"x": np.zeros((6, 4), np.float32).T}, "x.npy is in Fortran order"),
    "samples with 64 bits": ({"x": np.zeros((4, 6))}, "does not hold a float32 sample"),
}


READ = """
from device_runtime.micro import data
try: print(data.Folder(".", {"way": {"kind": "class", "classes": 7}}, [6]).count("way", 0))
except data.Refused as error: print(error)
"""


def read(folder: Path) -> str:
    """What a board says of a data folder."""
    board = subprocess.run(
        command("-c", READ), cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    return board.stdout.strip()


@needs_micropython
@pytest.mark.parametrize("what", FILES)
def test_a_data_folder_that_does_not_fit_is_refused_by_its_file(tmp_path: Path, what: str) -> None:
    arrays, told = FILES[what]
    write(tmp_path)
    assert read(tmp_path) == "4"
    write(tmp_path, **arrays)
    assert told in read(tmp_path)


def test_the_map_of_the_folder_names_every_module() -> None:
    folder = Path(micro.__file__).parent
    words = set(re.findall(r"\w+", micro.__doc__ or ""))
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"} <= words
