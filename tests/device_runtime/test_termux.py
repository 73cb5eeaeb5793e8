"""The base install on Termux: pure Python, what Termux builds itself, and what a phone compiles from C alone.

Wheels for a platform do not run there (Android's C library is not theirs), so pip's own resolver is held to what does:
wheels for any platform, and stand-ins for the packages of ``pkg install``. A dependency that fits neither is found here
and not on a phone. MAS_EDGE_REQUIRE_REGISTRY=1 fails where the package index cannot be reached, instead of skipping.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = ROOT / "docs" / "devices" / "termux.md"
PYTHON = "3.14"
# What Termux itself builds, with the versions of its repository on 22 August 2026.
BUILT_BY_TERMUX = {
    "numpy": "2.4.4", "cryptography": "50.0.0", "onnxruntime": "1.29.0", "torch": "2.11.0", "scipy": "1.18.1",
    "psutil": "7.2.2",
}  # fmt: skip
COMPILED_THERE = "msgspec"  # from its sdist, by Termux's clang
# Beside these a build needs a compiler that a phone may not have, or an hour.
OTHER_LANGUAGES = ("Cargo.toml", "CMakeLists.txt", "meson.build", ".cpp", ".cc", ".cxx", ".pyx", ".rs", ".f90", ".go")
UNREACHABLE = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError")


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Run pip; skips where there is no package index to ask, unless that is forbidden."""
    command = [sys.executable, "-m", "pip", words[0], "--retries", "1", "--disable-pip-version-check", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and UNREACHABLE.search(done.stderr) and not os.environ.get("MAS_EDGE_REQUIRE_REGISTRY"):
        pytest.skip("no package index can be reached from here")
    return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources that a phone compiles."""
    folder = tmp_path_factory.mktemp("sdist")
    (wanted,) = (text for text in PROJECT["dependencies"] if Requirement(text).name == COMPILED_THERE)
    done = pip("download", "--no-deps", "--no-binary", COMPILED_THERE, "--dest", str(folder), wanted)
    assert done.returncode == 0, done.stderr
    (found,) = folder.iterdir()
    return found


def build_requirements(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        (name,) = (name for name in tar.getnames() if name.count("/") == 1 and name.endswith("/pyproject.toml"))
        member = tar.extractfile(name)
        assert member is not None
        requires: list[str] = tomllib.loads(member.read().decode())["build-system"]["requires"]
    return requires


def stand_in(folder: Path, name: str, version: str) -> None:
    """A wheel with a name and a version, and nothing in it: what ``pkg install`` brings is there already."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def resolve(requirements: Sequence[str], folder: Path, compiled: str) -> subprocess.CompletedProcess[str]:
    """What pip would install on a phone is written to ``folder``/report.json."""
    for name, version in {**BUILT_BY_TERMUX, COMPILED_THERE: compiled}.items():
        stand_in(folder, name, version)
    return pip(
        "install", "--dry-run", "--quiet", "--ignore-installed", "--target", str(folder / "target"),
        "--report", str(folder / "report.json"), "--find-links", str(folder), "--only-binary", ":all:",
        "--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", PYTHON, *requirements,
    )  # fmt: skip


def on_a_phone(extra: str = "") -> list[str]:
    """The requirements of the install that apply there; pip itself would look at this machine's Python for them."""
    texts = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    there = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.6", "sys_platform": "android"}
    found = [Requirement(text) for text in texts]
    return [f"{each.name}{each.specifier}" for each in found if each.marker is None or each.marker.evaluate(there)]


def test_the_base_install_the_onnx_engine_and_membership_resolve_without_a_wheel_for_a_platform(
    sdist: Path, tmp_path: Path
) -> None:
    version = sdist.name.removesuffix(".tar.gz").rpartition("-")[2]
    wanted = [*on_a_phone(), *on_a_phone("onnx"), *on_a_phone("secure"), *build_requirements(sdist)]
    done = resolve(wanted, tmp_path, version)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    files = {
        str(canonicalize_name(item["metadata"]["name"])): item["download_info"]["url"].rpartition("/")[2]
        for item in report["install"]
    }
    assert all(file.endswith("-none-any.whl") for file in files.values()), files
    assert {name for name in files if name in BUILT_BY_TERMUX} == {"numpy", "cryptography", "onnxruntime"}
    assert files["numpy"] == f"numpy-{BUILT_BY_TERMUX['numpy']}-py3-none-any.whl"


def test_a_dependency_with_wheels_for_platforms_only_is_found_out(tmp_path: Path) -> None:
    done = resolve(["grpcio"], tmp_path, "0.22.0")
    assert done.returncode != 0
    assert "No matching distribution found for grpcio" in done.stderr


def test_what_a_phone_compiles_is_c_alone(sdist: Path) -> None:
    with tarfile.open(sdist) as tar:
        names = tar.getnames()
    assert [name for name in names if name.endswith(OTHER_LANGUAGES)] == []
    assert any(name.endswith(".c") for name in names)


def test_the_page_installs_everything_that_is_not_pure_python_from_termux() -> None:
    page = PAGE.read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("pkg install python "))
    packages = line.split()[2:]
    assert {"python", "python-numpy", "python-cryptography", "clang"} <= set(packages)
    built = {f"python-{name}" for name in BUILT_BY_TERMUX}
    assert {name for name in packages if name.startswith("python-")} <= built
