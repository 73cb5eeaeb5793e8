"""What the self-test of an engine found, and what that holds for. The test is ``selftest``, which needs NumPy."""

from __future__ import annotations

import contextlib
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from device_runtime.engines import libraries

DATA = Path(__file__).with_name("selftest_data")


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """What the test of one engine found; all numbers are 0 if it failed."""

    engine: str  # as ``open_engine`` takes it
    error: str = ""  # why it cannot be used; "" = it works
    version: str = ""  # of its library
    step_ms: float = 0.0  # median wall time of one step
    step_cpu_ms: float = 0.0  # and of its CPU time, all threads together
    ready_s: float = 0.0  # from the start of the test's module to a loaded program
    ready_cpu_s: float = 0.0  # CPU time of the whole process until then, the start of Python included
    memory_mb: float = 0.0  # resident, of the whole process, once it has trained
    cuda: bool = False  # whether torch sees a graphics processor


def digest() -> str:
    """Names what is tested: it changes when a program or the answer does."""
    found = hashlib.sha256()
    for path in sorted(DATA.iterdir()) if DATA.is_dir() else ():
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def installed_version(name: str) -> str:
    """The version of the engine's library, without importing it; "" if it does not say."""
    for library in libraries(name)[:1]:
        with contextlib.suppress(PackageNotFoundError):
            return version(library.replace("_", "-"))
    return ""
