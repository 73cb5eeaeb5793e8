"""The formats of deployed models: which engine runs which, and how the files are told apart.

A model's format decides who can run it; a training program's engine decides nothing here, as a device may train with
PyTorch, which runs no model file, and answer with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection

from mas_edge.protocol.errors import ProgramError

# The engine that runs a format, in the order in which a format is chosen; the format is the file's suffix too.
ENGINE_OF = {"onnx": "onnxruntime", "pte": "executorch", "tflite": "litert"}
# What a microboard takes: a .tflite of its own, int8 in and out, whatever of its firmware runs it.
BOARD_FORMAT, BOARD_ENGINE = "int8", "micro"
FORMATS = (*ENGINE_OF, BOARD_FORMAT)
# A FlatBuffers file names its schema at byte 4. An ONNX model is a Protobuf message whose first field is its version.
_IDENTIFIERS = {b"ET12": "pte", b"TFL3": "tflite"}
_ONNX_FIRST_FIELD = b"\x08"


def format_for(engine: str, engines: Collection[str]) -> str:
    """The format for a device that trains with ``engine`` and has ``engines``; empty if it can run none.

    That of the engine it trains with if there is one (it is loaded already), else the first that it can run.
    """
    if BOARD_ENGINE in (engine, *engines):
        return BOARD_FORMAT
    runnable = [name for name, runs in ENGINE_OF.items() if runs in engines or runs == engine]
    return next((name for name in runnable if ENGINE_OF[name] == engine), next(iter(runnable), ""))


def format_of(data: bytes) -> str:
    """The format of a model file by its first bytes. Raises ProgramError if it is none of them."""
    found = _IDENTIFIERS.get(bytes(data[4:8]))
    if found is None and data[:1] == _ONNX_FIRST_FIELD:
        found = "onnx"
    if found is None:
        message = f"a model file of {len(data)} bytes that begins with {bytes(data[:8])!r} is no {', '.join(ENGINE_OF)}"
        raise ProgramError(message)
    return found
