"""Asking those who are said to be gone."""

from __future__ import annotations

from itertools import pairwise

from mas_edge.federation.doubts import AGAIN_MAX_S, AGAIN_S, ALL_MAX_S, ALL_S, Doubts


def test_who_is_said_to_be_gone_is_asked_at_once_and_then_ever_more_rarely() -> None:
    doubts = Doubts()
    doubts.lost("pi-1", 100.0)
    asked: list[float] = []
    while len(asked) < 12:
        now = doubts.next_poll
        assert doubts.poll(now - 1e-3) == []
        assert doubts.poll(now) == ["pi-1"]
        asked.append(now)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert (asked[0], pauses[:3], pauses[-1]) == (100.0, [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S], AGAIN_MAX_S)


def test_who_has_spoken_is_not_asked() -> None:
    doubts = Doubts()
    doubts.lost("pi-1", 0.0)
    doubts.lost("pi-2", 0.0)
    doubts.found("pi-1")
    assert doubts.poll(1.0) == ["pi-2"]


def test_to_be_said_gone_again_does_not_make_the_questions_more_frequent() -> None:
    doubts = Doubts()
    doubts.lost("pi-1", 0.0)
    assert doubts.poll(0.0) == ["pi-1"]
    doubts.lost("pi-1", 1.0)
    assert doubts.poll(1.0) == []


def test_everybody_is_asked_ever_more_rarely_while_no_round_is_open_and_not_otherwise() -> None:
    doubts = Doubts()
    asked = [float(now) for now in range(4000) if doubts.everybody(float(now), idle=True)]
    assert asked[:3] == [ALL_S, 2 * ALL_S, 4 * ALL_S]
    assert asked[-1] - asked[-2] == ALL_MAX_S
    assert not doubts.everybody(4000.0, idle=False)
    assert not doubts.everybody(9000.0, idle=True), "it has only just become idle"
