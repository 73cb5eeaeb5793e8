from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mas_edge.bundle import bundled
from mas_edge.protocol.errors import ServerError

_ROOT = Path(__file__).parents[1]
_CONTENT = ["mas_edge", "device_runtime", "broker", "models", "tools"]
_SECRETS_AND_WEIGHTS = {".pem", ".key", ".npy", ".npz", ".safetensors", ".onnx", ".pte", ".tflite", ".db"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, unpacked, that is built from a copy of this tree with keys and weights lying about in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in _CONTENT:
        if (_ROOT / name).is_dir():
            shutil.copytree(_ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(_ROOT / name, source / name)
    for planted in ("broker/server.key", "broker/ca.pem", "mas_edge/zoo/encoder.safetensors", "mas_edge/state.db"):
        (source / planted).write_bytes(b"planted")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def test_the_wheel_holds_two_importable_packages_and_nothing_else(wheel: Path) -> None:
    top = {path.name for path in wheel.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"mas_edge", "device_runtime"}
    assert len(top) == 3


def test_the_wheel_holds_no_key_and_no_weights(wheel: Path) -> None:
    assert [path for path in wheel.rglob("*") if path.suffix in _SECRETS_AND_WEIGHTS] == []


def test_the_wheel_holds_the_page_that_reports_are_made_from(wheel: Path) -> None:
    assert (wheel / "mas_edge" / "reporting" / "report.html.jinja").is_file()


@pytest.mark.parametrize("template", ["mosquitto.conf.template", "iotcore.toml.template"])
def test_an_installed_wheel_finds_what_it_configures_brokers_with(wheel: Path, template: str, tmp_path: Path) -> None:
    script = f"from mas_edge.bundle import bundled; print(bundled('broker', {template!r}))"
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel)},
    )
    assert Path(found.stdout.strip()) == wheel / "mas_edge" / "_bundle" / "broker" / template


def test_a_checkout_finds_the_same_content_beside_the_packages() -> None:
    assert bundled("broker", "mosquitto.conf.template") == _ROOT / "broker" / "mosquitto.conf.template"


def test_content_that_is_missing_is_named() -> None:
    with pytest.raises(ServerError, match=r"broker/none\.template is missing"):
        bundled("broker", "none.template")
