"""Sound files of each kind, for damaging."""

from __future__ import annotations

import json
import struct
from io import BytesIO

import numpy as np

from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import encode
from mas_edge.protocol.weights import pack
from tests.device_runtime import folders, pte_files
from tests.hostile import make_corpus as made
from tests.orchestrator.small_run import LAYOUT, numbers
from tests.protocol.test_messages import DEVICE, ORCHESTRATOR


def _npy() -> bytes:
    file = BytesIO()
    np.save(file, folders.arrays()["x"])
    return file.getvalue()


def _finished() -> bytes:
    manifest = {**made.MANIFEST, "chunk_digests": made.MANIFEST["chunk_digests"]}
    report = {"samples": {"a": 1}, "losses": {"a": 0.5}}
    return json.dumps({"job": "j", "round_id": "case", "report": report, "manifest": manifest}).encode()


_WEIGHTS = pack(LAYOUT, numbers())
SOUND: dict[str, list[bytes]] = {
    "from_device": [encode(message) for message in DEVICE],
    "from_orchestrator": [encode(message) for message in ORCHESTRATOR],
    "chunk": [encode_chunk(describe(_WEIGHTS, 1024), 0, _WEIGHTS[:1024])],
    "weights": [_WEIGHTS],
    "program": [program_format.dump(folders.program())],
    "onnx": [made.graphs_in_graphs(3), made.field(7, made.field(5, made.field(2, b"x" * 8)))],
    "tflite": [made.same_again(b"TFL3", 2, 9, 3, version=0)],
    "pte": [pte_files.packed()],
    "job": [made.JOB.encode()],
    "data": [folders.HEADER.encode()],
    "npy": [_npy()],
    "finished": [_finished()],
    "map": [b"MAP1" + struct.pack(">I", 1024) + b"\x03"],
}
