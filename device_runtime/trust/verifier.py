"""Opens signed plans: signed by a key that trusted metadata name, for this device, never said before.

The time that counts is the latest of: what the system says, when this version was written, when the trusted root was
signed, and when the newest timestamp was signed. A device without a clock thus still sees what has expired, and no
time server can turn it back. Signed times alone move it on: a clock that was once in 2036 locks nothing. The last of
them counts only as long as the timestamp's keys are the same, so that stolen ones cannot set it for ever.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signature
from tuf.api.metadata import Root
from tuf.ngclient import FetcherInterface

from device_runtime.trust.anchor import ROOT
from device_runtime.trust.client import Client, check_root, issued_of, root_version
from device_runtime.trust.fetchers import FilesFetcher, HttpFetcher
from device_runtime.trust.memory import Memory
from mas_edge.protocol.artifact import check_manifest
from mas_edge.protocol.errors import DeviceError, EdgeError, TrustError
from mas_edge.protocol.messages import Manifest, Plan, SignedPlan
from mas_edge.protocol.signed import MAX_METADATA_BYTES, plan_in, signed_bytes, targets_of, unpack_metadata

log = logging.getLogger(__name__)

RELEASED = 1795305600.0  # 2026-11-22, when this version was written: no clock is right that says less
ASK_S = 600.0  # between two looks at a web server: a frozen broker is found out long before a timestamp ends


class Verifier:
    """What device ``name`` of ``fleet`` believes, kept in ``folder``; ``clock`` gives seconds since 1970.

    Raises:
        DeviceError: the folder holds no root or a damaged one, or cannot be used.
    """

    def __init__(self, folder: Path, fleet: str, name: str, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._fleet, self._name, self._clock = folder, fleet, name, clock
        try:
            self._anchor = (folder / ROOT).read_bytes()
        except OSError as error:
            message = f"there is no root to trust in {folder} ({error.strerror}); run with --trust ROOT.json once"
            raise DeviceError(message) from None
        try:
            check_root(self._anchor)
        except DeviceError:
            message = f"the root in {folder / ROOT} is damaged; run with --trust ROOT.json once, which puts it back"
            raise DeviceError(message) from None
        self._memory = Memory(folder)
        self._lock = threading.Lock()  # the loop and the thread that asks a web server
        self._trusted: Client | None = None
        self._learned = ""
        try:
            self._verify(self._memory.files)
        except TrustError as error:  # the next plan brings newer ones
            log.info("the signing metadata on disk do not hold: %s", error)

    def lacks(self, signed: SignedPlan) -> Manifest | None:
        """The metadata to fetch before ``signed`` is opened; None if there is nothing new.

        Raises:
            TransferError: nobody's metadata are as large as that.
        """
        manifest = signed.metadata
        if manifest is None or manifest.artifact == self._learned:
            return None
        return check_manifest(manifest, MAX_METADATA_BYTES)

    def learn(self, artifact: str, data: bytes) -> None:
        """Take in metadata that came as the artifact of this name.

        Raises:
            TrustError: they are refused; what was believed before is believed on, unless a new root ended it.
        """
        self._verify(unpack_metadata(data))
        self._learned = artifact

    def learn_root(self, data: bytes) -> None:
        """Take in a newer root beside what is here. One that others lie before is not: they come with the metadata.

        Raises:
            TrustError: the trusted keys have not signed it; what was believed before is believed on.
        """
        version = root_version(data)
        with self._lock:
            files = dict(self._memory.files)
        if f"{version}.root.json" not in files:
            self._verify({**files, f"{version}.root.json": data})

    def learn_from(self, url: str, fetcher: FetcherInterface | None = None) -> None:
        """Take in metadata from a web server: ``url`` is that of the folder ``metadata``.

        Raises:
            TrustError: they are refused, or cannot be had.
        """
        with _workplace(self._folder / "asking") as directory:
            self._client(directory, fetcher or HttpFetcher(), url).verify()
            files = _files_in(directory)
        self._verify(files)

    def keep_fresh(self, url: str, stop: threading.Event) -> None:
        """Ask a web server from time to time until ``stop`` is set. For a thread of its own."""
        while not stop.is_set():
            try:
                self.learn_from(url)
            except EdgeError as error:
                log.warning("%s: %s", url, error)
            stop.wait(ASK_S)

    def open(self, signed: SignedPlan) -> Plan | None:
        """The plan in ``signed``; None if it, or one after it, was taken before.

        Raises:
            TrustError: it is not for this device, not signed by a trusted key, names something that is not listed, or
                nothing is trusted (any more).
            MessageError: what was signed is no plan.
        """
        with self._lock:
            client = self._current()
            self._check_signature(client, signed)
            number = (signed.life, signed.seq)
            if number <= self._memory.seen.plans.get(signed.key, (0, 0)):
                log.info("a plan of long ago is said again: %s", number)
                return None
            plan = plan_in(signed)
            _check_targets(client, plan)
            self._memory.keep_plan(signed.key, number, client.plan_keys())
            return plan

    # ------------------------------------------------------------------ metadata

    def _verify(self, files: Mapping[str, bytes]) -> None:
        """Verify ``files`` on top of what is trusted, and remember what holds."""
        with self._lock, _workplace(self._folder / "verifying") as directory:
            client = self._client(directory, FilesFetcher(files), "metadata:")
            roots = _roots_in(directory)
            try:
                client.verify()
            except TrustError:
                if _roots_in(directory) != roots:
                    # A new root is believed at once, and what the old one led to is not: its keys may be stolen.
                    self._trusted = None
                    self._memory.keep_files({**self._memory.files, **_roots_in(directory)})
                raise
            self._memory.keep_files(_files_in(directory))
            self._memory.keep_time(client.issued, client.root.roles["timestamp"].keyids)
            self._trusted = client

    def _client(self, directory: Path, fetcher: FetcherInterface, url: str) -> Client:
        """A client that begins with what is remembered, in a folder of its own."""
        (directory / "root_history").mkdir()
        for name, data in self._memory.files.items():
            (directory / ("root_history" if name.endswith(".root.json") else "") / name).write_bytes(data)
        return Client(directory, self._anchor, fetcher, url, self._time_under)

    def _current(self) -> Client:
        if self._trusted is None:
            here = datetime.fromtimestamp(max(self._clock(), RELEASED), tz=timezone.utc)
            message = (
                f"no valid signing metadata are here yet, and it is {here:%Y-%m-%d %H:%M} here: start the orchestrator "
                "with --sign, or set this device's clock"
            )
            raise TrustError(message)
        now, until = self._time_under(self._trusted.root), self._trusted.until
        if now >= until:
            message = (
                f"the signing metadata ended on {until:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} here: start "
                "the orchestrator with --sign, or set this device's clock"
            )
            raise TrustError(message)
        return self._trusted

    def _time_under(self, root: Root) -> datetime:
        """The time, as the module's docstring says."""
        seen = self._memory.seen
        same_keys = seen.clock_keys == tuple(sorted(root.roles["timestamp"].keyids))
        signed = seen.issued if same_keys else 0.0
        seconds = max(self._clock(), RELEASED, issued_of(root.unrecognized_fields), signed)
        return datetime.fromtimestamp(seconds, tz=timezone.utc)

    # ------------------------------------------------------------------ plans

    def _check_signature(self, client: Client, signed: SignedPlan) -> None:
        if signed.receiver != self._name:
            message = f"a plan for {signed.receiver[:64]!r} came to {self._name!r}"
            raise TrustError(message)
        key = client.plan_keys().get(signed.key)
        if key is None:
            message = f"the plan is signed by {signed.key[:12]!r}, a key that may not sign plans (any more)"
            raise TrustError(message)
        data = signed_bytes(self._fleet, signed.receiver, signed.life, signed.seq, bytes(signed.plan))
        try:
            key.verify_signature(Signature(signed.key, signed.signature.hex()), data)
        except (UnverifiedSignatureError, VerificationError):
            message = "the plan's signature is wrong: it was changed on its way, or is of another fleet"
            raise TrustError(message) from None


def _check_targets(client: Client, plan: Plan) -> None:
    for name, described in targets_of(plan).items():
        listed = client.target(name)
        if listed != described:
            what = "is not listed" if listed is None else f"is listed as {listed[0][:12]}, not {described[0][:12]}"
            message = f"{name} {what} in the signing metadata"
            raise TrustError(message)


@contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    """An empty folder for a client to work in; one that a killed process left is emptied.

    Raises:
        DeviceError: the disk is full or not writable.
    """
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        yield directory
    except OSError as error:
        message = f"cannot work in {directory}: {error.strerror}; free the disk, and make the state directory writable"
        raise DeviceError(message) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _roots_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "root_history").glob("*.root.json")}


def _files_in(directory: Path) -> dict[str, bytes]:
    """What a client has verified, by its names; its link ``root.json`` to the newest root is left out."""
    files = {path.name: path.read_bytes() for path in directory.glob("*.json") if path.name != ROOT}
    return {**_roots_in(directory), **files}
