"""By what each kind of hostile file is read, and what a reading may cost.

A reader gets the bytes and an empty directory of its own. It may raise an error of the one tree, and nothing else; what
it leaves in the directory is held against ``LEAVES``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_runtime.data import open_data, problems
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.part_file import PartFile
from device_runtime.engines.onnx_model import check_model
from device_runtime.engines.pte_model import check_pte
from device_runtime.engines.tflite_model import read_model
from device_runtime.pending import PendingOffers
from mas_edge.job import load_job
from mas_edge.protocol import program
from mas_edge.protocol.artifact import chunk_span, decode_chunk, describe
from mas_edge.protocol.messages import decode_from_device, decode_from_orchestrator, encode, round_name
from mas_edge.protocol.weights import gather, unpack
from tests.device_runtime import folders

Reader = Callable[[bytes, Path], object]
MB = 1024 * 1024


def from_device(data: bytes, _: Path) -> object:
    round_name(data)
    return encode(decode_from_device(data, "pi-1"))


def from_orchestrator(data: bytes, _: Path) -> object:
    return encode(decode_from_orchestrator(data))


def a_program(data: bytes, _: Path) -> object:
    return gather(program.load(data).layout, {})


def a_job(data: bytes, directory: Path) -> object:
    path = directory / "job.toml"
    path.write_bytes(data)
    return load_job(path)


def a_data_folder(data: bytes, directory: Path) -> object:
    folders.write(directory)
    (directory / "data.toml").write_bytes(data)
    return _opened(directory)


def an_array(data: bytes, directory: Path) -> object:
    folders.write(directory)
    (directory / "x.npy").write_bytes(data)
    return _opened(directory)


def _opened(directory: Path) -> object:
    """``check`` and ``open_data`` are of one mind, and all they say is one line each."""
    found = problems(directory)
    assert all(line.isprintable() for line in found), found
    opened = open_data(directory)  # looks at headers, split and labels; ``check`` has read every number
    return found or list(opened.feeds(folders.program(), "train", 1))


def a_finished_round(data: bytes, directory: Path) -> object:
    offers = PendingOffers(directory / "pending")
    (directory / "pending" / "case.json").write_bytes(data)
    return offers.load()


def a_map(data: bytes, directory: Path) -> object:
    """A part on the disk whose list of chunks was damaged: nothing is believed that the digests do not say."""
    whole = bytes(range(256)) * 10
    manifest = describe(whole, 1024)
    part = ArtifactStore(directory / "artifacts").partial(manifest)
    part.write(1, whole[chunk_span(manifest, 1)])
    (directory / "artifacts" / f"{manifest.artifact}.map").write_bytes(data)
    again = PartFile(manifest, directory / "artifacts" / manifest.artifact)
    assert 0 not in again.held
    return again.held.missing()


def _model(check: Callable[[bytes, str], object]) -> Reader:
    def read(data: bytes, _: Path) -> object:
        return check(data, "the file")

    return read


READERS: dict[str, Reader] = {
    "from_device": from_device,
    "from_orchestrator": from_orchestrator,
    "chunk": lambda data, _: decode_chunk(data),
    "weights": lambda data, _: unpack(data),
    "program": a_program,
    "onnx": _model(check_model),
    "tflite": _model(read_model),
    "pte": _model(check_pte),
    "job": a_job,
    "data": a_data_folder,
    "npy": an_array,
    "finished": a_finished_round,
    "map": a_map,
}

# What a reading may take of memory, beside a multiple of the file: a program is 64 MB at most when it is unpacked, and
# the buffer that it is unpacked into doubles as it grows.
MEMORY: dict[str, int] = {"program": 200 * MB}
DEFAULT_MEMORY, TIMES_THE_FILE = 8 * MB, 64


def allowed_bytes(kind: str, size: int) -> int:
    """What reading ``size`` bytes of a kind may take at its peak."""
    return MEMORY.get(kind, DEFAULT_MEMORY) + TIMES_THE_FILE * size


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory``, with what it holds."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
