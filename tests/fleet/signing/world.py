"""A signing repository, a device that trusts it, and an attacker between them, all on one clock that a test sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from device_runtime.trust import anchor
from device_runtime.trust.verifier import RELEASED, Verifier
from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.keys import read_key, read_keys
from mas_edge.fleet.signing.publisher import Publisher
from mas_edge.fleet.signing.repository import Repository
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.messages import HealthCheck, Plan, SignedPlan
from mas_edge.protocol.signed import pack_metadata, targets_of, unpack_metadata
from tests.device_runtime.one_device import GROUP_PROGRAM, MERGED_PROGRAM, plan, small

DAY = 86400.0
BEGIN = RELEASED + 100 * DAY
FLEET, DEVICE = "home", "pi-1"
TRAIN = plan("merged-0001")
DEPLOY = plan(
    "deploy-0", kind="deploy", program=small(GROUP_PROGRAM), weights=None, training=None,
    health=HealthCheck(golden=small(MERGED_PROGRAM), tolerance=0.1, max_latency_s=1.0),
)  # fmt: skip

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)


class World:
    """``now`` is everybody's clock but the device's, which may be another (``device_clock``)."""

    def __init__(self, directory: Path, keyholders: int = 3, threshold: int = 2) -> None:
        self.directory = directory
        self.now = BEGIN
        self.device_clock: float | None = None
        self.offline = directory / "offline"
        self.repository = ceremony.create(
            directory / "signing", self.offline, keyholders, threshold, clock=lambda: self.now
        )
        self.publisher = self.start()
        self.seq = 0
        anchor.install(directory / "device", anchor.read_root(directory / "signing"))
        self.device = self.wake()

    # ------------------------------------------------------------------ the orchestrator

    def start(self) -> Publisher:
        """A new run of an orchestrator."""
        return Publisher(self.directory / "signing", lambda: self.now)

    def publish(self, *plans: Plan) -> dict[str, bytes]:
        """List what plans need; returns all metadata by file name."""
        for each in plans or (TRAIN, DEPLOY):
            self.publisher.list_targets(targets_of(each))
        self.publisher.list_targets({})
        return unpack_metadata(self.publisher.bundle)

    def seal(self, unsigned: Plan = TRAIN, receiver: str = DEVICE, fleet: str = FLEET, **changes: Any) -> SignedPlan:
        """The next plan as it is sent."""
        self.seq += 1
        return self.publisher.sign(fleet, receiver, replace(unsigned, seq=self.seq, **changes))

    def keyholders(self, *numbers: int) -> list[CryptoSigner]:
        """The keys of keyholders."""
        return [read_key(self.offline / f"keyholder-{number}.pem") for number in numbers]

    def approve(self) -> None:
        """All keyholders sign what is staged."""
        assert ceremony.approve(self.repository, read_keys(self.offline)) == ""

    def rotate(self) -> None:
        """New online keys, by the keyholders; the orchestrator starts again."""
        ceremony.rotate_online(self.repository)
        self.approve()
        self.publisher = self.start()

    # ------------------------------------------------------------------ the device

    def wake(self) -> Verifier:
        """The device's process starts (again) on the same disk."""

        def clock() -> float:
            return self.now if self.device_clock is None else self.device_clock

        self.device = Verifier(self.directory / "device" / "trust", FLEET, DEVICE, clock)
        return self.device

    def tell(self, files: Mapping[str, bytes] | None = None) -> None:
        """Metadata arrive at the device; without ``files`` the newest ones."""
        data = pack_metadata(self.publish() if files is None else files)
        self.device.learn(digest_of(data), data)

    # ------------------------------------------------------------------ the attacker

    def stolen(self, name: str) -> CryptoSigner:
        """An online key: ``models`` or ``freshness``."""
        return read_key(self.directory / "signing" / "online" / f"{name}.pem")

    def another(self) -> Repository:
        """A repository of the attacker's own."""
        return ceremony.create(self.directory / "evil", self.directory / "evil-keys", 1, 1, lambda: self.now)


def read(data: bytes, _kind: type[_S]) -> Metadata[_S]:
    """A file of metadata, to be changed."""
    return Metadata[_S].from_bytes(data)


def newest(files: Mapping[str, bytes], role: str) -> str:
    """The name of a role's newest file."""
    found = [name for name in files if name.endswith(f"{role}.json")]
    return max(found, key=lambda name: int(name.partition(".")[0]) if name[0].isdigit() else 0)


def forged(files: Mapping[str, bytes], *signed: tuple[str, Metadata[Any], CryptoSigner]) -> dict[str, bytes]:
    """``files`` with some in the place of the role's newest, each signed by one key and by no other."""
    found = dict(files)
    for role, metadata, signer in signed:
        metadata.signatures.clear()
        metadata.sign(signer)
        found.pop(newest(found, role), None) if role != "root" else None
        version = f"{metadata.signed.version}." if role != "timestamp" else ""
        found[f"{version}{role}.json"] = metadata.to_bytes()
    return found


def takes(world: World, signed: SignedPlan) -> bool:
    """Whether the device carries out what it is told."""
    return world.device.open(signed) is not None


def led_to(world: World, files: dict[str, bytes], **versions: int) -> dict[str, bytes]:
    """A snapshot and a timestamp that lead to these versions, signed by the stolen key of both."""
    snapshot, timestamp = read(files[newest(files, "snapshot")], Snapshot), read(files["timestamp.json"], Timestamp)
    for role, version in versions.items():
        snapshot.signed.meta[f"{role}.json"] = MetaFile(version)
    snapshot.signed.version += 1
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    key = world.stolen("freshness")
    return forged(files, ("snapshot", snapshot, key), ("timestamp", timestamp, key))


def signed_by(world: World, signer: CryptoSigner) -> SignedPlan:
    """A plan that somebody else has signed."""
    own, world.publisher._key = world.publisher._key, signer
    signed = world.seal()
    world.publisher._key = own
    return signed
