"""What a device goes on with that was attacked, or away: replays, fast-forward, withheld news, wrong clocks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec.structs import replace
from tuf.api.metadata import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from mas_edge.fleet.signing.keys import read_key
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import Plan, encode
from mas_edge.protocol.signed import ISSUED, targets_of
from tests.device_runtime.one_device import GROUP_PROGRAM, small
from tests.fleet.signing.world import DAY, TRAIN, World, forged, led_to, newest, read, signed_by, takes


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.tell()
    assert takes(made, made.seal())
    return made


def test_two_keyholders_can_do_what_one_cannot(world: World) -> None:
    """The threshold's other side: with two of three keys the same forged root is believed."""
    evil = world.another()
    freshness = read_key(evil.folder / "online" / "freshness.pem")
    root = read(world.publish()["1.root.json"], Root)
    root.signed.version = 2
    for role in ("timestamp", "snapshot"):
        root.signed.add_key(freshness.public_key, role)
    root.signatures.clear()
    for holder in world.keyholders(1, 3):
        root.sign(holder, append=True)
    timestamp = world.repository.timestamp
    timestamp.signed.version += 1
    files = forged(world.publish(), ("timestamp", timestamp, freshness))
    world.tell({**files, "2.root.json": root.to_bytes()})
    assert takes(world, world.seal())


def test_the_online_key_speaks_for_nothing_that_is_not_delegated_to_it(world: World) -> None:
    files = world.publish()
    models = read(files[newest(files, "models")], Targets)
    inside, outside = "models/a/b/program.1", ["runtime/agent.py", "models/a/b", "models/a/b/c/d", "models"]
    for name in (inside, *outside):
        models.signed.targets[name] = TargetFile(10, {"sha256": "ab" * 32}, name)
    models.signed.version += 1
    led = led_to(world, files, models=models.signed.version)
    world.tell(forged(led, ("models", models, world.stolen("models"))))
    client = world.device._trusted
    assert client is not None
    assert client.target(inside) == ("ab" * 32, 10)
    assert [client.target(name) for name in outside] == [None] * len(outside)


# ---------------------------------------------------------------------- replays


REPLAYS: dict[str, Callable[[World], object]] = {
    "at once": lambda world: None,
    "after a restart of the device": World.wake,
    "after a restart of the orchestrator": lambda world: setattr(world, "publisher", world.start()),
    "a day later": lambda world: setattr(world, "now", world.now + DAY / 3),
}


@pytest.mark.parametrize("case", REPLAYS)
def test_an_old_plan_said_again_is_not_carried_out(world: World, case: str) -> None:
    old, taken = world.seal(), world.seal()
    assert takes(world, taken)
    REPLAYS[case](world)
    assert not takes(world, taken)
    assert not takes(world, old), "it was overtaken"
    assert takes(world, world.seal())


def test_an_orchestrator_that_was_superseded_is_not_heard_any_more(world: World) -> None:
    first = world.publisher
    world.now += 1
    world.publisher = world.start()
    assert takes(world, world.seal())
    world.publisher = first
    world.seq += 1000
    assert not takes(world, world.seal())


# ---------------------------------------------------------------------- fast-forward


def test_new_online_keys_undo_a_fast_forward(world: World) -> None:
    """A thief of both online keys says the largest versions, a far time and the largest plan number."""
    files = world.publish()
    models, freshness = world.stolen("models"), world.stolen("freshness")
    listed, snapshot = read(files[newest(files, "models")], Targets), read(files[newest(files, "snapshot")], Snapshot)
    timestamp = read(files["timestamp.json"], Timestamp)
    listed.signed.version = snapshot.signed.version = timestamp.signed.version = 2**31 - 1
    snapshot.signed.meta["models.json"] = MetaFile(2**31 - 1)
    timestamp.signed.snapshot_meta = MetaFile(2**31 - 1)
    for each in (listed, snapshot, timestamp):
        each.signed.expires += timedelta(days=365 * 50)
    world.publisher._life = 2**62
    world.tell(
        forged(
            files, ("models", listed, models), ("snapshot", snapshot, freshness), ("timestamp", timestamp, freshness)
        )
    )
    assert takes(world, world.seal()), "the keys are the true ones"
    timestamp.signed.version += 1
    timestamp.signed.unrecognized_fields[ISSUED] += 365 * 50 * int(DAY)
    world.tell(
        forged(
            files, ("models", listed, models), ("snapshot", snapshot, freshness), ("timestamp", timestamp, freshness)
        )
    )
    with pytest.raises(EdgeError, match="ended on"):
        takes(world, world.seal())
    world.publisher = world.start()
    with pytest.raises(EdgeError, match="expired"):
        world.tell()

    world.rotate()
    world.tell()
    assert takes(world, world.seal())


# ---------------------------------------------------------------------- what the broker cannot spoil


def test_spoiled_metadata_do_not_keep_a_good_plan_from_being_taken(world: World) -> None:
    for files in ({}, {"timestamp.json": b"{}"}, dict.fromkeys(world.publish(), b"7")):
        with pytest.raises(EdgeError, match="refused"):
            world.tell(files)
        assert takes(world, world.seal())


def test_a_new_root_whose_metadata_are_withheld_ends_the_trust_in_the_old_keys(world: World) -> None:
    stolen = world.stolen("models")
    old = world.publish()
    world.rotate()
    root = world.publish()["2.root.json"]
    with pytest.raises(EdgeError, match="refused"):
        world.tell({**old, "2.root.json": root})
    for _ in range(2):
        with pytest.raises(EdgeError, match="no valid signing metadata"):
            takes(world, signed_by(world, stolen))
        world.wake()
    world.tell()
    assert takes(world, world.seal())


def test_a_device_whose_clock_lags_by_years_takes_plans_and_sees_what_has_expired(world: World) -> None:
    world.device_clock = 0.0
    world.wake()
    assert takes(world, world.seal())
    world.now += 400 * DAY  # longer than the root lasts
    world.publisher = world.start()
    world.tell()
    with pytest.raises(EdgeError, match="ended on"):
        takes(world, world.seal())


def test_a_device_whose_clock_runs_ahead_says_so(world: World) -> None:
    world.device_clock = world.now + 365 * DAY
    with pytest.raises(EdgeError, match="set this device's clock"):
        takes(world, world.seal())
    world.device_clock = None
    assert takes(world, world.seal())


def test_a_device_that_starts_with_its_clock_ahead_says_so_too_and_goes_on_when_it_is_set(world: World) -> None:
    world.device_clock = world.now + 366 * DAY
    world.wake()
    with pytest.raises(EdgeError, match=f"{datetime.fromtimestamp(world.device_clock, timezone.utc):%Y-%m-%d} .*clock"):
        takes(world, world.seal())
    world.device_clock = None
    world.tell()
    assert takes(world, world.seal())


def test_a_cheap_number_of_files_and_bytes_is_all_a_plan_costs(world: World) -> None:
    plan: Plan = replace(TRAIN, program=small(GROUP_PROGRAM))
    world.publish(plan)
    signed = world.seal(plan)
    more = len(encode(signed)) - len(encode(replace(plan, seq=world.seq)))
    assert more < 400  # a signature, a key's name, and who it is for
    assert targets_of(plan).keys() <= world.repository.models.signed.targets.keys()
