"""The sending half of a transfer alone: to whom it sends what, and how often; time is simulated."""

from __future__ import annotations

import math

import pytest

from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.transfer import Outgoing, Send
from tests.protocol.pieces import COUNT, DATA, KIB, LARGE, MANIFEST, PER_SEGMENT, Ranges

ALL: Ranges = [(0, COUNT)]
THREE = frozenset({"a", "b", "c"})


def test_the_union_is_broadcast_once_when_all_of_the_audience_have_asked() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    assert outgoing.on_want("a", [(0, 2)], True, 0.0) == []
    assert outgoing.on_want("b", [(1, 3)], True, 0.1) == []
    assert outgoing.on_want("c", [(20, 21)], True, 0.2) == [Send(None, (0, 1, 2, 20))]
    assert (outgoing.broadcast_bytes, outgoing.unicast_bytes) == (3 * 1024 + 100, 0)
    assert outgoing.next_poll == math.inf


def test_the_first_want_waits_only_so_long() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE, gather_s=0.25)
    outgoing.on_want("a", [(0, 2)], True, 10.0)
    outgoing.on_want("b", [(2, 3)], True, 10.2)
    assert outgoing.poll(10.24) == []
    assert outgoing.next_poll == 10.25
    assert outgoing.poll(10.25) == [Send(None, (0, 1, 2))]
    assert outgoing.poll(11.0) == []


def test_one_that_needs_nothing_is_not_waited_for() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_held("a")
    outgoing.on_want("b", [(0, 1)], True, 0.0)
    assert outgoing.on_want("c", [(1, 2)], True, 0.1) == [Send(None, (0, 1))]


def test_the_last_word_may_be_that_nothing_is_needed() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("b", [(0, 1)], True, 0.0)
    outgoing.on_want("c", [(1, 2)], True, 0.1)
    outgoing.on_held("a")
    assert outgoing.next_poll == -math.inf
    assert outgoing.poll(0.1) == [Send(None, (0, 1))]


def test_an_empty_want_is_the_word_that_nothing_is_needed() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b"}))
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    assert outgoing.on_want("b", [], True, 0.1) == [Send("a", (0,))]


def test_a_single_asker_is_answered_alone() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a"}))
    assert outgoing.on_want("a", ALL, True, 0.0) == [Send("a", tuple(range(COUNT)))]
    assert (outgoing.broadcast_bytes, outgoing.unicast_bytes) == (0, len(DATA))


def test_after_a_lone_answer_those_who_come_later_can_still_share_a_broadcast() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", ALL, True, 0.0)
    assert outgoing.poll(1.0) == [Send("a", tuple(range(COUNT)))]
    outgoing.on_want("b", [(0, 1)], True, 5.0)
    assert outgoing.on_want("c", [(1, 2)], True, 5.1) == [Send(None, (0, 1))]


def test_wants_after_the_broadcast_get_exactly_what_they_ask_for() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b"}))
    outgoing.on_want("a", ALL, True, 0.0)
    outgoing.on_want("b", ALL, True, 0.0)
    assert outgoing.on_want("b", [(3, 5)], False, 1.0) == [Send("b", (3, 4))]
    assert outgoing.on_want("late", [(7, 8)], True, 1.0) == [Send("late", (7,))]


def test_there_is_no_second_broadcast_however_many_come_late() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b", "c", "d"}))
    outgoing.on_want("a", ALL, True, 0.0)
    outgoing.on_want("b", ALL, True, 0.0)
    assert outgoing.poll(1.0) == [Send(None, tuple(range(COUNT)))]
    assert outgoing.on_want("c", ALL, True, 1.0) == [Send("c", tuple(range(COUNT)))]
    assert outgoing.on_want("d", [(0, 1)], True, 1.0) == [Send("d", (0,))]
    assert outgoing.broadcast_bytes == len(DATA)


def test_one_that_asked_and_then_holds_it_after_all_is_sent_nothing() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    outgoing.on_held("a")
    assert outgoing.next_poll == math.inf
    outgoing.on_want("b", [(1, 2)], True, 5.0)
    assert outgoing.poll(6.0) == [Send("b", (1,))]


def test_a_pull_is_answered_while_a_broadcast_is_gathered() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    assert outgoing.on_want("b", [(4, 5)], False, 0.1) == [Send("b", (4,))]
    assert outgoing.on_want("c", [(1, 2)], True, 0.1) == [Send(None, (0, 1))]


def test_a_want_repeated_while_the_broadcast_is_pending_is_merged() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE, gather_s=1.0)
    for now in (0.0, 0.5, 0.9):
        assert outgoing.on_want("a", [(0, 3)], True, now) == []
    outgoing.on_want("b", [(0, 3)], True, 0.95)
    assert outgoing.poll(1.0) == [Send(None, (0, 1, 2))]


def test_an_upload_has_no_audience_and_answers_at_once() -> None:
    outgoing = Outgoing(MANIFEST)
    assert outgoing.on_want("orchestrator", [(2, 4)], False, 0.0) == [Send("orchestrator", (2, 3))]
    assert outgoing.unicast_bytes == 2 * KIB


@pytest.mark.parametrize("ranges", [[(0, COUNT + 1)], [(2, 1)], [(-1, 1)], [(0, 2), (1, 3)]])
def test_a_want_that_does_not_fit_the_artifact_is_refused_and_forgotten(ranges: Ranges) -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a"}))
    with pytest.raises(TransferError, match="range"):
        outgoing.on_want("a", ranges, True, 0.0)
    assert outgoing.poll(10.0) == []


def test_a_segment_is_broadcast_when_all_have_come_so_far_and_no_sooner() -> None:
    outgoing = Outgoing(LARGE, audience=frozenset({"a", "b"}))
    second = [(PER_SEGMENT, 2 * PER_SEGMENT)]
    assert outgoing.on_want("a", [(0, PER_SEGMENT)], True, 0.0) == []
    assert [send.receiver for send in outgoing.on_want("b", [(0, PER_SEGMENT)], True, 0.1)] == [None]
    assert outgoing.on_want("a", second, True, 0.2) == []
    assert outgoing.next_poll == pytest.approx(0.2 + 0.25)
    [send] = outgoing.on_want("b", second, True, 0.3)
    assert (send.receiver, len(send.indices)) == (None, PER_SEGMENT)


def test_who_is_further_on_or_pulls_is_not_waited_for() -> None:
    outgoing = Outgoing(LARGE, audience=frozenset({"a", "b", "c", "d"}))
    outgoing.on_want("a", [(4 * PER_SEGMENT, 5 * PER_SEGMENT)], True, 0.0)  # went on after a restart
    outgoing.on_want("b", [(7, 8)], False, 0.0)
    outgoing.on_want("c", [(0, PER_SEGMENT)], True, 0.0)
    [send] = outgoing.on_want("d", [(0, PER_SEGMENT)], True, 0.0)
    assert (send.receiver, send.indices) == (None, tuple(range(PER_SEGMENT)))
