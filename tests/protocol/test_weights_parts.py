"""Parts of a network: what a group inherits, what a device sends, what it counts for, and layouts that lie."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.layout import MAX_SIZE
from mas_edge.protocol.weights import (
    ENCODER,
    Entry,
    Layout,
    derive,
    gather,
    pack,
    part_weights,
    sent_layout,
    unpack,
)

TASKS = ["a", "b", "c"]
LAYOUT = Layout(
    [
        Entry("encoder.weight", [2, 3], ENCODER),
        Entry("a.weight", [3], "a"),
        Entry("b.weight", [1, 2], "b"),
        Entry("c.bias", [], "c"),
        Entry("encoder.mean", [2], ENCODER, trainable=False),
        Entry("b.mean", [1], "b", trainable=False),
    ]
)
bits = st.lists(st.integers(0, 2**32 - 1), min_size=LAYOUT.size, max_size=LAYOUT.size)
groups = st.sets(st.sampled_from(TASKS), min_size=1)
counts = st.dictionaries(st.sampled_from(TASKS), st.integers(0, 50))


@given(bits, groups)
def test_a_group_inherits_its_parts_bit_for_bit_and_nothing_else(numbers: list[int], tasks: set[str]) -> None:
    whole = np.array(numbers, np.uint32).view(np.float32)
    group = LAYOUT.of_parts({ENCODER, *tasks})
    tensors = unpack(derive(pack(LAYOUT, whole), group))
    expected = unpack(pack(LAYOUT, whole))
    assert {e.name for e in LAYOUT.entries if e.part in {ENCODER, *tasks}} == set(tensors)
    assert all(tensors[name].tobytes() == expected[name].tobytes() for name in tensors)


@given(bits, groups)
def test_the_derived_bytes_are_those_the_server_would_have_sent(numbers: list[int], tasks: set[str]) -> None:
    whole = np.array(numbers, np.uint32).view(np.float32)
    group = LAYOUT.of_parts({ENCODER, *tasks})
    derived = derive(pack(LAYOUT, whole), group)
    assert derived == pack(group, gather(group, unpack(pack(LAYOUT, whole))))
    assert derive(derived, group) == derived
    foreign = safetensors.numpy.save(unpack(pack(LAYOUT, whole)))
    assert derive(foreign, group) == derived, "the order of the tensors in the larger file does not matter"


def test_what_the_larger_file_lacks_cannot_be_derived() -> None:
    part = pack(LAYOUT.of_parts({ENCODER, "a"}), np.zeros(11, np.float32))
    with pytest.raises(WeightsError, match=r"lack the tensor 'b\.weight'"):
        derive(part, LAYOUT)
    with pytest.raises(WeightsError, match="too short"):
        derive(b"", LAYOUT)


WEIGHTS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "nobody": ({}, {ENCODER: 0}),
    "only zeros": ({"a": 0, "b": 0}, {ENCODER: 0}),
    "one task": ({"a": 7}, {ENCODER: 7, "a": 7}),
    "the largest counts for the encoder": ({"a": 7, "b": 9, "c": 0}, {ENCODER: 9, "a": 7, "b": 9}),
    "who trained heads only says so": ({"a": 7, "b": 0, ENCODER: 0}, {"a": 7}),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_device_counts_by_its_labels(case: str) -> None:
    samples, expected = WEIGHTS[case]
    assert part_weights(samples) == expected


@given(counts)
def test_a_device_sends_the_encoder_and_the_heads_it_has_labels_for_in_the_order_of_the_layout(
    samples: dict[str, int],
) -> None:
    sent = sent_layout(LAYOUT, samples)
    parts = {ENCODER} | {task for task, count in samples.items() if count > 0}
    assert sent.entries == [entry for entry in LAYOUT.entries if entry.part in parts]
    assert {entry.part for entry in sent.entries} == set(part_weights(samples))


LAYOUT_FAULTS: dict[str, tuple[list[Entry], str]] = {
    "a name that comes twice": ([Entry("x", [1], ENCODER), Entry("x", [2], "a")], "'x'.*named twice"),
    "a negative size": ([Entry("x", [2, -1], ENCODER)], "odd size"),
    "a size beyond any memory": ([Entry("x", [MAX_SIZE + 1], ENCODER)], "odd size"),
    "a trained tensor after a buffer": (
        [Entry("x", [1], ENCODER, trainable=False), Entry("y", [1], ENCODER)], "'y' comes after a buffer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUT_FAULTS)
def test_a_layout_is_refused_that_has(case: str) -> None:
    entries, reason = LAYOUT_FAULTS[case]
    with pytest.raises(WeightsError, match=reason):
        Layout(entries).check()


def test_a_good_layout_is_returned_as_it_is() -> None:
    assert LAYOUT.check() is LAYOUT
    assert Layout([Entry("empty", [0, 3], ENCODER), Entry("scalar", [], "a")]).check().size == 1
