"""The few public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

import mas_edge
from mas_edge import Affinity, Card, Data, Federation, Job, Network, Optimizer, Task, load_job
from mas_edge.bundle import bundled


def test_public_names_are_sorted_without_regard_to_case() -> None:
    assert sorted(mas_edge.__all__, key=str.casefold) == mas_edge.__all__


@pytest.mark.parametrize("name", mas_edge.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mas_edge, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mas_edge.no_such_name  # noqa: B018


def test_a_job_built_in_python_equals_the_one_from_the_file() -> None:
    built = Job(
        name="watch", fleet="watch", seed=0, engines=["torch", "onnxruntime", "executorch"],
        data=Data(input_shape=[6, 64]),
        network=Network(family="series", encoder_args={"width": 12}),
        federation=Federation(
            rounds=20, merge_rounds=8, groups=2, devices_per_round=5, over_selection=1.0, local_epochs=1,
            batch_size=32, min_devices=10, min_reports=3,
        ),
        optimizer=Optimizer(learning_rate=0.05, clip_norm=2.0), affinity=Affinity(kind="features", period=6),
        tasks=[
            Task(name="exercise", kind="class", classes=7), Task(name="side", kind="class", classes=2),
            Task(name="forecast", kind="value", shape=[3, 16]), Task(name="gravity", kind="direction", shape=[3]),
            Task(name="intensity", kind="value"), Task(name="rotation", kind="value", shape=[3]),
        ],
    )  # fmt: skip
    loaded = load_job(bundled("models", "watch.toml"))
    assert loaded.card != Card()  # what the card says is for people, and left out here
    assert msgspec.to_builtins(built) == msgspec.to_builtins(msgspec.structs.replace(loaded, card=Card()))


def imported_by(statement: str) -> set[str]:
    """The top-level modules in memory after ``statement`` in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "onnx", "onnxruntime", "matplotlib", "rich", "sqlite3", "iotcore", "scipy", "pandas"}


@pytest.mark.parametrize(
    "statement",
    ["import mas_edge", "import mas_edge.protocol.messages", "import device_runtime.runtime, device_runtime.cli.run"],
)
def test_a_device_pays_for_nothing_heavy(statement: str) -> None:
    assert not imported_by(statement) & HEAVY


def test_the_device_imports_no_other_room_of_mas_edge() -> None:
    code = (
        "import sys, device_runtime.runtime, device_runtime.cli.run, device_runtime.cli.check;"
        "print(' '.join(name for name in sys.modules if name.startswith('mas_edge.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name.startswith("mas_edge.protocol") for name in done.stdout.split())


def test_splitting_and_reading_a_job_need_no_torch() -> None:
    assert not imported_by("from mas_edge import best_split, load_job, Job") & {"torch", "onnxruntime"}
