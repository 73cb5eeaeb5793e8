"""Numbers lent out of a mapped file: the same as in an array, and only a part of them in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.aggregate import PIECE, Accumulator
from mas_edge.orchestrator.lent import HELD_BYTES, Lent
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, flatten, pack, require_finite

LAYOUT = Layout([Entry("e", [5 * HELD_BYTES // 4], ENCODER)])
# Linux maps the pages around one that is read with it, up to a large folio: 2 MiB; and a piece is read before the last
# ones are let go.
SLACK_BYTES = 2 * 1024 * 1024 + 4 * PIECE


def mapped_bytes() -> int:
    """The pages of files that this process holds."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) * 1024


def test_a_pass_holds_a_part_of_a_mapped_file_and_sees_all_of_its_numbers(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    vector = np.arange(LAYOUT.size, dtype=np.float32)
    artifact = store.put(pack(LAYOUT, vector), durable=False).artifact
    with store.opened(artifact) as data:
        lent, before, most = Lent(flatten(LAYOUT, data), data), mapped_bytes(), 0
        for _ in range(2):
            for start in range(0, LAYOUT.size, PIECE):
                np.testing.assert_array_equal(lent[start : start + PIECE], vector[start : start + PIECE])
                most = max(most, mapped_bytes() - before)
        assert most <= HELD_BYTES + SLACK_BYTES
        assert flatten(LAYOUT, data).sum() == vector.sum()
        assert mapped_bytes() - before > 4 * HELD_BYTES  # as an array the file stays in memory: what is measured here


def test_an_update_is_checked_and_folded_without_more_of_its_file_in_memory(tmp_path: Path) -> None:
    store, sums = ArtifactStore(tmp_path), Accumulator(LAYOUT)
    vector = np.ones(LAYOUT.size, np.float32)
    artifact = store.put(pack(LAYOUT, vector), durable=False).artifact
    before = mapped_bytes()
    with ArtifactStore(tmp_path).opened(artifact) as data:  # of a later process: it hashes what is on the disk first
        lent = Lent(flatten(LAYOUT, data), data)
        require_finite(lent, "update")
        sums.fold(lent, {"a": 3})
        assert mapped_bytes() - before <= HELD_BYTES + SLACK_BYTES
    mean: Vector = sums.mean(vector)
    np.testing.assert_array_equal(mean, vector)


def test_what_lies_in_memory_is_lent_as_it_is() -> None:
    layout = Layout([Entry("e", [6], ENCODER)])
    data = pack(layout, np.arange(6, dtype=np.float32))
    lent = Lent(flatten(layout, data), data)
    assert lent.shape == (6,)
    np.testing.assert_array_equal(lent[2:5], [2.0, 3.0, 4.0])
