"""The agent's life without a network: from a plan to its receipt, through lost messages and restarts."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.agent import MAX_ERRANDS, OFFER_REPEAT_MAX_S, OFFER_REPEAT_S
from device_runtime.effects import Effect, Listen, SendChunks, Tell
from mas_edge.protocol.artifact import chunk_count, digest_of
from mas_edge.protocol.messages import Ack, Birth, Cancel, Commit, Offer, Rebirth, Receipt, Refusal, Want, Weights
from tests.device_runtime.one_device import (
    GROUP_PROGRAM,
    GROUP_WEIGHTS,
    MERGED_PROGRAM,
    MERGED_WEIGHTS,
    ORCHESTRATOR,
    REPORT,
    UPDATE,
    OneDevice,
    plan,
    small,
)


@pytest.fixture
def device(tmp_path: Path) -> OneDevice:
    return OneDevice(tmp_path)


def word(effect: Effect) -> str:
    return type(effect.message).__name__ if isinstance(effect, Tell) else type(effect).__name__


def settled(device: OneDevice) -> bool:
    """Everything that was to be done is done and the orchestrator has said so."""
    return device.agent.next_poll == float("inf") and not list((device.directory / "pending").iterdir())


def test_a_plan_goes_from_fetch_through_work_and_offer_to_its_receipt(device: OneDevice) -> None:
    device.connect()
    device.receive(plan())
    device.wait(1.0)
    words = " ".join(word(effect) for effect in device.effects)
    order = r"Birth Ack Listen Want (Listen |Want )+Start Offer (SendChunks )+Commit"
    assert re.fullmatch(order, words), words
    assert device.listening() == set()
    assert settled(device)
    (offer,) = device.told(Offer)
    fetched = len(MERGED_PROGRAM) + len(MERGED_WEIGHTS)
    assert (offer.job, offer.round_id) == ("j-1", "merged-0000")
    assert offer.report == replace(REPORT, received_bytes=fetched, seconds={"fetch": offer.report.seconds["fetch"]})
    assert offer.manifest is not None
    assert offer.manifest.artifact == digest_of(UPDATE)
    assert not device.agent.store.has(offer.manifest.artifact), "nobody will ask for it again"


def test_an_evaluation_is_offered_without_weights(device: OneDevice) -> None:
    device.receive(plan("evaluate-initial", kind="evaluate", training=None))
    assert [offer.manifest for offer in device.told(Offer)] == [None]
    assert not any(isinstance(effect, SendChunks) for effect in device.effects)
    assert settled(device)


LOSSES: dict[str, tuple[str, int]] = {
    "the first wants": ("want", 3),
    "many chunks on the way down": ("chunk", 12),
    "the first offers": ("offer", 3),
    "the orchestrator's wants": ("Want", 3),
    "chunks on the way up": ("upload", 4),
    "the first receipts": ("Receipt", 2),
}


@pytest.mark.parametrize("case", LOSSES)
def test_what_gets_lost_is_said_again_and_the_work_is_done_once(device: OneDevice, case: str) -> None:
    kind, count = LOSSES[case]
    device.losing[kind] = count
    device.receive(plan())
    device.wait(300.0)
    assert device.losing[kind] == 0, "nothing was lost: this test shows nothing"
    assert device.started() == ["merged-0000"]
    assert settled(device)


def test_an_offer_nobody_answers_is_repeated_ever_more_rarely(device: OneDevice) -> None:
    device.losing["offer"] = 1000
    times: list[float] = []
    device.receive(plan())
    said = 0
    while device.now < 200.0:
        device.wait(0.5)
        times += [device.now] * (len(device.told(Offer)) - max(said, 1))
        said = len(device.told(Offer))
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert gaps[0] == pytest.approx(OFFER_REPEAT_S, abs=0.5)
    assert max(gaps) == pytest.approx(OFFER_REPEAT_MAX_S, abs=1.0)
    device.connect()
    assert len(device.told(Offer)) == said + 1, "a new connection is a reason to say it at once"


def test_a_plan_that_comes_twice_is_acknowledged_again_but_done_once(device: OneDevice) -> None:
    device.working = False
    for _ in range(3):
        device.receive(plan())
    assert len(device.told(Ack)) == 3, "the orchestrator repeats a plan because it did not hear"
    assert device.started() == ["merged-0000"]


def test_a_plan_whose_work_is_done_is_answered_with_the_offer(device: OneDevice) -> None:
    device.losing["offer"] = 1
    device.receive(plan())
    device.receive(plan())
    assert device.started() == ["merged-0000"]
    assert len(device.told(Offer)) == 2


def test_finished_rounds_that_nobody_takes_keep_new_plans_out_and_none_of_them_is_lost(device: OneDevice) -> None:
    device.losing["offer"] = 10**6
    names = [f"r-{number:03}" for number in range(MAX_ERRANDS + 3)]
    for name in names:
        device.receive(plan(name))
    assert device.started() == names[:MAX_ERRANDS]
    assert [refusal.round_id for refusal in device.told(Refusal)] == names[MAX_ERRANDS:]
    assert f"{MAX_ERRANDS} finished rounds that nobody has taken" in device.told(Refusal)[0].reason
    device.restart()
    device.losing["offer"] = 0
    device.effects.clear()
    device.connect()
    device.wait(2 * OFFER_REPEAT_MAX_S)
    assert {offer.round_id for offer in device.told(Offer)} == set(names[:MAX_ERRANDS])
    assert settled(device)
    device.receive(plan("r-later"))
    assert device.started() == ["r-later"]


def test_two_plans_are_carried_out_one_after_the_other_in_order(device: OneDevice) -> None:
    device.working = False
    device.receive(plan("r-1"))
    device.receive(plan("r-2"))
    assert device.started() == ["r-1"]
    device.do(device.agent.on_finished(1, REPORT, UPDATE, device.now))
    assert device.started() == ["r-1", "r-2"]
    device.do(device.agent.on_failed(2, "the battery is low"))
    assert [(refusal.round_id, refusal.reason) for refusal in device.told(Refusal)] == [("r-2", "the battery is low")]


def test_a_plan_that_has_everything_does_not_wait_for_one_that_is_still_fetching(device: OneDevice) -> None:
    for data in (GROUP_PROGRAM, GROUP_WEIGHTS):
        device.agent.store.put(data)
    device.losing["want"] = 2
    device.receive(plan("r-1"))
    device.receive(plan("r-2", program=small(GROUP_PROGRAM), weights=Weights(manifest=small(GROUP_WEIGHTS))))
    assert device.started() == ["r-2"]
    device.wait(60.0)
    assert device.started() == ["r-2", "r-1"]


def test_accepted_work_is_done_again_only_for_an_orchestrator_that_lost_it(device: OneDevice) -> None:
    device.receive(plan())
    device.wait(10.0)
    device.receive(plan())  # delivered late by the broker
    assert device.started() == ["merged-0000"]
    device.receive(replace(plan(), boot_id="a new life"))
    assert device.started() == ["merged-0000", "merged-0000"]


def test_a_restart_with_a_finished_round_offers_it_again_and_does_not_train_again(device: OneDevice) -> None:
    device.losing["offer"] = 1
    device.receive(plan())
    device.effects.clear()
    device.restart()
    device.connect()
    device.receive(plan())  # a late one
    device.wait(10.0)
    assert [word(effect) for effect in device.effects][:2] == ["Birth", "Offer"]
    assert device.started() == []
    assert settled(device)


def test_a_restart_in_the_middle_of_a_download_asks_only_for_what_is_missing(device: OneDevice) -> None:
    count = chunk_count(small(MERGED_WEIGHTS))
    device.agent.store.put(MERGED_PROGRAM)
    part = device.agent.store.partial(small(MERGED_WEIGHTS))
    for index in range(count - 2):
        part.write(index, MERGED_WEIGHTS[index * 1024 : (index + 1) * 1024])
    device.restart()
    device.receive(plan())
    assert device.asked_for(MERGED_WEIGHTS) == [count - 2, count - 1]
    assert device.asked_for(MERGED_PROGRAM) == []
    assert device.started() == ["merged-0000"]


def test_a_restart_between_the_last_chunk_and_its_name_asks_for_nothing(device: OneDevice) -> None:
    for data in (MERGED_PROGRAM, MERGED_WEIGHTS):
        part = device.agent.store.partial(small(data))
        for index in range(chunk_count(small(data))):
            part.write(index, data[index * 1024 : (index + 1) * 1024])
    device.restart()
    device.receive(plan())
    assert device.told(Want) == []
    assert not any(isinstance(effect, Listen) for effect in device.effects)
    assert device.started() == ["merged-0000"]


def test_a_new_connection_asks_at_once_for_what_is_still_missing(device: OneDevice) -> None:
    device.losing["want"] = 2
    device.receive(plan())
    device.connect()
    assert device.started() == ["merged-0000"]
    assert all(not want.broadcast for want in device.told(Want)[2:]), "the broadcast is over by now"


def test_a_birth_is_sent_whenever_the_orchestrator_asks(device: OneDevice) -> None:
    device.connect()
    device.receive(Rebirth(**ORCHESTRATOR))
    first, second = device.told(Birth)
    assert (first.boot_id, second.boot_id) == (device.agent.boot_id,) * 2
    assert second.seq > first.seq


STOPS: dict[str, tuple[Callable[[OneDevice], None], list[int]]] = {
    "while it fetches": (lambda device: device.losing.update(want=1000), []),
    "while it works": (lambda device: setattr(device, "working", False), [1]),
    "while it offers": (lambda device: device.losing.update(offer=1000), []),
}


@pytest.mark.parametrize("case", STOPS)
def test_a_cancelled_round_is_forgotten(device: OneDevice, case: str) -> None:
    prepare, interrupted = STOPS[case]
    prepare(device)
    device.receive(plan())
    assert not settled(device)
    device.receive(Cancel(**ORCHESTRATOR, job="j-1", round_id="merged-0000", reason="deadline"))
    assert device.interrupted() == interrupted
    assert device.listening() == set()
    assert settled(device)
    done = len(device.effects)
    if interrupted:  # the work that was under way may still finish
        device.do(device.agent.on_finished(1, REPORT, UPDATE, device.now))
    device.wait(60.0)
    assert len(device.effects) == done


def test_a_deadline_that_passes_ends_the_round_without_a_word(device: OneDevice) -> None:
    device.working = False
    device.receive(plan("r-1", deadline_s=10.0))
    device.receive(plan("r-2", deadline_s=50.0))
    assert device.agent.next_poll == 10.0
    device.wait(11.0)
    assert device.interrupted() == [1]
    assert device.started() == ["r-1", "r-2"], "the next one takes its place"
    assert not device.told(Offer) + device.told(Refusal)


def test_only_its_own_receipt_ends_an_offer(device: OneDevice) -> None:
    device.losing["offer"] = 1000
    device.receive(plan())
    for job, round_id in (("j-0", "merged-0000"), ("j-1", "merged-0001")):
        device.receive(Receipt(**ORCHESTRATOR, job=job, round_id=round_id, verdict="accepted"))
        device.receive(Cancel(**ORCHESTRATOR, job=job, round_id=round_id, reason="over"))
    assert not settled(device)
    device.receive(Receipt(**ORCHESTRATOR, job="j-1", round_id="merged-0000", verdict="invalid", reason="NaN"))
    assert settled(device)


def test_a_cancel_of_another_run_does_not_stop_the_work(device: OneDevice) -> None:
    device.working = False
    device.receive(plan())
    device.receive(Cancel(**ORCHESTRATOR, job="j-0", round_id="merged-0000", reason="over"))
    assert device.interrupted() == []
    device.do(device.agent.on_finished(1, REPORT, UPDATE, device.now))
    assert len(device.told(Offer)) == 1


def test_an_offer_is_not_repeated_while_its_chunks_are_being_fetched(device: OneDevice) -> None:
    device.losing["offer"] = 1
    device.receive(plan())
    (offer,) = device.told(Offer)
    assert offer.manifest is not None
    want = Want(**ORCHESTRATOR, artifact=offer.manifest.artifact, ranges=[(0, 1)])
    for now in (0.9, 1.8, 2.7, 3.6):
        device.effects += device.agent.on_message(want, now * OFFER_REPEAT_S)
        device.effects += device.agent.poll(now * OFFER_REPEAT_S)
    assert len(device.told(Offer)) == 1


def test_one_commit_follows_the_last_of_the_chunks_and_none_the_others(device: OneDevice) -> None:
    device.losing["offer"] = 1
    device.receive(plan())
    (offer,) = device.told(Offer)
    assert offer.manifest is not None
    count = chunk_count(offer.manifest)
    assert count > 2
    answers = [
        device.agent.on_message(Want(**ORCHESTRATOR, artifact=offer.manifest.artifact, ranges=ranges), device.now)
        for ranges in ([(0, 1)], [(0, 2)], [(0, 1), (2, count)])
    ]
    assert [[word(effect) for effect in answer] for answer in answers] == [
        ["SendChunks"], ["SendChunks"], ["SendChunks", "Commit"],
    ]  # fmt: skip
    said = answers[-1][-1]
    assert isinstance(said, Tell)
    assert said.after_chunks
    assert isinstance(said.message, Commit)
    assert said.message.round_id == "merged-0000"


def test_a_plan_that_the_owners_rules_forbid_is_refused_with_their_reason_and_nothing_is_fetched(
    device: OneDevice,
) -> None:
    forbidden = {"train": "its owner's rules: it is not charging"}
    device.agent.unwilling = lambda kind: forbidden.get(kind, "")
    device.receive(plan("r-1"))
    (refusal,) = device.told(Refusal)
    assert (refusal.round_id, refusal.reason) == ("r-1", "its owner's rules: it is not charging")
    assert not device.told(Want) + device.told(Offer)
    device.receive(plan("r-2", kind="evaluate"))
    assert device.started() == ["r-2"]
    forbidden.clear()
    device.receive(plan("r-1"))
    assert device.started() == ["r-2", "r-1"]
