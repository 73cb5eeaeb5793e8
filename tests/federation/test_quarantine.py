"""The quarantine's rules, one by one, and that no order of events leaves a device in it for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.quarantine import Quarantine, Standing

DAY = 86_400.0


def quarantine(rounds: int = 3) -> Quarantine:
    return Quarantine(rounds, DAY)


def strike(held: Quarantine, device: str, number: int, now: float = 0.0, *, went_well: bool = True) -> None:
    """One round in which nothing of a device was accepted."""
    held.on_refused(device, f"r{number}", "it holds a NaN")
    held.on_closed(f"r{number}", now, went_well=went_well)


def test_a_device_is_inside_after_so_many_rounds_and_the_last_reason_is_kept() -> None:
    held = quarantine()
    for number in range(3):
        assert held.why("pi") == ""
        strike(held, "pi", number, now=100.0)
    assert held.why("pi") == "its reports were refused in 3 rounds, the last: it holds a NaN"
    assert held.inside() == {"pi": held.why("pi")}
    assert held.standing("pi") == Standing(3, 100.0 + DAY, "it holds a NaN")


def test_many_refusals_in_one_round_are_one_strike() -> None:
    held = quarantine()
    for _ in range(10):
        held.on_refused("pi", "r", "bad digest")
    held.on_closed("r", 0.0, went_well=True)
    assert held.standing("pi").strikes == 1


def test_a_round_in_which_a_report_was_accepted_after_all_is_none_and_takes_the_others_back() -> None:
    held = quarantine()
    strike(held, "pi", 1)
    held.on_refused("pi", "r2", "bad digest")
    assert held.on_accepted("pi", "r2")
    assert held.on_closed("r2", 0.0, went_well=True) == []
    assert held.standing("pi") == Standing()
    assert not held.on_accepted("pi", "r3")


def test_a_round_that_went_well_for_nobody_speaks_against_the_job_not_the_device() -> None:
    held = quarantine(1)
    strike(held, "pi", 1, went_well=False)
    assert held.standing("pi") == Standing()


def test_only_rounds_that_are_over_are_judged() -> None:
    held = quarantine()
    held.on_refused("pi", "r1", "x")
    held.on_refused("pi", "r2", "x")
    assert held.over({"r2", "r3"}) == ["r1"]
    held.on_closed("r1", 0.0, went_well=True)
    assert held.over(set()) == ["r2"]


def test_time_lets_a_device_out_on_probation() -> None:
    held = quarantine()
    for number in range(3):
        strike(held, "pi", number)
    assert held.poll(DAY - 1) == []
    assert held.poll(DAY) == ["pi"]
    assert (held.why("pi"), held.standing("pi").strikes) == ("", 2)
    strike(held, "pi", 9, now=DAY)
    assert held.standing("pi").until == 2 * DAY
    assert held.poll(2 * DAY) == ["pi"]
    assert held.on_accepted("pi", "r10")
    assert held.standing("pi") == Standing()


def test_the_operator_takes_every_strike_back() -> None:
    held = quarantine(1)
    strike(held, "pi", 1)
    assert held.release("pi")
    assert (held.why("pi"), held.standing("pi")) == ("", Standing())
    assert not held.release("pi")


def test_nothing_that_arrives_meanwhile_lets_a_device_out() -> None:
    """A report of another round, accepted before it was heard of, is no release."""
    held = quarantine(1)
    strike(held, "pi", 1)
    assert not held.on_accepted("pi", "r0")
    assert held.why("pi")


events = st.lists(
    st.tuples(
        st.sampled_from(["refused", "accepted", "closed", "poll"]), st.sampled_from(["a", "b"]), st.integers(0, 3)
    )
)


@given(events)
def test_a_restart_at_any_moment_changes_nothing_for_who_is_inside(told: list[tuple[str, str, int]]) -> None:
    held, now = quarantine(2), 0.0
    for what, device, number in told:
        now += 1000.0
        match what:
            case "refused":
                held.on_refused(device, f"r{number}", "x")
            case "accepted":
                held.on_accepted(device, f"r{number}")
            case "closed":
                held.on_closed(f"r{number}", now, went_well=True)
            case _:
                held.poll(now)
        again = quarantine(2)
        again.restore({name: held.standing(name) for name in ("a", "b")})
        assert again.inside() == held.inside()
        assert all((again.standing(name).strikes >= 2) == bool(again.why(name)) for name in ("a", "b"))
    assert set(held.poll(now + DAY)) <= {"a", "b"}
    assert held.inside() == {}
