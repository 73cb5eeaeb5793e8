"""Weights: our bytes against the safetensors library, layouts, and files that lie."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.weights import ENCODER, Entry, Layout, flatten, gather, pack, require_finite, unpack

LAYOUT = Layout(
    [
        Entry("encoder.weight", [2, 3], ENCODER),
        Entry("a.weight", [3], "a"),
        Entry("b.weight", [1, 2], "b"),
        Entry("encoder.mean", [], ENCODER, trainable=False),
    ]
)
VECTOR = np.arange(12, dtype=np.float32) - 3.5

shapes = st.lists(st.integers(0, 4), max_size=4)
tensor_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
layouts = st.dictionaries(tensor_names, shapes, max_size=6).map(
    lambda named: Layout([Entry(name, shape, ENCODER) for name, shape in named.items()])
)


def numbers(layout: Layout, seed: int) -> NDArray[np.float32]:
    """Any bit pattern, also NaN, infinities and denormals."""
    bits = np.random.default_rng(seed).integers(0, 2**32, layout.size, dtype=np.uint32)
    return bits.view(np.float32)


def test_the_flat_vector_holds_the_tensors_in_the_order_of_the_layout() -> None:
    tensors = unpack(pack(LAYOUT, VECTOR))
    assert list(tensors) == ["encoder.weight", "a.weight", "b.weight", "encoder.mean"]
    assert tensors["encoder.weight"].tolist() == [[-3.5, -2.5, -1.5], [-0.5, 0.5, 1.5]]
    assert tensors["encoder.mean"].shape == ()
    assert (LAYOUT.size, LAYOUT.trainable) == (12, 11)
    assert LAYOUT.slices()["b.weight"] == slice(9, 11)


@given(layouts, st.integers(0, 10**6))
def test_weights_come_back_bit_for_bit_and_are_the_same_bytes_every_time(layout: Layout, seed: int) -> None:
    vector = numbers(layout, seed)
    data = pack(layout, vector)
    back = gather(layout, unpack(data))
    assert back.tobytes() == vector.tobytes()
    assert pack(layout, back) == data


@given(layouts, st.integers(0, 10**6))
def test_the_safetensors_library_reads_our_bytes(layout: Layout, seed: int) -> None:
    vector = numbers(layout, seed)
    theirs = safetensors.numpy.load(pack(layout, vector))
    assert gather(layout, theirs).tobytes() == vector.tobytes()
    assert {name: list(tensor.shape) for name, tensor in theirs.items()} == {e.name: e.shape for e in layout.entries}


@given(layouts, st.integers(0, 10**6), st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1))
def test_we_read_the_bytes_of_the_safetensors_library(layout: Layout, seed: int, metadata: dict[str, str]) -> None:
    vector = numbers(layout, seed)
    tensors = {entry.name: vector[place].reshape(entry.shape) for entry, place in _placed(layout)}
    for data in (safetensors.numpy.save(tensors), safetensors.numpy.save(tensors, metadata)):
        assert gather(layout, unpack(data)).tobytes() == vector.tobytes()


def _placed(layout: Layout) -> list[tuple[Entry, slice]]:
    return list(zip(layout.entries, layout.slices().values(), strict=True))


def test_unpacked_tensors_are_views_not_copies() -> None:
    data = pack(LAYOUT, VECTOR)
    tensor = unpack(data)["encoder.weight"]
    assert np.shares_memory(tensor, np.frombuffer(data, np.uint8))
    assert not tensor.flags.writeable


def test_the_tensors_of_some_parts_are_a_layout_of_their_own() -> None:
    group = LAYOUT.of_parts({ENCODER, "b"})
    assert [entry.name for entry in group.entries] == ["encoder.weight", "b.weight", "encoder.mean"]
    inherited = gather(group, unpack(pack(LAYOUT, VECTOR)))
    assert inherited.tolist() == [*VECTOR[:6], *VECTOR[9:]]


@pytest.mark.parametrize(
    "vector",
    [np.zeros(11, np.float32), np.zeros((12, 1), np.float32), np.zeros(12, np.float64), np.zeros(12, np.int32)],
    ids=["too short", "two axes", "float64", "int32"],
)
def test_only_a_float32_vector_of_the_layouts_length_is_packed(vector: NDArray[np.float32]) -> None:
    with pytest.raises(WeightsError, match="expected a float32 vector of 12 numbers"):
        pack(LAYOUT, vector)


def test_a_missing_tensor_and_a_wrong_shape_are_named() -> None:
    tensors = unpack(pack(LAYOUT, VECTOR))
    with pytest.raises(WeightsError, match=r"lack the tensor 'a\.weight' of shape \[3\]"):
        gather(LAYOUT, {name: tensor for name, tensor in tensors.items() if name != "a.weight"})
    with pytest.raises(WeightsError, match=r"'a\.weight' has shape \[1, 3\], expected \[3\]"):
        gather(LAYOUT, {**tensors, "a.weight": tensors["a.weight"].reshape(1, 3)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_counted_and_refused(bad: float) -> None:
    vector = VECTOR.copy()
    require_finite(vector, "update of pi-1")
    vector[[2, 7]] = bad
    with pytest.raises(WeightsError, match=r"update of pi-1 has 2 of 12 numbers that are not finite"):
        require_finite(vector, "update of pi-1")


def file_of(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: object, start: object, stop: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


FLOAT = struct.pack("<f", 1.0)
FILE_FAULTS: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\0\0\0",
    "a header longer than the file": struct.pack("<Q", 100) + b"{}",
    "a header of 2^64 bytes": b"\xff" * 16,
    "a header that is not JSON": file_of(b"{nonsense}"),
    "a header that is not UTF-8": file_of(b'{"\xff": 1}'),
    "a header that is a list": file_of([]),
    "a header nested without end": file_of(b"[" * 200_000),
    "a number of 5000 digits": file_of(b'{"a": ' + b"9" * 5000 + b"}"),
    "a tensor without a shape": file_of({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FLOAT),
    "a tensor that is a number": file_of({"a": 1}),
    "half precision": file_of({"a": tensor([2], 0, 4, "F16")}, FLOAT),
    "integers": file_of({"a": tensor([1], 0, 4, "I32")}, FLOAT),
    "a negative size": file_of({"a": tensor([-1], 0, 4)}, FLOAT),
    "a fractional size": file_of({"a": tensor([1.0], 0, 4)}, FLOAT),
    "a size in words": file_of({"a": tensor(["1"], 0, 4)}, FLOAT),
    "a shape larger than its bytes": file_of({"a": tensor([2], 0, 4)}, FLOAT),
    "a shape smaller than its bytes": file_of({"a": tensor([1], 0, 8)}, FLOAT * 2),
    "a shape of astronomic size": file_of({"a": tensor([10**18, 10**18], 0, 4)}, FLOAT),
    "a place beyond the file": file_of({"a": tensor([2], 0, 8)}, FLOAT),
    "a place before the file": file_of({"a": tensor([1], -4, 0)}, FLOAT),
    "a place backwards": file_of({"a": tensor([1], 4, 0)}, FLOAT),
    "a gap between tensors": file_of({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, FLOAT * 3),
    "tensors that overlap": file_of({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, FLOAT),
    "bytes after the last tensor": file_of({"a": tensor([1], 0, 4)}, FLOAT * 2),
    "bytes and no tensor": file_of({}, FLOAT),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_file_that_lies_is_refused(fault: str) -> None:
    with pytest.raises(WeightsError):
        unpack(FILE_FAULTS[fault])


NUMPY_FAULTS: dict[str, bytes] = {
    "no bytes in an astronomic shape": file_of({"a": tensor([0, 10**30], 0, 0)}),
    "a hundred axes": file_of({"a": tensor([1] * 100, 0, 4)}, FLOAT),
    "a size that is true": file_of({"a": tensor([True], 0, 4)}, FLOAT),
}


@pytest.mark.parametrize("fault", NUMPY_FAULTS)
def test_a_shape_that_numpy_refuses_is_refused_as_a_weights_error(fault: str) -> None:
    with pytest.raises(WeightsError):
        unpack(NUMPY_FAULTS[fault])


GOOD = pack(LAYOUT, VECTOR)
damaged = st.builds(
    lambda place, junk, cut: GOOD[:place] + junk + GOOD[place + cut :],
    st.integers(0, len(GOOD)), st.binary(max_size=4), st.integers(0, 8),
)  # fmt: skip


@given(st.one_of(st.binary(max_size=100), damaged, st.binary(max_size=80).map(file_of)))
def test_whatever_is_received_gives_tensors_or_a_weights_error(data: bytes) -> None:
    try:
        tensors = unpack(data)
    except WeightsError as error:
        assert len(str(error)) < 1000
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data)


def test_weights_in_the_order_of_the_layout_are_flattened_without_a_copy() -> None:
    data = pack(LAYOUT, VECTOR)
    flat = flatten(LAYOUT, data)
    assert flat.tolist() == VECTOR.tolist()
    assert not flat.flags.owndata


def test_weights_in_another_order_or_with_more_tensors_are_gathered() -> None:
    turned = Layout([*reversed(LAYOUT.entries)])
    other = pack(turned, gather(turned, unpack(pack(LAYOUT, VECTOR))))
    assert flatten(LAYOUT, other).tolist() == VECTOR.tolist()
    assert flatten(Layout(LAYOUT.entries[:1]), pack(LAYOUT, VECTOR)).size == LAYOUT.entries[0].size
