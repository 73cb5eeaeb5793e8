from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from device_runtime.edge.address import BAD_VERSION, TAKEN_OVER, TOO_LARGE, parse_url
from device_runtime.edge.attempts import CONNACK_S, FIRST_CONNACK_S, Attempts

BUSY = 0x89


def fresh(options: str = "", host: str = "") -> Attempts:
    """Attempts at a broker that no test has met before, unless it is named."""
    return Attempts(parse_url(f"mqtt://{host or secrets.token_hex(8)}{options}"), "ada")


# Each is what happened, what is said of it, and whether the next attempt tries the other version.
ENDS: dict[str, tuple[Callable[[Attempts], object], str, bool]] = {
    "it does not know the version": (lambda a: a.refused(BAD_VERSION, ""), "does not speak MQTT 5; trying", True),
    "a wrong password": (lambda a: a.refused(0x86, ""), "refuses the user name or password; correct", False),
    "a refusal that passes": (lambda a: a.refused(BUSY, "Server busy"), "(Server busy); trying again", False),
    "it hangs up before it answers": (Attempts.hung_up, "hung up before it answered; is it an MQTT broker", True),
    "it does not answer": (Attempts.silent, "lets us connect but does not answer", True),
    "the certificate is refused": (lambda a: a.failed("an alert"), "an alert", False),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_told_in_words_and_says_whether_the_version_may_be_wrong(end: str) -> None:
    happened, words, other = ENDS[end]
    attempts = fresh()
    happened(attempts)
    assert words in attempts.ended
    assert attempts.other_version is other


def test_only_what_no_waiting_mends_is_a_refusal_for_good() -> None:
    assert [fresh().refused(code, "") for code in (BAD_VERSION, BUSY, 0x86, 0x87, 0x8A)] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_a_version_that_was_taken_is_not_doubted_any_more() -> None:
    attempts = fresh()
    attempts.let_in()
    for happened in (Attempts.hung_up, Attempts.silent):
        attempts.begin()
        happened(attempts)
        assert not attempts.other_version


def test_a_connection_that_ends_after_it_was_let_in_has_no_reason_but_the_brokers() -> None:
    attempts = fresh()
    attempts.let_in()
    attempts.hung_up()
    assert attempts.ended == ""
    attempts.ended_by_broker(TAKEN_OVER, "")
    assert "another client has connected with the name 'ada'" in attempts.ended
    assert not attempts.too_large
    attempts.begin()
    attempts.ended_by_broker(TOO_LARGE, "")
    assert attempts.too_large


def test_what_one_link_found_out_another_begins_with_unless_its_url_says_otherwise() -> None:
    host = secrets.token_hex(8)
    first = fresh(host=host)
    assert first.five
    first.switch_version()
    assert fresh(host=host).five, "it has not worked yet"
    first.let_in()
    assert not fresh(host=host).five
    assert fresh("?version=5", host).five
    assert not fresh("?version=3.1.1").five


def test_both_versions_are_waited_for_as_long_and_longer_at_each_turn() -> None:
    attempts, waits = fresh(), []
    for _ in range(6):
        attempts.begin()
        waits.append((attempts.five, attempts.patience_s))
        attempts.silent()
        attempts.switch_version()
    twice = [FIRST_CONNACK_S, 2 * FIRST_CONNACK_S, CONNACK_S]
    assert waits == [(five, seconds) for seconds in twice for five in (True, False)]
