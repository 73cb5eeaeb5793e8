"""Which artifacts stay on the orchestrator's disk, and the removal of the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import GroupState
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.filing import Clerk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.errors import DeviceError

log = logging.getLogger(__name__)

# Rounds of weights kept on disk besides those in use: enough to look back, small beside any disk.
KEPT_ROUNDS = 3
# Files that a round leaves go a moment after it closed: what a file system has to do for it would hold up the sync of
# the next round's opening (measured: 30 ms for 8 updates of 10 MB).
SWEEP_AFTER_S = 0.1


class Tidying:
    """Decided in the loop, where what is needed is known; the ``clerk`` removes the files."""

    def __init__(self, artifacts: ArtifactStore, store: Store, clerk: Clerk) -> None:
        self._artifacts = artifacts
        self._store = store
        self._clerk = clerk
        self._sweep_at = math.inf  # when files that were set aside are to go; minus infinity: soon

    def tidy(self, networks: Iterable[GroupState], rounds: Iterable[ActiveRound], others: set[str]) -> None:
        """Keep what the networks and the open rounds are made of, ``others``, and the weights of the last rounds."""
        kept = others | self._store.latest_weights(KEPT_ROUNDS)
        for group in networks:
            answers = (group.golden, *group.goldens.values())
            made = (*group.programs.values(), group.weights, *group.models.values(), *answers)
            kept |= {manifest.artifact for manifest in made if manifest} | {group.derive_from}
        for active in rounds:
            kept |= {*active.updates.values(), *active.needed}
        self._artifacts.set_aside_all_but(kept - {""})
        self._sweep_at = -math.inf

    def poll(self, now: float) -> None:
        """Have files removed, if it is time."""
        if self._sweep_at == -math.inf:
            self._sweep_at = now + SWEEP_AFTER_S
        elif now >= self._sweep_at:
            self._sweep_at = math.inf
            self._clerk.hand(self._sweep)

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return self._sweep_at

    def _sweep(self) -> None:
        """The clerk's."""
        try:
            self._artifacts.sweep()
        except DeviceError as error:
            log.warning("%s", error)
