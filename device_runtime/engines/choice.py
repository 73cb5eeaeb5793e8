"""Which engine a device trains with: each that is installed is tested once, the fastest that works is taken.

A test is a child process, so that an engine that crashes, hangs or eats memory is a finding, not the end of the agent,
and so that the agent's own process never grows by an engine it does not use. What was found is kept in the state
directory until a library, Python, the device runtime or the number of threads changes: a second start tests nothing.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from device_runtime import child
from device_runtime.edge.files import write_whole
from device_runtime.engines import CUDA, ENGINES, NAMES, available, base_name, libraries
from device_runtime.engines.verdict import SelfTest, digest, installed_version
from device_runtime.runtime import RUNTIME_VERSION
from mas_edge.protocol.errors import DeviceError

log = logging.getLogger(__name__)

AUTO = "auto"
FILE = "engines.json"
# A Pi Zero needs half a minute to import PyTorch from its card, and more while it boots.
LIMIT_S = 120.0
# Two engines that differ by less are equally fast: step times vary that much from one run to the next.
TIE = 1.1


@dataclass(frozen=True)
class Choice:
    """The engine that a device trains with, and why."""

    engine: str  # as ``open_engine`` takes it
    works: tuple[str, ...]  # the engines that passed, by the names that programs are made for
    line: str  # for people


class _Kept(msgspec.Struct, frozen=True):
    key: str  # what it holds for
    result: SelfTest


def choose(asked: str, state: Path, *, memory: int = 0, limit_s: float = LIMIT_S) -> Choice:
    """The fastest engine that works here, or the one that was asked for if it does.

    Args:
        asked: "auto", or a name as ``open_engine`` takes it; plain "torch" uses the graphics processor if there is one.
        state: the state directory, where results are kept.
        memory: bytes that this process may hold; an engine that takes more already for the test is not used. 0 = any.
        limit_s: seconds that one engine may take to answer.

    Raises:
        DeviceError: the engine is not known, not installed or does not work; says why and what to do.
    """
    names = candidates(asked)
    kept = _read(state)
    results = _tested(names, kept, limit_s)  # what is kept is not tested
    stale = any(name in kept for name in names)
    if stale and all(result.error for result in results):  # what failed before may have been the moment's fault
        results = probe_all(names, limit_s=limit_s)
    _announce([result for result in results if result.engine not in kept or result != kept[result.engine].result])
    _write(state, kept, results)
    return _chosen(asked, [_allowed(result, memory) for result in results])


def candidates(asked: str) -> list[str]:
    """The engines to choose from; ``asked`` as for ``choose``.

    Raises:
        DeviceError: the engine is not known, or not installed.
    """
    if asked not in (AUTO, *NAMES):
        message = f"engine {asked!r} is not known; allowed: {AUTO}, {', '.join(NAMES)}"
        raise DeviceError(message)
    if asked == AUTO:
        names = available()
        if not names:
            ways = "; ".join(f"{name}: {kind.install}" for name, kind in ENGINES.items())
            message = f"no engine is installed that could train here; install one of: {ways}"
            raise DeviceError(message)
        return names
    if not libraries(asked):
        message = f"engine {asked!r} is not installed here: {ENGINES[base_name(asked)].install}"
        raise DeviceError(message)
    return [asked]


def probe(name: str, *, limit_s: float = LIMIT_S) -> SelfTest:
    """Test one engine in a process of its own; whatever it does there comes back as ``error``."""
    command = child.command("device_runtime.engines.selftest", name)
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return SelfTest(engine=name, error=f"did not answer within {limit_s:g} s")
    except OSError as error:
        return SelfTest(engine=name, error=f"its self-test could not be started: {error.strerror}")
    said = child.answer(done.stdout, SelfTest)
    return said or SelfTest(engine=name, error=_end(done.returncode, done.stderr))


def probe_all(names: Sequence[str], *, limit_s: float = LIMIT_S) -> list[SelfTest]:
    """Test engines in turn, and torch also on the graphics processor if it sees one."""
    return _tested(names, {}, limit_s)


def _tested(names: Sequence[str], kept: dict[str, _Kept], limit_s: float) -> list[SelfTest]:
    results = []
    todo = list(names)
    while todo:
        name = todo.pop(0)
        known = kept.get(name)
        result = known.result if known and known.key == key_of(name) else probe(name, limit_s=limit_s)
        results.append(result)
        if result.cuda and name == "torch":
            todo.insert(0, CUDA)
    return results


def _allowed(result: SelfTest, memory: int) -> SelfTest:
    """The result, as a failure if the engine takes more memory than it may."""
    if not memory or result.error or result.memory_mb * 1e6 <= memory:
        return result
    reason = f"takes {result.memory_mb:.0f} MB, this device allows {memory / 1e6:.0f} MB"
    return msgspec.structs.replace(result, error=reason)


def _announce(results: Sequence[SelfTest]) -> None:
    for result in results:
        if result.error:
            log.warning("engine %s is not used: %s", result.engine, result.error)
        else:
            log.info("engine %s works: step %s, ready in %.2f s", result.engine, _numbers(result), result.ready_s)


def _end(code: int, output: bytes) -> str:
    """Why a process that said nothing ended."""
    if code == -signal.SIGKILL:
        return "was killed: probably not enough memory"
    if code < 0:
        return f"crashed ({signal.strsignal(-code) or f'signal {-code}'})"
    lines = output.decode(errors="replace").strip().splitlines()
    return f"ended with exit code {code}: {lines[-1][:300] if lines else 'it said nothing'}"


def _chosen(asked: str, results: Sequence[SelfTest]) -> Choice:
    working = [result for result in results if not result.error]
    if not working:
        reasons = "; ".join(f"{result.engine}: {result.error}" for result in results)
        message = f"no engine works here ({reasons}); `mas-edge-device doctor` says what to do"
        raise DeviceError(message)
    best = fastest(working)
    others = [f"{r.engine}: {r.error}" if r.error else f"{r.engine} {_numbers(r)}" for r in results if r is not best]
    missing = [name for name in ENGINES if not libraries(name)] if asked == AUTO else []
    if missing:
        others.append(f"{', '.join(missing)}: not installed")
    line = f"engine {best.engine}: step {_numbers(best)}" + (f" ({'; '.join(others)})" if others else "")
    return Choice(best.engine, tuple(dict.fromkeys(base_name(result.engine) for result in working)), line)


def fastest(working: Sequence[SelfTest]) -> SelfTest:
    """The engine to train with; of those that are equally fast the one that takes the least memory.

    A graphics processor that works is taken in any case: on so small a step it shows what starting kernels costs, not
    how fast it is on a network that is worth training.
    """
    candidates = [result for result in working if result.engine == CUDA] or working
    limit = TIE * min(result.step_ms for result in candidates)
    return min((result for result in candidates if result.step_ms <= limit), key=lambda result: result.memory_mb)


def _numbers(result: SelfTest) -> str:
    return f"{result.step_ms:.1f} ms, {result.memory_mb:.0f} MB"


def key_of(name: str) -> str:
    """What a result holds for: the engine's libraries, Python, this runtime and its self-test, machine and threads."""
    parts = [installed_version(name)]
    for library in libraries(name):
        spec = find_spec(library)
        origin = Path(spec.origin) if spec and spec.origin else None
        parts.append(f"{origin} {origin.stat().st_mtime_ns if origin and origin.exists() else ''}")
    threads = os.environ.get("OMP_NUM_THREADS", "any")
    parts += [
        f"Python {platform.python_version()}",
        RUNTIME_VERSION,
        digest(),
        platform.machine(),
        f"{threads} threads",
    ]
    return " | ".join(parts)


def _read(state: Path) -> dict[str, _Kept]:
    """What earlier starts found; nothing if the file is not there or not as it was written."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=dict[str, _Kept])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _write(state: Path, before: dict[str, _Kept], results: Sequence[SelfTest]) -> None:
    kept = before | {result.engine: _Kept(key_of(result.engine), result) for result in results}
    if kept == before:
        return
    try:
        write_whole(state / FILE, msgspec.json.format(msgspec.json.encode(kept), indent=1), durable=False)
    except DeviceError as error:  # the runtime says what is wrong with the directory when it locks it
        log.warning("the choice of the engine is not kept: %s", error)
