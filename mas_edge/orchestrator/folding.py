"""How the updates of one training round become new weights: as they arrive, or all at its end; with the disk's part.

A mean folds each update as it comes. The median, the trimmed mean and a bound that is the round's own median need all
of them: they stay on the disk until the round closes, which keeps them so long anyway, and are read in pieces. Either
way the result follows from the accepted updates and their order alone: a restart changes no bit of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.aggregate import Accumulator, check_update
from mas_edge.federation.robust import Read, Row, Rule, aggregate, change_norm, shrink_to
from mas_edge.orchestrator.lent import Lent
from mas_edge.protocol.errors import DeviceError, WeightsError
from mas_edge.protocol.weights import Layout, Numbers, Vector, flatten, part_weights, sent_layout, unpack


@dataclass(frozen=True)
class Origin:
    """What a late update began from, and what the weights are in the round that it counts in."""

    index: int
    base: Numbers
    now: Numbers
    artifact: str  # of the base


@dataclass(frozen=True)
class _Kept:
    """An update that counts when the round closes."""

    artifact: str
    samples: dict[str, int]
    norm: float
    base: str = ""  # the artifact that it began from, of a late one
    scale: float = 1.0  # what it counts for, beside its samples


class Folding:
    """The updates of one round, which began from the weights ``weights`` in ``artifacts``.

    Attributes:
        norms: of what each update changes, by device, if they are looked at; without the late ones.
    """

    def __init__(
        self, layout: Layout, rule: Rule | None = None, artifacts: ArtifactStore | None = None, weights: str = ""
    ) -> None:
        self.norms: dict[str, float] = {}
        self._layout = layout
        self._rule = rule or Rule()
        self._artifacts = artifacts
        self._weights = weights
        self._sums = Accumulator(layout)
        self._kept: list[_Kept] = []

    @property
    def count(self) -> int:
        """How many updates count."""
        return len(self._kept) or self._sums.count

    def counted(self, samples: Mapping[str, int]) -> dict[str, int]:
        """The samples that a device counts for, of those that it says it has."""
        return self._rule.counted(samples)

    @property
    def bound(self) -> float:
        """What the norm of a change may be until it is clipped; 0 if none is."""
        bound = self._rule.bound([kept.norm for kept in self._kept])
        return bound if np.isfinite(bound) else 0.0

    def fold(self, device: str, artifact: str, update: Numbers, samples: Mapping[str, int]) -> None:
        """Add an update, which is ``artifact`` on the disk.

        Raises:
            WeightsError: it has another length, counts for nothing, or changes the weights by more than is allowed.
            DeviceError: the disk has lost what it began from.
        """
        samples = self._rule.counted(samples)
        check_update(self._layout, update, samples)
        if not self._rule.measures:
            self._add(_Kept(artifact, samples, 0.0), update, None)
            return
        with self._files.opened(self._weights) as data:
            now = Lent(flatten(self._layout, data), data)
            kept = _Kept(artifact, samples, self._norm(update, samples, now))
            self._add(kept, update, (now, now))
        self.norms[device] = kept.norm

    def fold_late(
        self, artifact: str, update: Numbers, samples: Mapping[str, int], origin: Origin, scale: float
    ) -> None:
        """Add an update of an earlier round, as if it had begun from this one's weights. Raises as ``fold``."""
        samples = self._rule.counted(samples)
        check_update(self._layout, update, samples)
        norm = self._norm(update, samples, origin.base) if self._rule.measures else 0.0
        self._add(_Kept(artifact, samples, norm, origin.artifact, scale), update, (origin.base, origin.now))

    def mean(self, previous: Vector) -> Vector:
        """The new weights, shape (layout.size,); parts nobody reported keep their ``previous`` numbers."""
        return np.concatenate([np.empty(0, np.float32), *self.means(previous)])

    def means(self, previous: Vector) -> Iterator[Vector]:
        """The new weights in pieces, one after the other: for a model that is to be in memory once, not twice.

        Raises:
            DeviceError: the disk has lost an update; a restart finds that out, and asks its device again.
        """
        if not self._rule.defers:
            return self._sums.means(previous)
        bound = self._rule.bound([kept.norm for kept in self._kept])
        if self._rule.robust == "mean":
            return self._clipped(bound, previous).means(previous)
        return aggregate(self._layout, [self._row(kept, bound) for kept in self._kept], self._rule, previous)

    # ------------------------------------------------------------------ one update

    @property
    def _files(self) -> ArtifactStore:
        if self._artifacts is None:
            message = "updates can only be measured or kept where they are on a disk"
            raise DeviceError(message)
        return self._artifacts

    def _norm(self, update: Numbers, samples: Mapping[str, int], base: Numbers) -> float:
        norm, most = change_norm(self._layout, update, samples, base), self._rule.max_norm
        if most and norm > most:
            message = f"update changes the weights by a norm of {norm:.4g}; {most:g} is allowed (federation.max_norm)"
            raise WeightsError(message)
        return norm

    def _add(self, kept: _Kept, update: Numbers, moved: tuple[Numbers, Numbers] | None) -> None:
        """Fold an update now, or keep it; ``moved``: what it began from, and the weights of this round."""
        if self._rule.defers:
            self._kept.append(kept)
        else:
            _fold(self._sums, kept, update, moved, self._rule.bound([]))

    def _clipped(self, bound: float, previous: Vector) -> Accumulator:
        sums = Accumulator(self._layout)
        for kept in self._kept:
            sent = sent_layout(self._layout, kept.samples)
            with self._files.opened(kept.artifact) as data, self._files.opened(kept.base or self._weights) as began:
                base = Lent(flatten(self._layout, began), began) if kept.base else previous
                _fold(sums, kept, Lent(flatten(sent, data), data), (base, previous), bound)
        return sums

    # ------------------------------------------------------------------ the disk

    def _row(self, kept: _Kept, bound: float) -> Row:
        parts, shrink = frozenset(part_weights(kept.samples)), shrink_to(kept.norm, bound)
        return Row(parts, self._reader(kept.artifact), self._reader(kept.base) if kept.base else None, shrink)

    def _reader(self, artifact: str) -> Read:
        """Reads pieces of the file's tensors: mapped, all of them would soon be in memory at once."""
        path, places = self._files.path(artifact), {}
        with self._files.opened(artifact) as data:
            tensors = unpack(data)
            offset = len(data) - sum(tensor.nbytes for tensor in tensors.values())
            for name, tensor in tensors.items():
                places[name] = offset
                offset += tensor.nbytes

        def read(name: str, start: int, stop: int) -> Vector:
            try:
                numbers = np.fromfile(path, "<f4", stop - start, offset=places[name] + 4 * start)
            except OSError as error:
                message = f"the update {artifact[:12]} cannot be read: {error.strerror}; check the disk, start again"
                raise DeviceError(message) from None
            if len(numbers) < stop - start:
                message = f"the update {artifact[:12]} is shorter than it was: check the disk, and start again"
                raise DeviceError(message)
            return numbers

        return read


def _fold(sums: Accumulator, kept: _Kept, update: Numbers, moved: tuple[Numbers, Numbers] | None, bound: float) -> None:
    shrink = shrink_to(kept.norm, bound)
    if moved is None or (not kept.base and shrink == 1.0):  # as it came, to the bit
        sums.fold(update, kept.samples)
    else:
        sums.fold_late(update, kept.samples, *moved, kept.scale, shrink)
