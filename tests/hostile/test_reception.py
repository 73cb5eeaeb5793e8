"""Any bytes on any topic: the orchestrator goes on, and counts what honest devices send."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.orchestrator.limits import Limits
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import Offer, Receipt, Refusal, Status, Want, encode
from mas_edge.protocol.weights import pack
from tests.hostile.front import ROUND, TOPICS, Front, birth, front_in
from tests.hostile.make_corpus import FILES
from tests.hostile.readers import snapshot
from tests.hostile.sound import SOUND
from tests.hostile.strategies import damaged, messages, spoiled
from tests.orchestrator.small_run import LAYOUT, numbers, offer

UPDATE = pack(LAYOUT, numbers(seed=5))
MANIFEST = describe(UPDATE, 1024)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with front_in(tmp_path) as made:
        for device in ("pi-1", "pi-2"):
            made.be_born(device)
        yield made


OURS = [encode(birth("pi-1")), encode(offer("pi-1", manifest=MANIFEST)), encode(offer("pi-1"))]
PIECE = [encode_chunk(MANIFEST, 0, UPDATE[:1024])]
topics = st.sampled_from(
    [f"{TOPICS.root}/dev/{device}/{leaf}" for device in ("pi-1", "pi-1", "pi-9", "", "+", "..", "a/b", "é")
     for leaf in ("rsp", "up", "birth", "status", "", "x")] + ["", "x", TOPICS.root, TOPICS.orchestrator, "\0"]
)  # fmt: skip
payloads = st.one_of(
    messages(SOUND["from_device"]), messages(OURS), spoiled(OURS), damaged(PIECE), st.sampled_from(PIECE + OURS),
    st.sampled_from(list(FILES["from_device"].values())), st.sampled_from(list(FILES["chunk"].values())),
)  # fmt: skip


def test_whatever_arrives_an_honest_device_is_counted_once(front: Front) -> None:
    """All examples fall on one orchestrator: what one of them leaves behind must not harm what comes after it."""
    clock = iter(range(10**9))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(topics, payloads, st.booleans())
    def check(topic: str, payload: bytes, retained: bool) -> None:
        now = next(clock) / 1000.0
        front.arrive(topic, payload, now, retained=retained)
        front.reception.poll(now)
        front.desk.distribution.poll(now)

    check()
    later = 1e6  # whoever was too loud has been quiet since
    front.be_born("pi-2", later)
    front.upload("pi-2", seed=2, now=later)
    front.upload("pi-2", seed=2, now=later)
    assert [o.sender for o in front.store.accepted(ROUND)].count("pi-2") == 1


REPORTS = {
    "a batch of 4000 digits": FILES["from_device"]["a_batch_that_makes_the_round_s_record_unwritable"],
    "an affinity of 10,000 rows": FILES["from_device"]["an_affinity_of_10_000_rows"],
    "a manifest of an exabyte": FILES["from_device"]["a_manifest_of_an_exabyte"],
    "a manifest without chunks": FILES["from_device"]["a_manifest_without_chunks"],
    "a manifest that is a path": FILES["from_device"]["a_manifest_that_is_a_path"],
}


@pytest.mark.parametrize("case", REPORTS)
def test_a_report_is_refused_with_a_word_to_its_sender_and_nothing_on_the_disk(
    front: Front, tmp_path: Path, case: str
) -> None:
    before = snapshot(tmp_path / "artifacts")
    front.arrive(TOPICS.response("pi-1"), REPORTS[case].replace(b'"round_id": "r"', f'"round_id": "{ROUND}"'.encode()))
    receipts = [message for _, message in front.outbox.told if isinstance(message, Receipt)]
    assert [receipt.verdict for receipt in receipts] in (["invalid"], ["too_large"])
    assert snapshot(tmp_path / "artifacts") == before
    assert front.store.accepted(ROUND) == []


@pytest.mark.parametrize("case", FILES["weights"])
def test_an_update_that_is_a_hostile_file_is_refused_and_the_round_goes_on(front: Front, case: str) -> None:
    hostile = FILES["weights"][case]
    manifest = describe(hostile, 1024)
    front.arrive(TOPICS.response("pi-1"), encode(offer("pi-1", manifest=manifest)))
    for index, start in enumerate(range(0, len(hostile), 1024)):
        front.arrive(TOPICS.upload("pi-1"), encode_chunk(manifest, index, hostile[start : start + 1024]))
    [receipt] = [message for _, message in front.outbox.told if isinstance(message, Receipt)]
    assert receipt.verdict in ("invalid", "bad_digest")
    front.upload("pi-2", seed=2)
    assert [o.sender for o in front.store.accepted(ROUND)] == ["pi-2"]


def test_many_false_offers_leave_one_part_on_the_disk(front: Front, tmp_path: Path) -> None:
    for seed in range(20):
        manifest = describe(pack(LAYOUT, numbers(seed=100 + seed)), 1024)
        front.arrive(TOPICS.response("pi-1"), encode(offer("pi-1", manifest=manifest)), float(seed))
    assert len(list((tmp_path / "artifacts").glob("*.part"))) == 1


def test_what_a_device_says_of_itself_forges_no_line_of_the_log(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    forged = "bye\n2026-01-01 INFO merged-0000: complete\x1b[2J"
    said: dict[str, Any] = {"sender": "pi-1", "boot_id": "b", "seq": 1}
    caplog.set_level(logging.INFO)
    front.arrive(TOPICS.status("pi-1"), encode(Status(**said, online=False, reason=forged)))
    refusal = Refusal(**said, job="j-1", round_id=ROUND, reason=forged)
    front.arrive(TOPICS.response("pi-1"), encode(refusal))
    assert caplog.messages
    assert all(line.isprintable() for line in caplog.messages)
    assert front.desk.active[ROUND].machine.reasons()["pi-1"].isprintable()


def test_an_offer_whose_sequence_number_is_odd_is_counted_like_any_other(front: Front) -> None:
    made: Offer = replace(offer("pi-1", manifest=MANIFEST), seq=2**53)
    front.arrive(TOPICS.response("pi-1"), encode(made))
    front.arrive(TOPICS.upload("pi-1"), PIECE[0])
    assert front.store.accepted(ROUND) == [made]


# ---------------------------------------------------------------------- loud devices


def test_a_device_that_floods_is_mentioned_once_and_the_others_are_heard(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    for number in range(3 * Limits().messages_at_once):
        front.arrive(TOPICS.response("pi-1"), b"nonsense", number * 1e-6)
    about = [line for line in caplog.messages if "pi-1" in line]
    assert len(about) == Limits().lines_at_once + 1
    assert sum("says too much at once" in line for line in about) == 1
    front.upload("pi-2", seed=2)
    assert [o.sender for o in front.store.accepted(ROUND)] == ["pi-2"]


def test_a_device_that_was_loud_is_heard_again_when_it_has_been_quiet(front: Front) -> None:
    for _ in range(2 * Limits().messages_at_once):
        front.arrive(TOPICS.response("pi-1"), b"nonsense")
    front.upload("pi-1", seed=1)
    assert front.store.accepted(ROUND) == []
    front.upload("pi-1", seed=1, now=1.0)
    assert len(front.store.accepted(ROUND)) == 1


def test_an_artifact_is_not_sent_again_and_again(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    said: dict[str, Any] = {"sender": "pi-1", "boot_id": "b", "seq": 1}
    want = encode(Want(**said, artifact=front.program.artifact, ranges=[(0, 1)]))
    for _ in range(100):
        front.arrive(TOPICS.response("pi-1"), want)
    assert len(front.outbox.shipped) == Limits().resends
    assert sum("has to wait" in line for line in caplog.messages) == 1
    front.arrive(TOPICS.response("pi-1"), want, 2 * Limits().resend_s)
    assert len(front.outbox.shipped) == Limits().resends + 1


def test_refused_reports_end_in_a_last_word_and_stay_few_on_the_disk(front: Front, tmp_path: Path) -> None:
    for seed in range(20):
        made = offer("pi-1", manifest=describe(b"no weights, %d" % seed, 1024))
        assert made.manifest is not None
        front.arrive(TOPICS.response("pi-1"), encode(made))
        front.arrive(TOPICS.upload("pi-1"), encode_chunk(made.manifest, 0, b"no weights, %d" % seed))
    receipts = [message for _, message in front.outbox.told if isinstance(message, Receipt)]
    assert len(receipts) == 20
    assert receipts[-1].reason.startswith("too many reports")
    files = [path for path in (tmp_path / "artifacts").iterdir() if path.read_bytes().startswith(b"no weights")]
    assert len(files) == Limits().refused_reports


def test_births_without_end_are_not_all_written_down(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        front.arrive(TOPICS.birth("pi-1"), encode(birth("pi-1", boot_id=f"life {number}")), 1.0)
    assert front.reception.registry.births["pi-1"].boot_id == f"life {Limits().births_at_once - 2}"
    assert sum("born too often" in line for line in caplog.messages) == 1


def test_a_fleet_has_a_largest_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with front_in(tmp_path, Limits(devices=3)) as front:
        for number in range(10):
            front.be_born(f"pi-{number}")
        assert len(front.reception.registry.births) == 3
    assert sum("is ignored: 3 devices are known" in line for line in caplog.messages) == 1
