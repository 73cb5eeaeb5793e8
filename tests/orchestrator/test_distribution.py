"""Handing out artifacts: one broadcast to those who miss them, then piece by piece, while a round needs them."""

import pytest

from mas_edge.orchestrator.distribution import Distribution, Shipment
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.errors import TransferError

PROGRAM, WEIGHTS = describe(bytes(5000), 1024), describe(b"w" * 3000, 1024)
BOTH = frozenset({"pi-1", "pi-2"})
ALL = [(0, 5)]


@pytest.fixture
def distribution() -> Distribution:
    offered = Distribution()
    offered.offer("merged-0000", "program", PROGRAM, BOTH)
    offered.offer("merged-0000", "weights", WEIGHTS, BOTH)
    return offered


def to(receiver: str | None, *indices: int) -> Shipment:
    return Shipment("merged-0000", "program", PROGRAM, receiver, indices)


def test_what_all_devices_miss_is_broadcast_once(distribution: Distribution) -> None:
    assert distribution.on_want("pi-1", PROGRAM.artifact, ALL, True, 0.0) == []
    assert distribution.on_want("pi-2", PROGRAM.artifact, ALL, True, 0.1) == [to(None, 0, 1, 2, 3, 4)]
    assert distribution.poll(100.0) == []


def test_a_device_that_says_nothing_is_not_waited_for_long(distribution: Distribution) -> None:
    distribution.on_want("pi-1", PROGRAM.artifact, ALL, True, 0.0)
    due = distribution.next_poll
    assert distribution.poll(due - 1e-3) == []
    assert distribution.poll(due) == [to("pi-1", 0, 1, 2, 3, 4)], "one device alone needs no broadcast"
    assert distribution.next_poll == float("inf")


def test_what_got_lost_goes_to_the_one_who_misses_it(distribution: Distribution) -> None:
    for device in sorted(BOTH):
        distribution.on_want(device, PROGRAM.artifact, ALL, True, 0.0)
    assert distribution.on_want("pi-2", PROGRAM.artifact, [(1, 2), (4, 5)], False, 3.0) == [to("pi-2", 1, 4)]


def test_each_shipment_says_what_it_is_so_that_its_bytes_can_be_counted(distribution: Distribution) -> None:
    (shipment,) = distribution.on_want("pi-1", WEIGHTS.artifact, [(0, 1)], False, 0.0)
    assert (shipment.kind, shipment.round_id, shipment.manifest) == ("weights", "merged-0000", WEIGHTS)
    assert distribution.round_of(WEIGHTS.artifact) == "merged-0000"


REFUSED: dict[str, tuple[str, list[tuple[int, int]]]] = {
    "an artifact of no open round": ("ab" * 32, [(0, 1)]),
    "chunks beyond its end": (PROGRAM.artifact, [(0, 6)]),
    "chunks before its beginning": (PROGRAM.artifact, [(-1, 1)]),
    "ranges that overlap": (PROGRAM.artifact, [(0, 3), (2, 4)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_want_is_refused_for(distribution: Distribution, case: str) -> None:
    artifact, ranges = REFUSED[case]
    with pytest.raises(TransferError):
        distribution.on_want("pi-1", artifact, ranges, False, 0.0)
    assert distribution.poll(100.0) == []


def test_after_its_round_an_artifact_is_not_handed_out(distribution: Distribution) -> None:
    distribution.offer("group-1-0002", "weights", describe(b"other"), BOTH)
    distribution.withdraw("merged-0000")
    assert distribution.round_of(PROGRAM.artifact) is None
    with pytest.raises(TransferError, match="which no open round uses"):
        distribution.on_want("pi-1", PROGRAM.artifact, ALL, False, 0.0)
    assert distribution.round_of(describe(b"other").artifact) == "group-1-0002"
