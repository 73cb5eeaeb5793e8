"""An agent that takes signed plans only: what it fetches first, and what it answers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from device_runtime.trust.seals import MAX_WAITING, SIGNED_ONLY, Seals
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Ack, Manifest, Offer, Plan, Refusal, SignedPlan, Want, encode
from tests.device_runtime.one_device import MERGED_PROGRAM, MERGED_WEIGHTS, OneDevice, small
from tests.fleet.signing.world import TRAIN, World

GARBAGE = b"{}" * 1500


class Trusting(OneDevice):
    """A device with the root of a world, and an orchestrator that hands out the world's metadata."""

    def __init__(self, world: World) -> None:
        self.world = world
        super().__init__(world.directory / "agent")

    def restart(self) -> None:
        super().restart()
        self.agent.seals = Seals(self.world.wake())

    def offered(self) -> Manifest:
        """The newest metadata, in chunks of the smallest size."""
        self.world.publish()
        return self.handed_out(self.world.publisher.bundle)

    def handed_out(self, data: bytes) -> Manifest:
        self.holds[small(data).artifact] = data
        return small(data)

    def signed(self, round_id: str = "merged-0001", metadata: Manifest | None = None, **changes: str) -> SignedPlan:
        sealed = self.world.seal(replace(TRAIN, round_id=round_id, **changes))
        return replace(sealed, metadata=metadata or self.offered())

    def wanted(self) -> list[str]:
        return list(dict.fromkeys(want.artifact for want in self.told(Want)))


@pytest.fixture
def device(tmp_path: Path) -> Trusting:
    return Trusting(World(tmp_path))


PROGRAM, WEIGHTS = small(MERGED_PROGRAM).artifact, small(MERGED_WEIGHTS).artifact


def test_the_metadata_are_fetched_before_anything_that_a_plan_names(device: Trusting) -> None:
    signed = device.signed()
    device.receive(signed)
    assert signed.metadata is not None
    assert device.wanted() == [signed.metadata.artifact, PROGRAM, WEIGHTS]
    assert device.started() == ["merged-0001"]
    assert len(device.told(Offer)) == 1


def test_metadata_that_are_known_are_not_fetched_again(device: Trusting) -> None:
    device.receive(device.signed())
    device.receive(device.signed("merged-0002"))
    device.restart()
    device.receive(device.signed("merged-0003"))
    assert len(device.wanted()) == 3
    assert device.started() == ["merged-0001", "merged-0002", "merged-0003"]


def test_a_bare_plan_is_refused_and_nothing_of_it_is_fetched(device: Trusting) -> None:
    device.receive(replace(TRAIN, round_id="merged-0009"))
    assert [(refusal.round_id, refusal.reason) for refusal in device.told(Refusal)] == [("merged-0009", SIGNED_ONLY)]
    assert device.wanted() == []


def test_a_device_without_a_root_takes_both_kinds(tmp_path: Path) -> None:
    device = Trusting(World(tmp_path))
    device.agent.seals = Seals()
    device.receive(device.signed("merged-0001"))
    device.receive(replace(TRAIN, round_id="merged-0002"))
    assert device.started() == ["merged-0001", "merged-0002"]
    assert device.wanted() == [PROGRAM, WEIGHTS]


def test_a_plan_that_is_not_for_us_is_refused_and_nothing_of_it_is_fetched(device: Trusting) -> None:
    metadata = device.offered()
    sealed = device.world.seal(TRAIN, receiver="pi-2")
    device.receive(replace(sealed, metadata=metadata))
    assert device.wanted() == [metadata.artifact]
    assert [refusal.reason for refusal in device.told(Refusal)] == ["a plan for 'pi-2' came to 'pi-1'"]


def test_a_forged_word_about_a_round_that_runs_does_not_disturb_it(device: Trusting) -> None:
    device.working = False
    device.receive(device.signed())
    device.receive(replace(TRAIN, deadline_s=0.0))
    forged = device.signed()
    device.receive(replace(forged, plan=msgspec.Raw(encode(replace(TRAIN, deadline_s=0.0)))))
    assert device.told(Refusal) == []
    assert device.started() == ["merged-0001"]
    assert device.interrupted() == []


def test_a_plan_said_twice_is_carried_out_once(device: Trusting) -> None:
    signed = device.signed()
    device.receive(signed)
    words = len(device.effects)
    device.receive(signed)
    assert len(device.effects) == words
    device.restart()
    device.receive(signed)
    assert device.started() == ["merged-0001"]


def test_spoiled_metadata_do_not_hold_up_a_plan_that_needs_none(device: Trusting) -> None:
    device.receive(device.signed())
    device.receive(device.signed("merged-0002", device.handed_out(GARBAGE)))
    assert device.started() == ["merged-0001", "merged-0002"]


def test_what_was_wrong_with_the_metadata_stands_in_the_refusal(device: Trusting) -> None:
    device.receive(device.signed(metadata=device.handed_out(GARBAGE)))
    (refusal,) = device.told(Refusal)
    assert "no valid signing metadata" in refusal.reason
    assert "does not decode" in refusal.reason


def test_metadata_larger_than_anybodys_are_not_fetched(device: Trusting) -> None:
    device.receive(device.signed(metadata=describe(bytes(2 * 1024**2))))
    assert device.wanted() == []
    assert "at most" in device.told(Refusal)[0].reason


def test_plans_of_several_groups_wait_together_and_for_the_newest_metadata(device: Trusting) -> None:
    device.losing["want"] = 1  # the first metadata do not come at once
    device.receive(device.signed("merged-0001"))
    device.world.publish(replace(TRAIN, job="j-2"))
    device.receive(device.signed("merged-0002"))
    device.wait(1.0)
    assert device.started() == ["merged-0001", "merged-0002"]
    assert device.listening() == set()


def test_no_more_plans_wait_than_a_device_can_hold(device: Trusting) -> None:
    device.losing["want"] = 1
    metadata = device.offered()
    for number in range(MAX_WAITING + 10):
        device.receive(device.signed(f"merged-{number:04}", metadata))
    device.wait(10.0)
    assert device.started() == [f"merged-{number:04}" for number in range(10, MAX_WAITING + 10)]


def test_metadata_on_the_way_stay_on_the_disk(device: Trusting) -> None:
    device.losing["want"] = 1
    signed = device.signed()
    device.receive(signed)
    assert signed.metadata is not None
    assert signed.metadata.artifact in device.agent.in_use()
    device.wait(10.0)
    assert device.started() == ["merged-0001"]


def test_a_plan_is_acknowledged_when_it_is_trusted_and_not_before(device: Trusting) -> None:
    device.losing["want"] = 1
    device.receive(device.signed())
    assert device.told(Ack) == []
    device.wait(10.0)
    assert [ack.round_id for ack in device.told(Ack)] == ["merged-0001"]


def test_two_rounds_of_words_that_are_no_plan_leave_the_agent_as_it_was(device: Trusting) -> None:
    device.receive(device.signed())
    for raw in (b"7", b"{}", b'{"job": "j-1", "round_id": "../x"}'):
        device.receive(replace(device.signed(), plan=msgspec.Raw(raw)))
    assert device.told(Refusal) == []
    device.receive(device.signed("merged-0002"))
    assert device.started() == ["merged-0001", "merged-0002"]
    assert isinstance(TRAIN, Plan)
