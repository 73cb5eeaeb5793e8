"""What this machine can do: what is installed, and what each engine does here, measured."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from device_runtime.engines import CUDA, ENGINES, Kind, libraries
from device_runtime.engines.choice import LIMIT_S, fastest, probe_all
from device_runtime.engines.verdict import SelfTest, installed_version
from device_runtime.host import Host, board_model
from device_runtime.runtime import RUNTIME_VERSION
from device_runtime.surroundings import Finding
from device_runtime.vitals import Vitals

BASE = ("numpy", "msgspec", "paho-mqtt")
OF_ENGINES = (
    "torch", "onnxruntime", "executorch-numpy-runtime", "executorch", "ai-edge-litert", "tflite-runtime",
)  # fmt: skip


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where this runs."""

    runtime: str
    python: str
    executable: str
    system: str
    model: str  # of the board; "" if it does not say
    architecture: str
    cores: int  # that this process may use
    memory_bytes: int
    free_bytes: int  # 0 if the system does not say


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """One engine here. ``test`` is None if it is not installed, or can only answer with models."""

    name: str
    version: str  # of its library; "" if it does not say
    installed: bool  # at least to answer with models
    form: str
    precisions: Sequence[str]  # of the models it can answer with
    test: SelfTest | None = None
    advice: str = ""  # one line; "" if there is nothing to do

    @property
    def trains(self) -> bool:
        """Whether it passed its test."""
        return self.test is not None and not self.test.error


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the command ``doctor`` says about a device."""

    machine: Machine
    libraries: dict[str, str]  # installed ones, by distribution: version
    engines: list[EngineReport]
    best: str  # the engine that "auto" takes; "" if nothing can train here
    vitals: Vitals | None = None  # power, heat and the owner's rules, if they were asked for
    surroundings: list[Finding] = []  # clock, broker, membership, service, if they were asked for


def examine(*, limit_s: float = LIMIT_S) -> Diagnosis:
    """Look at this machine and test every engine, each in a process of its own that may take ``limit_s`` seconds."""
    tests = {test.engine: test for test in probe_all([name for name in ENGINES if libraries(name)], limit_s=limit_s)}
    engines = [_report(name, kind, tests.get(name)) for name, kind in ENGINES.items()]
    if CUDA in tests:
        engines.insert(1, _report(CUDA, ENGINES["torch"], tests[CUDA]))
    working = [report.test for report in engines if report.test is not None and report.trains]
    best = fastest(working).engine if working else ""
    return Diagnosis(machine=_machine(), libraries=versions(BASE + OF_ENGINES), engines=engines, best=best)


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """The versions of those that are installed, in the same order. Imports none."""
    found = {}
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _report(name: str, kind: Kind, test: SelfTest | None) -> EngineReport:
    return EngineReport(
        name=name, version=installed_version(name), installed=test is not None, form=kind.form,
        precisions=kind.precisions, test=test, advice=_advice(name, kind, test),
    )  # fmt: skip


def _advice(name: str, kind: Kind, test: SelfTest | None) -> str:
    if test is None:
        return f"{name}: {kind.install}"
    if not test.error:
        return ""
    again = "" if kind.install in test.error else f"; to install it anew: {kind.reinstall}"
    return f"{name} is not used: {test.error}{again}"


def memory_advice(machine: Machine, engines: Sequence[EngineReport], best: str, swap: str = "add swap") -> str:
    """One line if the memory that is free would not carry the engine that is taken; else empty. ``swap``: how to."""
    took = {report.name: report.test.memory_mb for report in engines if report.test is not None and report.trains}
    free_mb = machine.free_bytes / 1e6
    if not best or not machine.free_bytes or free_mb >= took[best]:
        return ""
    smallest = min(took, key=took.__getitem__)
    way = f"--engine {smallest} takes {took[smallest]:.0f} MB; " if smallest != best else ""
    way += swap
    return f"{best} took {took[best]:.0f} MB for its test, {free_mb:.0f} MB are free: {way}"


def _machine() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS
    return Machine(
        runtime=RUNTIME_VERSION, python=platform.python_version(), executable=sys.executable,
        system=platform.platform(terse=False), model=board_model(Host()), architecture=platform.machine(),
        cores=len(usable(0)) if usable else os.cpu_count() or 1, memory_bytes=memory, free_bytes=_free_bytes(),
    )  # fmt: skip


def _free_bytes() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 0
