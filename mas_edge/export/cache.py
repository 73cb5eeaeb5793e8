"""Programs that were emitted and verified before, so that the same split is not exported twice.

An entry is named by the sha256 of everything that it follows from: the traced program (that is the graph; not the name
of the group), the engine, the options, the packages that emit and verify, and this kit's own code. It holds the sha256
of the rest, then the program and what its verification found. A damaged entry counts as none. Writers never meet: each
writes a file of its own and renames it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from mas_edge.export.verify import Comparison
from mas_edge.protocol import program as program_format
from mas_edge.protocol.program import Program

log = logging.getLogger(__name__)

# A job of six tasks on three engines makes about 1 MB an engine and group: room for some hundred splits.
MAX_BYTES = 256 * 1024 * 1024
ENDING = ".verified"
_DIGEST_BYTES = 32
_PACKAGE = Path(__file__).parents[1]
# What an entry follows from beside the graph: emitters, engines, and the network and reference that it was held to.
_SOURCES = (_PACKAGE / "export", _PACKAGE / "learning", _PACKAGE / "protocol", _PACKAGE.parent / "device_runtime")
_PACKAGES = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxruntime"),
    "executorch": ("executorch", "executorch-numpy-runtime", "flatbuffers", "torchao"),
    "litert": ("litert-torch", "ai-edge-litert"),
    "tflite-micro": ("litert-torch", "tflite-micro"),
    "micro": (),
}


class Verified(msgspec.Struct, frozen=True):
    """A program that did what its network does, and how far off each output was."""

    program: bytes
    comparisons: list[Comparison]


class ExportCache:
    """Verified programs in ``directory``; at most ``max_bytes`` of them, the least recently used go first.

    A cache only saves time: what it cannot read or write is logged and done without.
    """

    def __init__(self, directory: Path, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self._max_bytes = max_bytes

    def get(self, key: str) -> Verified | None:
        """The entry called ``key``, or None if there is none that is whole; a damaged one is removed."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            entry = _entry_of(data)
            if entry is None:
                log.warning("the kept export %s is damaged; it is made again", path)
                path.unlink()
            else:
                os.utime(path)  # the least recently used go first
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("kept exports cannot be used: %s; everything is exported anew", error)
            return None
        return entry

    def put(self, key: str, entry: Verified) -> None:
        """Keep ``entry``; it is there as a whole or not at all."""
        body = msgspec.msgpack.encode(entry)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.directory)
            written = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(body).digest() + body)
                    file.flush()
                    os.fsync(file.fileno())
                written.replace(self._path(key))
            finally:
                written.unlink(missing_ok=True)
            self._prune()
        except OSError as error:
            log.warning("the export cannot be kept for later: %s", error)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{ENDING}"

    def _prune(self) -> None:
        held = [(path.stat(), path) for path in self.directory.iterdir()]  # what a killed writer left goes too
        excess = sum(stat.st_size for stat, _ in held) - self._max_bytes
        for stat, path in sorted(held, key=lambda pair: pair[0].st_mtime_ns):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def _entry_of(data: bytes) -> Verified | None:
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        return msgspec.msgpack.decode(body, type=Verified)
    except msgspec.MsgspecError:
        return None


def key_of(program: Program, engine: str, options: Mapping[str, str] | None = None) -> str:
    """The name of the entry for a traced ``program`` on ``engine``: a sha256 in hex."""
    graph = program_format.dump(msgspec.structs.replace(program, group=""))
    parts = [hashlib.sha256(graph).hexdigest(), engine, dict(options or {}), versions_of(engine), _source_digest()]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def versions_of(engine: str) -> dict[str, str]:
    """The installed packages that emit and verify for ``engine``, with their versions."""
    found = {}
    for package in ("mas-edge", "numpy", "torch", *_PACKAGES[engine]):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def _source_digest() -> str:
    """Of this kit's own code: its version stands still while it is worked on."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in _SOURCES for path in folder.rglob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def user_cache() -> Path:
    """Where the command line keeps what it exported: ``mas-edge`` in the user's cache folder (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mas-edge" / "exports"
