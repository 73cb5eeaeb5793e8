"""What one run of an orchestrator signs: the list of what it is about to use, and every plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
from securesystemslib.signer import CryptoSigner

from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.repository import LIVES, RENEWED_WITH, Repository
from mas_edge.protocol.messages import Plan, SignedPlan
from mas_edge.protocol.signed import signed_bytes


class Publisher:
    """A run of an orchestrator that uses the signing repository in ``folder``.

    Raises:
        ServerError: there is none, it cannot be used, or its online keys are lost.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._repository = Repository(folder, clock)
        with self._repository.locked():
            if ceremony.is_staged(self._repository):
                ceremony.approve(self._repository, [])  # ends one that was cut off when all had signed
        self._life = self._repository.begin_life()
        self._listed: dict[str, tuple[str, int]] = {}
        self._seen = 0
        self._renew_at = 0.0
        self._key: CryptoSigner
        self.bundle = b""  # the newest metadata as one artifact; after ``list_targets``
        self.list_targets({})

    @property
    def notice(self) -> str:
        """What the keyholders have to do soon, in words for the operator; empty if nothing."""
        expires = min(self._repository.root.signed.expires, self._repository.targets.signed.expires)
        if expires - self._repository.now > ceremony.OFFLINE_NOTICE:
            return ""
        return (
            f"the keyholders' signatures end on {expires:%Y-%m-%d}, and devices take nothing from then on: "
            f"mas-edge sign renew {self._repository.folder}"
        )

    def list_targets(self, targets: Mapping[str, tuple[str, int]]) -> None:
        """Have ``targets``, (sha256, bytes) by name, in the list, and all signatures fresh; often nothing is to do.

        Raises:
            ServerError: it cannot be written, or the online keys are lost.
        """
        missing = targets.items() - self._listed.items()
        if not missing and self._changed() == self._seen and self._repository.clock() < self._renew_at:
            return
        with self._repository.locked():
            self._repository.require_online_keys()
            self._key = self._repository.online_key("models")  # it may be a new one
            wanted = {**self._listed, **targets}
            if self._repository.lists(wanted):
                self._repository.renew()
            else:
                self._repository.publish(wanted)
            self._listed = wanted
            self.bundle = self._repository.bundle()
            self._seen = self._changed()
            left: timedelta = self._repository.timestamp.signed.expires - self._repository.now
            spare = left - LIVES["timestamp"] * RENEWED_WITH
            self._renew_at = self._repository.clock() + spare.total_seconds()

    def sign(self, fleet: str, receiver: str, plan: Plan) -> SignedPlan:
        """The plan as ``receiver`` takes it; it carries no metadata yet."""
        data = msgspec.json.encode(plan)
        signature = self._key.sign(signed_bytes(fleet, receiver, self._life, plan.seq, data))
        return SignedPlan(
            sender=plan.sender, boot_id=plan.boot_id, seq=plan.seq, receiver=receiver, life=self._life,
            plan=msgspec.Raw(data), key=signature.keyid, signature=bytes.fromhex(signature.signature),
        )  # fmt: skip

    def _changed(self) -> int:
        """A number that changes with everything that is published, by whomever."""
        return self._repository.file("timestamp.json").stat().st_mtime_ns
