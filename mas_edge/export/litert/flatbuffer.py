"""The last step of every .tflite: our names for its inputs and outputs, none for what is between, each constant once.

The converter names every tensor by the Python classes and modules it came from: half of a small file, and more than a
device needs to know of the author's code. Needs the packages of the build environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of constants, from the schema; kernels with vector instructions read them in place


@dataclass(frozen=True)
class Names:
    """What the inputs and outputs of a signature are called, in the order of the module's arguments and results."""

    inputs: Sequence[str]
    outputs: Sequence[str]


def finished(data: bytes, names: Mapping[str, Names]) -> bytes:
    """The model ``data`` as it leaves: the same model and names give the same bytes."""
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers: Any = importlib.import_module("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for signature in model.signatureDefs:
        given = names[signature.signatureKey.decode()]
        _rename(signature.inputs, "args_", given.inputs)
        _rename(signature.outputs, "output_", given.outputs)
    _drop_names(model)
    _merge_constants(model, schema)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _rename(maps: Sequence[Any], prefix: str, names: Sequence[str]) -> None:
    for entry in maps:
        entry.name = names[int(entry.name.decode().removeprefix(prefix))].encode()


def _drop_names(model: Any) -> None:
    model.description = None
    for part in model.subgraphs:
        part.name = None
        for tensor in part.tensors:
            tensor.name = b""  # not None: runtimes read it without asking whether it is there
    model.metadata, model.metadataBuffer = None, None


def _merge_constants(model: Any, schema: Any) -> None:
    """Let tensors with equal bytes share one buffer; 0 is the empty one of everything that is computed."""
    kept: list[Any] = [schema.BufferT()]
    places: dict[bytes, int] = {}
    for part in model.subgraphs:
        for tensor in part.tensors:
            held = model.buffers[tensor.buffer].data
            content = b"" if held is None else np.asarray(held, np.uint8).tobytes()
            if content and content not in places:
                places[content] = len(kept)
                kept.append(_aligned(schema, content))
            tensor.buffer = places[content] if content else 0
    model.buffers = kept


def _aligned(schema: Any, content: bytes) -> Any:
    """A buffer that is written where the schema wants it; the generated code of Python's schema ignores that."""

    def pack(builder: Any) -> Any:
        builder.StartVector(1, len(content), ALIGNMENT)
        end = builder.Head()
        builder.head = end - len(content)
        builder.Bytes[builder.Head() : end] = content
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)

    buffer = schema.BufferT()
    buffer.Pack = pack
    return buffer
