"""The attacks that TUF names, and a broker that is itself malicious, against one device.

In each case a device that takes plans is attacked; it must refuse, and go on with the true metadata afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface

from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.keys import read_key
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.signed import MAX_METADATA_BYTES, MAX_METADATA_FILES, unpack_metadata
from tests.device_runtime.one_device import small
from tests.fleet.signing.world import DAY, DEPLOY, TRAIN, World, forged, led_to, newest, read, signed_by, takes

EVIL = small(b"evil" * 1000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.tell()
    assert takes(made, made.seal())
    return made


# ---------------------------------------------------------------------- what is not listed, or by whom


def arbitrary_artifact(world: World) -> None:
    takes(world, world.seal(replace(TRAIN, program=EVIL)))


def arbitrary_model(world: World) -> None:
    takes(world, world.seal(replace(DEPLOY, program=EVIL)))


def arbitrary_golden_samples(world: World) -> None:
    assert DEPLOY.health is not None
    takes(world, world.seal(replace(DEPLOY, health=replace(DEPLOY.health, golden=EVIL))))


def model_of_another_group(world: World) -> None:
    world.publish(replace(DEPLOY, group="group-1", program=small(b"x" * 2000)))
    world.tell()
    takes(world, world.seal(replace(DEPLOY, group="group-1")))


def same_digest_another_size(world: World) -> None:
    takes(world, world.seal(replace(TRAIN, program=replace(TRAIN.program, size=TRAIN.program.size + 1))))


# ---------------------------------------------------------------------- old, or mixed


def rollback_of_everything(world: World) -> None:
    old = world.publish()
    world.publish(replace(TRAIN, job="later"))
    world.tell()
    world.tell(old)


def rollback_after_a_restart(world: World) -> None:
    old = world.publish()
    world.publish(replace(TRAIN, job="later"))
    world.tell()
    world.wake()
    world.tell(old)


def rollback_of_the_snapshot_with_a_stolen_key(world: World) -> None:
    old = world.publish()
    new = world.publish(replace(TRAIN, job="later"))
    world.tell(new)
    timestamp = read(new["timestamp.json"], Timestamp)
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta.version = read(old[newest(old, "snapshot")], Snapshot).signed.version
    world.tell(forged(old, ("timestamp", timestamp, world.stolen("freshness"))))


def rollback_of_the_models_with_a_stolen_key(world: World) -> None:
    old = world.publish()
    world.publish(replace(TRAIN, job="later"))
    world.tell()
    files = world.publish()
    version = read(old[newest(old, "models")], Targets).signed.version
    del files[newest(files, "models")]
    world.tell(led_to(world, {**files, f"{version}.models.json": old[f"{version}.models.json"]}, models=version))


def rollback_of_the_root(world: World) -> None:
    """The device has been told of new keys: plans and lists of the old ones come again."""
    old = world.publish()
    world.rotate()
    world.tell()
    world.tell(old)


def freeze(world: World) -> None:
    frozen = world.publish()
    signed = world.seal()
    world.now += 2 * DAY
    world.wake()
    with pytest.raises(EdgeError, match=r"expired|ended"):
        world.tell(frozen)
    takes(world, signed)


def freeze_of_a_device_that_does_not_sleep(world: World) -> None:
    signed = world.seal()
    world.now += 2 * DAY
    takes(world, signed)


def freeze_with_the_clock_turned_back(world: World) -> None:
    """The device knows of a root that is younger than what it is given: its own clock does not matter."""
    frozen = world.publish()
    world.now += 30 * DAY
    ceremony.renew(world.repository)
    world.approve()
    root = {name: data for name, data in world.publish().items() if "root" in name}
    world.device_clock = world.now - 30 * DAY
    world.tell({**frozen, **root})


def mix_of_a_new_snapshot_with_old_models(world: World) -> None:
    old = world.publish()
    new = world.publish(replace(TRAIN, job="later"))
    new[newest(new, "models")] = old[newest(old, "models")]
    world.tell(new)


def mix_of_a_new_timestamp_with_an_old_snapshot(world: World) -> None:
    old = world.publish()
    new = world.publish(replace(TRAIN, job="later"))
    new[newest(new, "snapshot")] = old[newest(old, "snapshot")]
    world.tell(new)


def mix_of_new_models_into_old_metadata(world: World) -> None:
    old = world.publish()
    new = world.publish(replace(TRAIN, job="later"))
    world.tell({**old, newest(old, "models"): new[newest(new, "models")]} | {"timestamp.json": old["timestamp.json"]})
    takes(world, world.seal(replace(TRAIN, job="later")))


# ---------------------------------------------------------------------- without end


def endless_bundle(world: World) -> None:
    world.tell({"timestamp.json": b'"' + b"x" * MAX_METADATA_BYTES + b'"'})


def endless_manifest(world: World) -> None:
    world.device.lacks(replace(world.seal(), metadata=describe(bytes(MAX_METADATA_BYTES + 1))))


def endless_timestamp(world: World) -> None:
    files = world.publish()
    world.tell({**files, "timestamp.json": files["timestamp.json"][:-1] + b" " * 100_000 + b"}"})


def endless_roots(world: World) -> None:
    """More roots than anybody's, each of its own making."""
    root = world.repository.root
    files = {}
    for version in range(2, MAX_METADATA_FILES + 2):
        root.signed.version = version
        files[f"{version}.root.json"] = root.to_bytes()
    world.tell({**world.publish(), **files})


class Endless(FetcherInterface):
    """A server that never ends."""

    def __init__(self) -> None:
        self.sent = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        while True:
            self.sent += 10_000
            yield b" " * 10_000


def endless_server(world: World) -> None:
    endless = Endless()
    try:
        world.device.learn_from("http://localhost/metadata/", endless)
    finally:
        assert endless.sent < 2 * MAX_METADATA_BYTES


# ---------------------------------------------------------------------- other keys


def wrong_key_of_everything(world: World) -> None:
    world.tell(unpack_metadata(world.another().bundle()))


def wrong_key_of_the_timestamp(world: World) -> None:
    evil = read_key(world.another().folder / "online" / "freshness.pem")
    timestamp = world.repository.timestamp
    timestamp.signed.version += 1
    world.tell(forged(world.publish(), ("timestamp", timestamp, evil)))


def wrong_key_of_the_models(world: World) -> None:
    evil = read_key(world.another().folder / "online" / "models.pem")
    files = world.publish()
    models = read(files[newest(files, "models")], Targets)
    models.signed.version += 1
    led = led_to(world, files, models=models.signed.version)
    world.tell(forged(led, ("models", models, evil)))


def wrong_key_of_the_plan(world: World) -> None:
    takes(world, signed_by(world, read_key(world.another().folder / "online" / "models.pem")))


def key_of_the_timestamp_on_a_plan(world: World) -> None:
    takes(world, signed_by(world, world.stolen("freshness")))


def no_signature_at_all(world: World) -> None:
    files = world.publish()
    models = read(files[newest(files, "models")], Targets)
    models.signed.version += 1
    models.signatures.clear()
    led = led_to(world, files, models=models.signed.version)
    world.tell({**led, f"{models.signed.version}.models.json": models.to_bytes()})


def one_keyholder_makes_a_root(world: World) -> None:
    """One of the two keys that it takes, and one of the attacker's own beside it."""
    evil = read_key(world.another().folder / "online" / "freshness.pem")
    root = read(world.publish()["1.root.json"], Root)
    root.signed.version = 2
    for role in root.signed.roles:
        root.signed.add_key(evil.public_key, role)
        root.signed.roles[role].threshold = 1
    [holder] = world.keyholders(1)
    root.signatures.clear()
    root.sign(holder)
    root.sign(evil, append=True)
    world.tell({**world.publish(), "2.root.json": root.to_bytes()})
    takes(world, signed_by(world, evil))


def one_keyholder_delegates_to_another_key(world: World) -> None:
    evil = read_key(world.another().folder / "online" / "models.pem")
    files = world.publish()
    targets = read(files[newest(files, "targets")], Targets)
    targets.signed.version += 1
    assert targets.signed.delegations is not None
    targets.signed.add_key(evil.public_key, "models")
    [holder] = world.keyholders(1)
    led = led_to(world, files, targets=targets.signed.version)
    world.tell(forged(led, ("targets", targets, holder)))


def one_keyholder_signs_twice(world: World) -> None:
    """The same key under two names is one key."""
    [holder] = world.keyholders(1)
    root = read(world.publish()["1.root.json"], Root)
    root.signed.version = 2
    root.sign(holder)
    signature = root.signatures[holder.public_key.keyid].to_dict()
    body = msgspec.json.decode(root.to_bytes())
    body["signatures"] = [signature, {**signature, "keyid": "f" * 64}]
    world.tell({**world.publish(), "2.root.json": msgspec.json.encode(body)})


def stolen_online_keys_after_they_were_replaced(world: World) -> None:
    models, freshness = world.stolen("models"), world.stolen("freshness")
    old = world.publish()
    world.rotate()
    world.tell()
    timestamp = read(old["timestamp.json"], Timestamp)
    timestamp.signed.version += 100
    with pytest.raises(EdgeError, match="refused"):
        world.tell(forged({**world.publish(), **old}, ("timestamp", timestamp, freshness)))
    takes(world, signed_by(world, models))


# ---------------------------------------------------------------------- a malicious broker


def plan_changed_on_its_way(world: World) -> None:
    signed = world.seal()
    takes(world, replace(signed, plan=msgspec.Raw(bytes(signed.plan).replace(b'"momentum":0.9', b'"momentum":0.0'))))


def number_changed_on_its_way(world: World) -> None:
    signed = world.seal()
    assert takes(world, signed)
    takes(world, replace(signed, seq=signed.seq + 1))


def plan_of_another_device(world: World) -> None:
    takes(world, world.seal(receiver="pi-2"))


def plan_of_another_device_with_its_name_changed(world: World) -> None:
    takes(world, replace(world.seal(receiver="pi-2"), receiver="pi-1"))


def plan_of_another_fleet(world: World) -> None:
    takes(world, world.seal(fleet="office"))


def signature_cut_short(world: World) -> None:
    takes(world, replace(world.seal(), signature=b"\0" * 63))


def something_else_that_was_signed(world: World) -> None:
    """A timestamp is signed as well, and is no plan."""
    signature = world.repository.models.signatures[world.stolen("models").public_key.keyid]
    takes(world, replace(world.seal(), signature=bytes.fromhex(signature.signature)))


ATTACKS: dict[str, tuple[Callable[[World], None], str]] = {
    "arbitrary artifact: a program": (arbitrary_artifact, "not listed"),
    "arbitrary artifact: a model": (arbitrary_model, "is listed as"),
    "arbitrary artifact: golden samples": (arbitrary_golden_samples, "is listed as"),
    "arbitrary artifact: another group's model": (model_of_another_group, "is listed as"),
    "arbitrary artifact: another size": (same_digest_another_size, "is listed as"),
    "rollback of everything": (rollback_of_everything, "version"),
    "rollback after a restart": (rollback_after_a_restart, "version"),
    "rollback of the snapshot, stolen key": (rollback_of_the_snapshot_with_a_stolen_key, "version"),
    "rollback of the models, stolen key": (rollback_of_the_models_with_a_stolen_key, "version"),
    "rollback of the root": (rollback_of_the_root, "refused"),
    "freeze": (freeze, "no valid signing metadata"),
    "freeze of a running device": (freeze_of_a_device_that_does_not_sleep, "ended on"),
    "freeze with the clock turned back": (freeze_with_the_clock_turned_back, "expired"),
    "mix-and-match: old models": (mix_of_a_new_snapshot_with_old_models, "Expected models"),
    "mix-and-match: an old snapshot": (mix_of_a_new_timestamp_with_an_old_snapshot, "Expected snapshot"),
    "mix-and-match: new models": (mix_of_new_models_into_old_metadata, "not listed"),
    "endless data: the artifact": (endless_bundle, "at most"),
    "endless data: its manifest": (endless_manifest, "at most"),
    "endless data: the timestamp": (endless_timestamp, "maximum allowed length"),
    "endless data: roots": (endless_roots, "files such as"),
    "endless data: a web server": (endless_server, "maximum allowed length"),
    "wrong key: everything": (wrong_key_of_everything, "refused"),
    "wrong key: timestamp": (wrong_key_of_the_timestamp, "timestamp was signed by 0/1"),
    "wrong key: models": (wrong_key_of_the_models, "models was signed by 0/1"),
    "wrong key: plan": (wrong_key_of_the_plan, "may not sign plans"),
    "wrong key: the timestamp's on a plan": (key_of_the_timestamp_on_a_plan, "may not sign plans"),
    "no signature": (no_signature_at_all, "models was signed by 0/1"),
    "below the threshold: a root": (one_keyholder_makes_a_root, "root was signed by 1/2"),
    "below the threshold: a delegation": (one_keyholder_delegates_to_another_key, "targets was signed by 1/2"),
    "below the threshold: one key twice": (one_keyholder_signs_twice, "root was signed by 1/2"),
    "stolen online keys after rotation": (stolen_online_keys_after_they_were_replaced, "may not sign plans"),
    "broker: plan changed": (plan_changed_on_its_way, "signature is wrong"),
    "broker: number changed": (number_changed_on_its_way, "signature is wrong"),
    "broker: another device's plan": (plan_of_another_device, "a plan for 'pi-2'"),
    "broker: another device's plan, renamed": (plan_of_another_device_with_its_name_changed, "signature is wrong"),
    "broker: another fleet's plan": (plan_of_another_fleet, "signature is wrong"),
    "broker: signature cut short": (signature_cut_short, "signature is wrong"),
    "broker: another thing's signature": (something_else_that_was_signed, "signature is wrong"),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_the_attack_is_refused_and_the_device_goes_on(world: World, case: str) -> None:
    attack, words = ATTACKS[case]
    with pytest.raises(EdgeError, match=words) as refused:
        attack(world)
    assert "\n" not in str(refused.value)
    world.publisher, world.device_clock = world.start(), None
    world.tell()
    assert takes(world, world.seal())
    world.wake()
    assert takes(world, world.seal(DEPLOY))
