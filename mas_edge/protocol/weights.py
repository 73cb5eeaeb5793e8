"""Weights as one flat float32 vector with a named layout; safetensors on disk and on the wire.

The layout puts every trainable tensor first (encoder, then heads), then every buffer, so that the optimiser's state is
one vector over the first ``trainable`` numbers. The safetensors bytes of a layout and a vector are always the same
bytes: the digest names the weights. What the bytes are is said in ``layout``, whose names are found here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.layout import (
    ENCODER,
    Entry,
    Layout,
    derive,
    header_of,
    part_weights,
    require_shape,
    sent_layout,
    tensors_of,
)

__all__ = [
    "ENCODER", "Entry", "Layout", "Numbers", "Vector", "derive", "flatten", "gather", "header_of", "pack",
    "part_weights", "require_finite", "sent_layout", "unpack",
]  # fmt: skip

Vector = NDArray[np.float32]
# Numbers that are looked at together: what is made of them on the way stays small beside any vector.
_LOOKED_AT = 128 * 1024


class Numbers(Protocol):
    """A flat vector that is read in pieces, from its beginning to its end: an array, or what stands for a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(its length,)."""
        ...

    def __getitem__(self, place: slice, /) -> Vector:
        """A piece."""
        ...


def pack(layout: Layout, vector: Vector) -> bytes:
    """Return the safetensors bytes of ``vector``, shape (layout.size,).

    Raises:
        WeightsError: the vector is not float32 of the layout's length, or there are more tensors than a file may name.
    """
    if vector.dtype != np.float32 or vector.shape != (layout.size,):
        message = f"expected a float32 vector of {layout.size} numbers, got {vector.dtype} of shape {vector.shape}"
        raise WeightsError(message)
    numbers = np.ascontiguousarray(vector, dtype="<f4").data.cast("B") if vector.size else b""
    return b"".join((header_of(layout), numbers))


def unpack(data: Buffer) -> dict[str, NDArray[np.float32]]:
    """Return the named float32 tensors of safetensors bytes, as views into ``data``.

    Raises:
        WeightsError: as ``tensors_of``.
    """
    return {name: _tensor(name, found.data, found.shape) for name, found in tensors_of(data).items()}


def _tensor(name: str, data: memoryview, shape: list[int]) -> NDArray[np.float32]:
    try:
        return np.frombuffer(data, dtype="<f4").reshape(shape)
    except ValueError:  # of no numbers, but along axes whose product no array can have
        message = f"tensor {name!r} of shape {shape} is larger than any memory"
        raise WeightsError(message) from None


def gather(layout: Layout, tensors: Mapping[str, NDArray[np.float32]]) -> Vector:
    """Return the flat vector of ``layout`` out of named tensors; tensors the layout does not name are left out.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    vector = np.empty(layout.size, np.float32)
    for entry, place in zip(layout.entries, layout.slices().values(), strict=True):
        tensor = tensors.get(entry.name)
        require_shape(entry, None if tensor is None else list(tensor.shape))
        vector[place] = tensors[entry.name].reshape(-1)
    return vector


def flatten(layout: Layout, data: Buffer) -> Vector:
    """Return the flat vector of ``layout`` out of safetensors bytes: a view where they hold just its tensors in order.

    Raises:
        WeightsError: they are no weights, or a tensor is missing or has another shape.
    """
    tensors = unpack(data)
    if [(name, list(tensor.shape)) for name, tensor in tensors.items()] == [(e.name, e.shape) for e in layout.entries]:
        return np.frombuffer(memoryview(data)[len(data) - 4 * layout.size :], dtype="<f4")
    return gather(layout, tensors)


def require_finite(vector: Numbers, whose: str) -> None:
    """Raise WeightsError if ``vector`` holds a NaN or an infinity."""
    (size,) = vector.shape
    finite = sum(
        int(np.count_nonzero(np.isfinite(vector[start : start + _LOOKED_AT]))) for start in range(0, size, _LOOKED_AT)
    )
    if finite < size:
        message = f"{whose} has {size - finite} of {size} numbers that are not finite (NaN or infinity)"
        raise WeightsError(message)
