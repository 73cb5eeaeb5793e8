"""A signing repository on disk, and what the orchestrator signs in it by itself.

    metadata/   N.root.json, N.targets.json, N.models.json, N.snapshot.json, timestamp.json: public; a web server may
                hand them out as they are. timestamp.json is written last: what it leads to is what holds
    online/     models.pem signs plans and the list of models, freshness.pem snapshot and timestamp: the orchestrator's
    offline/    keyholder-N.pem sign root and targets: to be taken away from this machine
    staged/     what waits for the signatures of more keyholders (see ``ceremony``)
    life        the number of the last run of an orchestrator

The lives of signatures: a device that is kept from hearing of anything newer believes what it has for at most as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError, StorageError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from device_runtime.edge.lock import lock_directory
from mas_edge.fleet.folder import write_private
from mas_edge.fleet.signing.keys import read_key
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.signed import ISSUED, MODELS, pack_metadata

LIVES: Mapping[str, timedelta] = {
    "timestamp": timedelta(days=1),  # how long a frozen device goes on with old plans and models
    "snapshot": timedelta(days=7),
    MODELS: timedelta(days=30),
}
# Signed anew at half of its life: an orchestrator that stands still for the other half locks nobody out.
RENEWED_WITH = 0.5
# Runs whose programs and models stay listed: devices fetch the list with every change, and it grows by 4 KB a run.
KEPT_RUNS = 8

ONLINE = ("models", "freshness")  # keys

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)


class Repository:
    """The repository in ``folder``; ``clock`` gives seconds since 1970. Several processes may use one.

    Raises:
        ServerError: there is none, or its files cannot be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        if not self.versions("root"):
            message = f"there is no signing repository in {folder}; make one: mas-edge sign init {folder}"
            raise ServerError(message)

    # ------------------------------------------------------------------ what holds

    @property
    def now(self) -> datetime:
        """By the clock of this repository."""
        return datetime.fromtimestamp(self.clock(), tz=timezone.utc).replace(microsecond=0)

    def versions(self, role: str) -> list[int]:
        """The versions of a role's files, ascending."""
        return sorted(int(path.name.partition(".")[0]) for path in self.file("").glob(f"[1-9]*.{role}.json"))

    def file(self, name: str) -> Path:
        """A file of metadata."""
        return self.folder / "metadata" / name

    @property
    def root(self) -> Metadata[Root]:
        """The newest root."""
        return self.read(f"{self.versions('root')[-1]}.root.json", Root)

    @property
    def timestamp(self) -> Metadata[Timestamp]:
        """The timestamp."""
        return self.read("timestamp.json", Timestamp)

    @property
    def snapshot(self) -> Metadata[Snapshot]:
        """The snapshot that the timestamp leads to."""
        return self.read(f"{self.timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)

    @property
    def targets(self) -> Metadata[Targets]:
        """The list of the keyholders, which delegates to the orchestrator's."""
        return self.read(self._listed("targets"), Targets)

    @property
    def models(self) -> Metadata[Targets]:
        """The orchestrator's list."""
        return self.read(self._listed(MODELS), Targets)

    def bundle(self) -> bytes:
        """All that a device needs beside its first root, as one artifact."""
        snapshot = f"{self.timestamp.signed.snapshot_meta.version}.snapshot.json"
        names = [f"{version}.root.json" for version in self.versions("root")]
        names += ["timestamp.json", snapshot, self._listed("targets"), self._listed(MODELS)]
        return pack_metadata({name: self._bytes(name) for name in names})

    def read(self, name: str, kind: type[_S]) -> Metadata[_S]:
        """A file of metadata. Raises ServerError if it cannot be used."""
        try:
            found = Metadata[_S].from_bytes(self._bytes(name))
        except (DeserializationError, RepositoryError, StorageError) as error:
            message = f"{self.file(name)} is damaged: {error}; restore {self.folder} from a copy"
            raise ServerError(message) from None
        if not isinstance(found.signed, kind):
            message = f"{self.file(name)} holds {found.signed.type}; restore {self.folder} from a copy"
            raise ServerError(message)
        return found

    def _listed(self, role: str) -> str:
        return f"{self.snapshot.signed.meta[f'{role}.json'].version}.{role}.json"

    def _bytes(self, name: str) -> bytes:
        try:
            return self.file(name).read_bytes()
        except OSError as error:
            message = f"{self.file(name)} cannot be read: {error.strerror}; restore {self.folder} from a copy"
            raise ServerError(message) from None

    # ------------------------------------------------------------------ what is signed day by day

    def online_key(self, name: str) -> CryptoSigner:
        """``models`` or ``freshness``. Raises ServerError if it is lost or damaged."""
        path = self.folder / "online" / f"{name}.pem"
        try:
            return read_key(path)
        except ServerError as error:
            why = error if path.exists() else f"the online key {path} is lost"
            message = f"{why}: mas-edge sign rotate {self.folder} makes new ones"
            raise ServerError(message) from None

    @property
    def lost_keys(self) -> list[str]:
        """The online keys, by name, with which nothing can be signed that devices believe."""
        return self.unusable_keys(self.root.signed, self.targets.signed)

    def unusable_keys(self, root: Root, targets: Targets) -> list[str]:
        """Those that are missing, damaged, or others than these metadata name, as after a restored copy of old ones."""
        roles = targets.delegations.roles if targets.delegations else None
        named = {
            "models": roles[MODELS].keyids if roles and MODELS in roles else [],
            "freshness": root.roles["timestamp"].keyids,
        }
        return [name for name in ONLINE if not self._is_usable(name, named[name])]

    def _is_usable(self, name: str, keyids: list[str]) -> bool:
        try:
            return self.online_key(name).public_key.keyid in keyids
        except ServerError:
            return False

    def require_online_keys(self) -> None:
        """Raise ServerError if one is not to be used: what it would sign, no device would believe."""
        if lost := self.lost_keys:
            which = " and ".join(f"{self.folder / 'online' / name}.pem" for name in lost)
            message = (
                f"online keys are lost, damaged or not those that devices know: {which}; restore them from a copy, "
                f"or make new ones: mas-edge sign rotate {self.folder}"
            )
            raise ServerError(message)

    def publish(self, targets: Mapping[str, tuple[str, int]]) -> None:
        """List ``targets``, (sha256, bytes) by name, beside what is listed; runs of long ago leave the list."""
        models, since = self.models, {"custom": {"since": int(self.now.timestamp())}}
        for name, (digest, size) in targets.items():
            models.signed.targets[name] = TargetFile(size, {"sha256": digest}, name, dict(since))
        _forget_runs(models.signed)
        self.sign_list(models)

    def lists(self, targets: Mapping[str, tuple[str, int]]) -> bool:
        """Whether ``targets`` are in the list as they are here."""
        listed = self.models.signed.targets
        return all(
            name in listed and (listed[name].hashes.get("sha256"), listed[name].length) == described
            for name, described in targets.items()
        )

    def renew(self) -> bool:
        """Sign again what is past half of its life; returns whether anything was."""
        timestamp = self.timestamp
        if self.is_fresh(self.models.signed, MODELS) and self.is_fresh(self.snapshot.signed, "snapshot"):
            if self.is_fresh(timestamp.signed, "timestamp"):
                return False
            self._sign_timestamp(timestamp)
        else:
            self.sign_list(self.models)
        return True

    def is_fresh(self, signed: Root | Timestamp | Snapshot | Targets, role: str) -> bool:
        """Whether less than half of its life is over."""
        return signed.expires - self.now > LIVES[role] * RENEWED_WITH

    def sign_list(self, models: Metadata[Targets], targets_version: int = 0) -> None:
        """Sign a list as the next one, and what leads to it; ``targets_version``: that of a new list of keyholders."""
        models.signed.version += 1
        models.signed.expires = self.now + LIVES[MODELS]
        models.sign(self.online_key("models"))
        self.write(f"{models.signed.version}.{MODELS}.json", models.to_bytes())
        snapshot = self.snapshot
        snapshot.signed.version += 1
        snapshot.signed.expires = self.now + LIVES["snapshot"]
        snapshot.signed.meta[f"{MODELS}.json"] = MetaFile(models.signed.version)
        if targets_version:
            snapshot.signed.meta["targets.json"] = MetaFile(targets_version)
        snapshot.sign(self.online_key("freshness"))
        self.write(f"{snapshot.signed.version}.snapshot.json", snapshot.to_bytes())
        timestamp = self.timestamp
        timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        self._sign_timestamp(timestamp)

    def _sign_timestamp(self, timestamp: Metadata[Timestamp]) -> None:
        timestamp.signed.version += 1
        timestamp.signed.expires = self.now + LIVES["timestamp"]
        timestamp.signed.unrecognized_fields[ISSUED] = int(self.now.timestamp())
        timestamp.sign(self.online_key("freshness"))
        self.write("timestamp.json", timestamp.to_bytes())
        self._tidy()

    def write(self, name: str, data: bytes) -> None:
        """Write a file of metadata, whole or not at all."""
        write_private(self.file(name), data)
        self.file(name).chmod(0o644)  # for a web server, which is another user

    def _tidy(self) -> None:
        """Remove lists that nobody is led to any more but the last before: a device may be in the middle of it."""
        for role, current in (("snapshot", self.snapshot.signed.version), (MODELS, self.models.signed.version)):
            for version in self.versions(role):
                if version < current - 1:
                    self.file(f"{version}.{role}.json").unlink(missing_ok=True)

    def begin_life(self) -> int:
        """The number of a new run of an orchestrator: greater than every one before, also after a loss of the file."""
        with self.locked():
            path = self.folder / "life"
            try:
                last = int(path.read_text()) if path.exists() else 0
            except (OSError, ValueError):
                last = 0
            life = max(last + 1, int(self.clock()))  # the clock: for a repository that was restored from a copy
            write_private(path, f"{life}\n".encode())
        return life

    def locked(self) -> _Lock:
        """Keep the repository to this process as long as the ``with`` block lasts."""
        return _Lock(self.folder)


class _Lock:
    """Waits for its turn: signing takes milliseconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        patience = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                self._file = lock_directory(self._folder)
            except BlockingIOError:
                if time.monotonic() > patience:
                    message = f"another process has been signing in {self._folder} for long; stop it"
                    raise ServerError(message) from None
                time.sleep(LOCK_PAUSE_S)
            except OSError as error:
                message = f"the signing repository {self._folder} cannot be used: {error.strerror}; check its rights"
                raise ServerError(message) from None
            else:
                return

    def __exit__(self, *_: object) -> None:
        self._file.close()


LOCK_PATIENCE_S = 10.0  # a thousand times what signing takes
LOCK_PAUSE_S = 0.02


def _forget_runs(models: Targets) -> None:
    newest_first = sorted(models.targets.items(), key=lambda each: each[1].custom["since"], reverse=True)
    runs = list(dict.fromkeys(name.split("/")[1] for name, _ in newest_first))
    for name in [name for name in models.targets if name.split("/")[1] in runs[KEPT_RUNS:]]:
        del models.targets[name]
