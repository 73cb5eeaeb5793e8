"""Signed plans on their way to being opened: they wait until their metadata are here. Needs no tuf, and does no I/O.

Only the newest metadata are waited for, by all of them: what older ones listed, newer ones list as well.
"""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.protocol.errors import TrustError
from mas_edge.protocol.messages import Manifest, Plan, SignedPlan
from mas_edge.protocol.signed import plan_in

# Plans of the groups that a device serves at once, and their repetitions, while metadata of 5 KB are fetched.
MAX_WAITING = 16
SIGNED_ONLY = "this device takes signed plans only: start the orchestrator with --sign DIR"


class Opener(Protocol):
    """What opens signed plans; ``device_runtime.trust.verifier.Verifier`` is one."""

    def lacks(self, signed: SignedPlan) -> Manifest | None:
        """The metadata to fetch before."""
        ...

    def learn(self, artifact: str, data: bytes) -> None:
        """Take in metadata."""
        ...

    def open(self, signed: SignedPlan) -> Plan | None:
        """The plan, None if it was taken before."""
        ...


class Seals:
    """``opener``: None on a device that was handed no root; then nothing is asked of a plan."""

    def __init__(self, opener: Opener | None = None) -> None:
        self._opener = opener
        self._waiting: list[SignedPlan] = []

    @property
    def required(self) -> bool:
        """Whether plans must be signed."""
        return self._opener is not None

    def lacking(self, signed: SignedPlan, store: ArtifactStore) -> Manifest | None:
        """The metadata that have to be fetched before ``signed`` can be opened.

        Raises:
            TransferError: they are too large to be any.
        """
        manifest = self._opener.lacks(signed) if self._opener else None
        return manifest if manifest and not store.has(manifest.artifact) else None

    def open(self, signed: SignedPlan, store: ArtifactStore) -> Plan | None:
        """The plan; None if it was taken before. Spoiled metadata keep no plan from being taken that needs them not.

        Raises:
            TrustError: it is not to be carried out.
            MessageError: it is no plan.
            DeviceError: the disk fails.
        """
        if self._opener is None:
            return plan_in(signed)
        spoiled = ""
        if manifest := self._opener.lacks(signed):
            try:
                self._opener.learn(manifest.artifact, store.read(manifest.artifact))
            except TrustError as error:
                spoiled = str(error)
        try:
            return self._opener.open(signed)
        except TrustError as error:
            if not spoiled:
                raise
            message = f"{error} ({spoiled})"
            raise TrustError(message) from None

    def wait(self, signed: SignedPlan) -> None:
        """Keep ``signed`` until its metadata are here, and the others that wait as well."""
        others = [replace(each, metadata=signed.metadata) for each in self._waiting[1 - MAX_WAITING :]]
        self._waiting = [*others, signed]

    def waits_for(self, artifact: str) -> bool:
        """Whether a plan waits for this artifact."""
        return any(each.metadata and each.metadata.artifact == artifact for each in self._waiting)

    def freed_all(self) -> list[SignedPlan]:
        """The plans that wait, as what they are without their metadata: newer ones came on another way."""
        freed, self._waiting = [replace(each, metadata=None) for each in self._waiting], []
        return freed

    def freed(self, artifact: str) -> list[SignedPlan]:
        """The plans that waited for this artifact; they wait no longer."""
        freed = [each for each in self._waiting if each.metadata and each.metadata.artifact == artifact]
        self._waiting = [each for each in self._waiting if each not in freed]
        return freed
