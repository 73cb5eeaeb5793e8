"""Folding with a disk: each rule against the formula, late updates, refusals, and that memory stays small."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.robust import Rule
from mas_edge.orchestrator.folding import Folding, Origin
from mas_edge.protocol.errors import DeviceError, WeightsError
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, flatten, pack, sent_layout

LAYOUT = Layout([Entry("e", [4, 3], ENCODER), Entry("a.w", [3], "a"), Entry("b.w", [2], "b")])
BOTH = {"a": 5, "b": 5}
NOW = np.linspace(-1.0, 1.0, LAYOUT.size, dtype=np.float32)


class Round:
    """A folding on a real store, and what was put into it."""

    def __init__(self, directory: Path, rule: Rule, layout: Layout = LAYOUT, now: Vector = NOW) -> None:
        self.layout, self.now = layout, now
        self.artifacts = ArtifactStore(directory)
        self.folding = Folding(layout, rule, self.artifacts, self.put(now))

    def put(self, vector: Vector, layout: Layout | None = None) -> str:
        return self.artifacts.put(pack(layout or self.layout, vector), durable=False).artifact

    def fold(self, device: str, change: Vector, samples: Mapping[str, int] = BOTH) -> None:
        sent = sent_layout(self.layout, samples)
        places = self.layout.slices()
        base = np.concatenate([self.now[places[e.name]] for e in sent.entries])
        artifact = self.put((base + change).astype(np.float32), sent)
        with self.artifacts.opened(artifact) as data:
            self.folding.fold(device, artifact, flatten(sent, data), samples)

    def fold_late(self, change: Vector, base: Vector, scale: float) -> None:
        artifact, began = self.put((base + change).astype(np.float32)), self.put(base)
        with self.artifacts.opened(artifact) as data:
            origin = Origin(0, base, self.now, began)
            self.folding.fold_late(artifact, flatten(self.layout, data), BOTH, origin, scale)

    @property
    def moved(self) -> Vector:
        """By how much the weights change."""
        return np.asarray(self.folding.mean(self.now) - self.now, np.float32)


def changes(*lengths: float) -> list[Vector]:
    """Changes in one direction, of these norms."""
    unit = np.full(LAYOUT.size, LAYOUT.size**-0.5)
    return [np.asarray(length * unit, np.float32) for length in lengths]


# By the rule: of five changes in one direction, of norms 1, 2, 3, 4 and 1000, the norm of what comes out.
LENGTHS = (1.0, 2.0, 3.0, 4.0, 1000.0)
COMES_OUT = {
    "mean": (Rule(), 202.0),
    "a bound": (Rule(clip_norm=2.0), (1 + 2 + 2 + 2 + 2) / 5),
    "the median of the norms": (Rule(clip_norm="auto"), (1 + 2 + 3 + 3 + 3) / 5),
    "the median": (Rule(robust="median"), 3.0),
    "trimmed": (Rule(robust="trimmed", trim=0.2), (2 + 3 + 4) / 3),
    "clipped and trimmed": (Rule(robust="trimmed", trim=0.2, clip_norm=2.5), (2 + 2.5 + 2.5) / 3),
    "clipped by the median, median": (Rule(robust="median", clip_norm="auto"), 3.0),
}


@pytest.mark.parametrize("case", COMES_OUT)
def test_what_comes_out_follows_the_rule(case: str, tmp_path: Path) -> None:
    rule, expected = COMES_OUT[case]
    made = Round(tmp_path, rule)
    for number, change in enumerate(changes(*LENGTHS)):
        made.fold(f"d{number}", change)
    assert made.folding.count == len(LENGTHS)
    assert np.linalg.norm(made.moved) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(made.moved, made.moved[0], rtol=1e-3, atol=1e-4)
    if rule.measures:
        assert list(made.folding.norms.values()) == pytest.approx(LENGTHS, rel=1e-4)


@pytest.mark.parametrize("case", COMES_OUT)
def test_the_same_updates_in_the_same_order_give_the_same_bits_again(case: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    numbers = rng.standard_normal((6, LAYOUT.size))
    results = []
    for life in ("first", "second"):
        made = Round(tmp_path / life, COMES_OUT[case][0])
        for number, change in enumerate(numbers):
            made.fold(f"d{number}", change)
        results.append(made.folding.mean(NOW).tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("case", COMES_OUT)
def test_a_late_update_counts_as_its_change_from_where_it_began(case: str, tmp_path: Path) -> None:
    made = Round(tmp_path, COMES_OUT[case][0])
    elsewhere = np.full(LAYOUT.size, 50.0, np.float32)
    for _ in range(3):
        made.fold_late(changes(1.5)[0], elsewhere, 0.5)
    assert np.linalg.norm(made.moved) == pytest.approx(1.5, rel=1e-4)


def test_a_head_is_the_matter_of_the_devices_that_have_labels(tmp_path: Path) -> None:
    made = Round(tmp_path, Rule(robust="median"))
    for number in range(3):
        samples = {"a": 5} if number else BOTH
        made.fold(f"d{number}", np.ones(sent_layout(LAYOUT, samples).size, np.float32), samples)
    np.testing.assert_allclose(made.moved, 1.0, rtol=1e-5)
    none = Round(tmp_path / "none", Rule(robust="median"))
    for number in range(3):
        none.fold(f"d{number}", np.ones(sent_layout(LAYOUT, {"a": 5}).size, np.float32), {"a": 5})
    assert none.moved[LAYOUT.slices()["b.w"]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("rule", [Rule(max_norm=2.0), Rule(max_norm=2.0, robust="median")], ids=str)
def test_an_update_that_changes_too_much_is_refused_and_nothing_is_folded(rule: Rule, tmp_path: Path) -> None:
    made = Round(tmp_path, rule)
    made.fold("honest", changes(1.0)[0])
    before = made.folding.mean(NOW).tobytes()
    with pytest.raises(WeightsError, match=r"a norm of 1000; 2 is allowed \(federation\.max_norm\)"):
        made.fold("liar", changes(1000.0)[0])
    assert (made.folding.count, made.folding.mean(NOW).tobytes()) == (1, before)
    assert list(made.folding.norms) == ["honest"]


def test_a_claim_of_many_samples_counts_for_no_more_than_is_allowed(tmp_path: Path) -> None:
    for most, expected in ((0, 100.0), (10, (1 + 1 + 100) / 3)):
        made = Round(tmp_path / str(most), Rule(max_samples=most))
        made.fold("one", changes(1.0)[0], {"a": 10, "b": 10})
        made.fold("other", changes(1.0)[0], {"a": 10, "b": 10})
        made.fold("liar", changes(100.0)[0], {"a": 10**9, "b": 10**9})
        assert np.linalg.norm(made.moved) == pytest.approx(expected, rel=1e-3)


def test_a_disk_that_lost_an_update_is_said(tmp_path: Path) -> None:
    made = Round(tmp_path, Rule(robust="median"))
    for number, change in enumerate(changes(1.0, 2.0, 3.0)):
        made.fold(f"d{number}", change)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DeviceError, match="has to be received again"):
        made.folding.mean(NOW)


def test_the_memory_of_a_median_does_not_grow_with_the_devices(tmp_path: Path) -> None:
    """48 updates of 2 MB: mapped or read, they were 96 MB; the pieces of all together are 8."""
    layout = Layout([Entry("e", [512 * 1024], ENCODER)])
    made = Round(tmp_path, Rule(robust="median"), layout, np.zeros(layout.size, np.float32))
    rng = np.random.default_rng(0)
    for number in range(48):
        made.fold(f"d{number}", rng.random(layout.size, np.float32), {"a": 1})
    tracemalloc.start()
    try:
        for _ in made.folding.means(made.now):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32e6
