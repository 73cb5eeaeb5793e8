from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from mas_edge.export.executorch.arena import ALIGNMENT, Storage, plan

SPANS = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
STORAGES = st.lists(st.tuples(st.integers(0, 200), SPANS).map(lambda drawn: Storage(drawn[0], *drawn[1])), max_size=25)


def rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@settings(deadline=None)
@given(STORAGES)
def test_what_is_needed_at_once_never_shares_memory(storages: list[Storage]) -> None:
    total = plan(storages)
    for i, one in enumerate(storages):
        assert one.offset % ALIGNMENT == 0
        assert 0 <= one.offset <= one.offset + one.size <= total
        for other in storages[:i]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.size <= other.offset or other.offset + other.size <= one.offset
            assert apart or not together or 0 in (one.size, other.size)


@settings(deadline=None)
@given(STORAGES)
def test_the_block_is_at_least_the_peak_and_at_most_everything(storages: list[Storage]) -> None:
    total = plan(storages)
    live = [sum(rounded(s.size) for s in storages if s.first <= now <= s.last) for now in range(13)]
    assert max(live) <= total <= sum(rounded(storage.size) for storage in storages)


def test_memory_is_used_again_as_soon_as_it_is_free() -> None:
    storages = [Storage(64, 0, 1), Storage(64, 1, 2), Storage(64, 2, 3), Storage(64, 3, 4)]
    assert plan(storages) == 128
    assert storages[0].offset == storages[2].offset


def test_what_ends_in_the_call_where_another_begins_is_kept_apart() -> None:
    """A kernel reads its arguments while it writes its result."""
    storages = [Storage(16, 0, 1), Storage(16, 1, 1)]
    assert plan(storages) == 32


def test_nothing_takes_nothing() -> None:
    assert plan([]) == 0
    assert plan([Storage(0, 0, 3), Storage(0, 1, 2)]) == 0
