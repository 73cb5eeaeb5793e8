"""A safetensors file: weights or golden samples of this kit, or anybody else's."""

from __future__ import annotations

import json
import math
import struct

from mas_edge.export.contents.listing import Contents, Tensor
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError

NAMES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
         "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip


def is_safetensors(data: bytes) -> bool:
    """Whether the file begins as one: the length of a header, and an object of JSON."""
    return len(data) > 8 and data[8:9] == b"{" and struct.unpack_from("<Q", data)[0] < 1 << 32


def read_safetensors(data: bytes) -> Contents:
    """Its tensors. Raises ProgramError if it is damaged or truncated."""
    (length,) = struct.unpack_from("<Q", data)
    try:
        header = json.loads(data[8 : 8 + length])
        notes = header.pop("__metadata__", {})
        tensors = [
            Tensor(name, NAMES.get(spec["dtype"], spec["dtype"]), [int(size) for size in spec["shape"]])
            for name, spec in header.items()
        ]
        end = max((int(spec["data_offsets"][1]) for spec in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        message = f"is a damaged or truncated safetensors file: {type(error).__name__} in its header"
        raise ProgramError(message) from None
    if 8 + length + end != len(data):
        message = f"is a truncated safetensors file: its tensors end at byte {8 + length + end} of {len(data)}"
        raise ProgramError(message)
    total = sum(math.prod(size for size in tensor.shape if isinstance(size, int)) for tensor in tensors)
    facts = {"tensors": f"{len(tensors)} with {total} numbers"}
    if notes:
        facts["metadata"] = json.dumps(notes)[:500]
    return Contents(kind="safetensors", engine="", size=len(data), sha256=digest_of(data), facts=facts, tensors=tensors)
