"""The places of one group's deployed model: the one in use, one on trial beside it, the last good one before it.

    active.SUFFIX   the model in use: what other programs on this device open
    trial.SUFFIX    a model that has not passed its health check
    good.SUFFIX     the one that was in use before: where a rollback leads
    slots.json      which digest belongs in which place, and which digests are never tried again

``slots.json`` is the truth, and replaced in one rename; the files follow it. A file is given a place by a hard link
that is renamed over the old one, so that the model in use is there, whole, at every moment. Whatever is killed in
between, ``recover`` tells the files by their digests and brings them in line; what the disk has damaged has no place.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import msgspec

from device_runtime.edge.files import disk, hash_file, sync, temporary_of, write_whole
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.models import ENGINE_OF

log = logging.getLogger(__name__)

# A first start may have been ended by something else, such as a power cut; it is not by chance that two were.
MAX_STARTS = 2
# Digests that are never tried again, with their reasons; a model is refused about once a run of a job.
MAX_REFUSED = 64
RECORD = "slots.json"


class Held(msgspec.Struct, frozen=True):
    """A model that passed its health check."""

    digest: str
    suffix: str


class Trial(msgspec.Struct, frozen=True):
    """A model that is to pass; ``starts``: how often it was begun to be used, without an answer so far."""

    digest: str
    suffix: str
    starts: int = 0


class Record(msgspec.Struct, frozen=True):
    """``slots.json``."""

    active: Held | None = None
    good: Held | None = None
    trial: Trial | None = None
    refused: dict[str, str] = {}  # why, by digest; the oldest first


class Slots:
    """The places of one group's model in ``directory``, which is made when it is first needed.

    Raises:
        DeviceError: from every method that writes: the disk is full or not writable.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = False  # whether the file says what ``_record`` does
        self._record = self._read()

    @property
    def active(self) -> Path | None:
        """The model in use; None if none ever passed."""
        held = self._record.active
        return self._place("active", held.suffix) if held else None

    @property
    def digest(self) -> str:
        """That of the model in use; empty if there is none."""
        return self._record.active.digest if self._record.active else ""

    @property
    def good(self) -> str:
        """The digest of the model that a rollback leads to; empty if there is none."""
        return self._record.good.digest if self._record.good else ""

    def refusal(self, digest: str) -> str:
        """Why a model is never tried again; empty if it may be."""
        return self._record.refused.get(digest, "")

    # ------------------------------------------------------------------ the way of a model

    def put_on_trial(self, source: Path, suffix: str, digest: str) -> Path:
        """Copy a model beside the one in use; return where it is now. Its starts are counted over all its trials."""
        trial, before = self._place("trial", suffix), self._record.trial
        starts = before.starts if before and before.digest == digest else 0
        with disk("put a model on trial in", self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            for old in self._directory.glob("trial.*"):
                old.unlink()
            shutil.copyfile(source, trial)
        sync(trial)
        self._write(msgspec.structs.replace(self._record, trial=Trial(digest, suffix, starts)))
        return trial

    def begin(self) -> bool:
        """Count a start of the model on trial, before it is used; False: it was started too often, and is refused."""
        trial = self._trial()
        if trial.starts >= MAX_STARTS:
            self.refuse(trial.digest, f"it was started {trial.starts} times, and each time the device did not survive")
            return False
        self._write(
            msgspec.structs.replace(self._record, trial=msgspec.structs.replace(trial, starts=trial.starts + 1))
        )
        return True

    def commit(self) -> None:
        """The model on trial has passed: it is in use from now on, and the one before it is the last good one.

        Raises:
            DeviceError: the disk has damaged it meanwhile; nothing has changed.
        """
        trial = self._trial()
        path = self._place("trial", trial.suffix)
        if _digest_of(path) != trial.digest:
            message = f"the model {trial.digest[:12]} was damaged on its way into its slot; check the card or disk"
            raise DeviceError(message)
        before = self._record.active
        intact = before is not None and _digest_of(self._place("active", before.suffix)) == before.digest
        good = before if intact else self._record.good
        self._write(
            msgspec.structs.replace(self._record, active=Held(trial.digest, trial.suffix), good=good, trial=None)
        )
        self._arrange()

    def refuse(self, digest: str, reason: str) -> None:
        """Never try this model again."""
        others = {each: why for each, why in self._record.refused.items() if each != digest}
        newest = list(others.items())[-(MAX_REFUSED - 1) :]
        trial = self._record.trial
        kept = trial if trial and trial.digest != digest else None
        self._write(msgspec.structs.replace(self._record, trial=kept, refused={**dict(newest), digest: reason}))
        self._arrange()

    def withdraw_trial(self) -> None:
        """End the trial without a verdict on the model: it may be tried again."""
        self._write(msgspec.structs.replace(self._record, trial=None))
        self._arrange()

    def roll_back(self) -> bool:
        """Go back to the last good model; False: there is none, and the model in use stays."""
        if self._record.good is None:
            return False
        self._write(msgspec.structs.replace(self._record, active=self._record.good, good=None))
        self._arrange()
        return True

    # ------------------------------------------------------------------ after a power cut

    def recover(self) -> None:
        """Bring the files in line with the record, whatever a power cut or the disk has left of them."""
        if not self._directory.is_dir():
            return
        self._arrange()

    def _arrange(self) -> None:
        """The order matters: no content that has a place may lose its last name."""
        with disk("arrange the models in", self._directory):
            files = self._files()
            record = _possible(self._record, files, self._directory)
            self._write(record)
            if record.active:
                held = self._held(files[record.active.digest], self._place("active", record.active.suffix))
            if record.good:
                self._put(files[record.good.digest], self._place("good", record.good.suffix))
            if record.active and held:
                held.replace(self._place("active", record.active.suffix))
            sync(self._directory / RECORD)  # and with it the names beside it
            self._tidy(record)

    def _files(self) -> dict[str, list[Path]]:
        """Where each digest is."""
        found: dict[str, list[Path]] = {}
        for role in ("active", "good", "trial"):
            for path in (self._place(role, suffix) for suffix in ENGINE_OF):
                if digest := _digest_of(path):
                    found.setdefault(digest, []).append(path)
        return found

    def _put(self, there: list[Path], place: Path) -> None:
        if held := self._held(there, place):
            held.replace(place)

    def _held(self, there: list[Path], place: Path) -> Path | None:
        """Another name for what is to be at ``place``, from which one rename brings it there; None if it is there."""
        if place in there:
            return None
        name = temporary_of(place)
        name.unlink(missing_ok=True)
        try:
            os.link(there[0], name)
        except OSError:  # FAT has no links
            shutil.copyfile(there[0], name)
            sync(name)
        return name

    def _tidy(self, record: Record) -> None:
        places = (("active", record.active), ("good", record.good), ("trial", record.trial))
        kept = {self._place(role, each.suffix) for role, each in places if each}
        for path in self._directory.iterdir():
            if path not in kept and path.name != RECORD:
                path.unlink()

    # ------------------------------------------------------------------ the record

    def _read(self) -> Record:
        path = self._directory / RECORD
        with disk("read", path):
            data = path.read_bytes() if path.exists() else b""
        try:
            if data:
                record = msgspec.json.decode(data, type=Record)
                self._written = True
                return record
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s is damaged and begins anew with the model that is there: %s", path, error)
        return self._adopted()

    def _adopted(self) -> Record:
        """What can be said of files without a record: a model in use is one, and so is the last good one."""
        for role in ("active", "good"):
            there = [path for suffix in ENGINE_OF if (path := self._place(role, suffix)).is_file()]
            if there:
                newest = max(there, key=lambda path: path.stat().st_mtime_ns)
                return Record(active=Held(_digest_of(newest), newest.suffix[1:]))
        return Record()

    def _write(self, record: Record) -> None:
        if record != self._record or not self._written:
            write_whole(self._directory / RECORD, msgspec.json.encode(record))
            self._record, self._written = record, True

    def _trial(self) -> Trial:
        if self._record.trial is None:
            message = f"no model is on trial in {self._directory}"
            raise DeviceError(message)
        return self._record.trial

    def _place(self, role: str, suffix: str) -> Path:
        return self._directory / f"{role}.{suffix}"


def models_in_use(deployed: Path) -> dict[str, str]:
    """By group, the digest of the model in use; what a power cut left behind is put in order first.

    Raises:
        DeviceError: the disk is full or not writable.
    """
    found = {}
    for directory in sorted(deployed.iterdir()) if deployed.is_dir() else []:
        slots = Slots(directory)
        slots.recover()
        if slots.digest:
            found[directory.name] = slots.digest
    return found


def _possible(record: Record, files: dict[str, list[Path]], directory: Path) -> Record:
    """The record as far as there are files for it: what the disk has lost is not good any more."""
    good = record.good if record.good and record.good.digest in files else None
    if record.active is None or record.active.digest in files:
        return msgspec.structs.replace(record, good=good)
    log.warning(
        "%s: the model in use was damaged on disk; %s", directory,
        f"back to {good.digest[:12]}" if good else "there is no other, it has to be received again",
    )  # fmt: skip
    return msgspec.structs.replace(record, active=good, good=None)


def _digest_of(path: Path) -> str:
    """The sha256 of a file; empty if it is not there, or the storage has lost it.

    Raises:
        DeviceError: it cannot be read for a reason that may pass: nothing may be concluded from that.
    """
    with disk("read", path):
        try:
            return hash_file(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EIO):
                return ""
            raise
