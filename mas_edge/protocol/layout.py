"""Which tensors a network has and where they lie in its file of weights: names, shapes, places. No numbers.

The file is one of safetensors, written and read here, not by the library of that name, because that one is compiled and
does not install on Termux; tests hold the two against each other. ``weights`` makes vectors of it: who only carries
weights from here to there, as a device does until it trains, needs no NumPy.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import WeightsError

ENCODER = "encoder"
MAX_AXES = 8  # the most a layer of any kind has is 5
MAX_SIZE = 2**40  # one axis; beyond it a product of sizes could overflow
MAX_NUMBERS = 2**28  # of one network: 1 GiB, the largest artifact there is
# Ten thousand tensors with long names. Whoever reads a header holds up to thirty times its bytes as Python objects.
MAX_HEADER_BYTES = 2 * 1024 * 1024


class Entry(msgspec.Struct, frozen=True):
    """One tensor: its name, its shape, the part it belongs to (``encoder`` or a task), trained or a buffer."""

    name: str
    shape: list[int]
    part: str
    trainable: bool = True

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Layout(msgspec.Struct, frozen=True):
    """The tensors of one group's network in the order of its flat vector."""

    entries: list[Entry]

    def check(self) -> Layout:
        """Return the layout itself.

        Raises:
            WeightsError: a name comes twice, a size is odd, the order is wrong, or no device could hold it.
        """
        seen: set[str] = set()
        buffers = False
        for entry in self.entries:
            if entry.name in seen or not all(0 <= size <= MAX_SIZE for size in entry.shape):
                message = f"layout: tensor {entry.name!r} of shape {entry.shape} is named twice or has an odd size"
                raise WeightsError(message)
            if entry.trainable and buffers:
                message = f"layout: trained tensor {entry.name!r} comes after a buffer"
                raise WeightsError(message)
            seen.add(entry.name)
            buffers = buffers or not entry.trainable
        if any(len(entry.shape) > MAX_AXES for entry in self.entries) or self.size > MAX_NUMBERS:
            message = f"layout: more than {MAX_AXES} axes, or more than {MAX_NUMBERS} numbers in all"
            raise WeightsError(message)
        return self

    @property
    def size(self) -> int:
        """The length of the flat vector."""
        return sum(entry.size for entry in self.entries)

    @property
    def trainable(self) -> int:
        """How many numbers at the front of the vector are trained."""
        return sum(entry.size for entry in self.entries if entry.trainable)

    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in the flat vector."""
        places, offset = {}, 0
        for entry in self.entries:
            places[entry.name] = slice(offset, offset + entry.size)
            offset += entry.size
        return places

    def of_parts(self, parts: set[str]) -> Layout:
        """The layout of the tensors that belong to ``parts``, in the same order."""
        return Layout([entry for entry in self.entries if entry.part in parts])


def header_of(layout: Layout) -> bytes:
    """Return what stands before the numbers in the safetensors bytes of a layout."""
    header, offset = {}, 0
    for entry in layout.entries:
        header[entry.name] = {
            "dtype": "F32", "shape": list(entry.shape), "data_offsets": [offset, offset + 4 * entry.size],
        }  # fmt: skip
        offset += 4 * entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


class Found(NamedTuple):
    """One tensor of a file: its shape, and its float32 numbers, little-endian, as a view into the file."""

    shape: list[int]
    data: memoryview


def tensors_of(data: Buffer) -> dict[str, Found]:
    """Return the named tensors of safetensors bytes.

    Raises:
        WeightsError: the bytes are not a safetensors file of float32 tensors without gaps, or the list of its tensors
            is longer than MAX_HEADER_BYTES.
    """
    header, body = _header(memoryview(data))
    tensors, end = {}, 0
    for name, spec in header.items():
        start, stop, shape = _span(name, spec)
        if start != end or stop - start != 4 * math.prod(shape) or stop > len(body):
            message = f"tensor {name!r} of shape {shape} lies at bytes {start} to {stop}, which does not fit the file"
            raise WeightsError(message)
        tensors[name] = Found(shape, body[start:stop])
        end = stop
    if end != len(body):
        message = f"weights file has {len(body) - end} bytes after its last tensor"
        raise WeightsError(message)
    return tensors


def _header(view: memoryview) -> tuple[dict[str, object], memoryview]:
    if len(view) < 8:
        message = f"weights file of {len(view)} bytes is too short to be safetensors"
        raise WeightsError(message)
    (length,) = struct.unpack("<Q", view[:8])
    if length > min(MAX_HEADER_BYTES, len(view) - 8):
        message = (
            f"weights file says its header has {length} bytes; the file has {len(view)}, and a header at most "
            f"{MAX_HEADER_BYTES}"
        )
        raise WeightsError(message)
    try:
        header = json.loads(bytes(view[8 : 8 + length]))
    except (ValueError, RecursionError):
        message = "weights file has a header that is not JSON"
        raise WeightsError(message) from None
    if not isinstance(header, dict):
        message = "weights file has a header that is not a JSON object"
        raise WeightsError(message)
    header.pop("__metadata__", None)
    return header, view[8 + length :]


def _span(name: str, spec: object) -> tuple[int, int, list[int]]:
    match spec:
        case {"dtype": "F32", "shape": [*shape], "data_offsets": [int(start), int(stop)]} if (
            len(shape) <= MAX_AXES and all(type(n) is int and 0 <= n <= MAX_SIZE for n in shape) and 0 <= start <= stop
        ):
            return start, stop, shape
    message = f"tensor {name!r} is not a float32 tensor with a shape and a place: {str(spec)[:100]}"
    raise WeightsError(message)


def require_shape(entry: Entry, shape: list[int] | None) -> None:
    """Raise WeightsError if the tensor found for ``entry`` has another shape, or if there is none (None)."""
    if shape is None:
        message = f"weights lack the tensor {entry.name!r} of shape {entry.shape}"
        raise WeightsError(message)
    if shape != entry.shape:
        message = f"tensor {entry.name!r} has shape {shape}, expected {entry.shape}"
        raise WeightsError(message)


def derive(data: Buffer, layout: Layout) -> bytes:
    """Return the safetensors bytes of the tensors that ``layout`` names, taken unchanged out of a larger file.

    This is how a group inherits the all-in-one encoder and heads, on the orchestrator and on a device alike.

    Raises:
        WeightsError: the file is no weights, or a tensor is missing or has another shape.
    """
    held = tensors_of(data)
    for entry in layout.entries:
        require_shape(entry, held[entry.name].shape if entry.name in held else None)
    return b"".join((header_of(layout), *(held[entry.name].data for entry in layout.entries)))


def part_weights(samples: Mapping[str, int]) -> dict[str, int]:
    """How much one device counts for each part, from its labelled train samples per task.

    A head counts by its own task's labels; the encoder by the largest of them, which is the number of samples when
    every sample carries at least one label. A device that trained heads only says so by ``encoder``: 0, which no task
    can be called, and counts for no encoder.
    """
    counted = {task: count for task, count in samples.items() if count > 0}
    return counted if samples.get(ENCODER) == 0 else {ENCODER: max(counted.values(), default=0), **counted}


def sent_layout(layout: Layout, samples: Mapping[str, int]) -> Layout:
    """The part of ``layout`` a device sends: heads it has labels for, and the encoder unless it trained heads only."""
    return layout.of_parts(set(part_weights(samples)))
