"""Taking up a round after a restart, from what the store and the disk still hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation import flow
from mas_edge.federation.flow import JobState, Provided
from mas_edge.orchestrator.post import Post
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.messages import Offer
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import pack
from tests.orchestrator.small_desk import SmallDesk, programs_in
from tests.orchestrator.small_run import JOB, LAYOUT, group_state, numbers, offer, spec


def accepted(artifacts: ArtifactStore, device: str, seed: int) -> Offer:
    """A device's accepted offer, its update on the disk."""
    return offer(device, manifest=artifacts.put(pack(LAYOUT, numbers(seed=seed))))


def desk_in(directory: Path, store: Store, artifacts: ArtifactStore, state: JobState) -> RoundsDesk:
    """The desk of an orchestrator that has just started; its post is never connected."""
    post = Post("mqtt://127.0.0.1:9", Topics("f"), artifacts, lambda _: None, lambda *_: None)
    desk = RoundsDesk(JOB, state, store, artifacts, post)
    desk.restore(0.0)
    return desk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("lost", [False, True])
def test_a_round_goes_on_with_the_updates_that_the_disk_still_holds(
    tmp_path: Path, store: Store, *, lost: bool
) -> None:
    artifacts = ArtifactStore(tmp_path / "artifacts")
    merged = group_state(
        programs=programs_in(artifacts),
        weights=artifacts.put(pack(LAYOUT, numbers())),
    )
    state = store.begin(JOB, JobState(run_id="j-1", phase="merge", merged=merged))
    store.open_round(spec(), "merge")
    offers = [accepted(artifacts, device, seed) for seed, device in enumerate(("pi-1", "pi-2"), start=1)]
    for made in offers:
        store.accept(made, made.round_id)
    if lost:
        assert offers[0].manifest is not None
        artifacts.path(offers[0].manifest.artifact).write_bytes(b"what a dying card left")

    active = desk_in(tmp_path, store, artifacts, state).active["merged-0000"]

    done = {"pi-2"} if lost else {"pi-1", "pi-2"}
    assert {name for name, stage in active.machine.stages().items() if stage == "done"} == done
    assert {made.sender for made in store.accepted("merged-0000")} == done
    assert active.accumulator is not None
    expected = numbers(seed=2) if lost else (3 * numbers(seed=1) + 3 * numbers(seed=2)) / 6
    assert active.accumulator.count == len(done)
    assert active.accumulator.mean(numbers())[:8] == pytest.approx(expected[:8], rel=1e-6)
    store.close()


def test_a_round_that_is_no_longer_due_stays_closed(tmp_path: Path, store: Store) -> None:
    artifacts = ArtifactStore(tmp_path / "artifacts")
    merged = group_state(programs=programs_in(artifacts), next_round=1)
    state = store.begin(JOB, replace(JobState(run_id="j-1", phase="merge"), merged=merged))
    store.open_round(spec(), "merge")  # of index 0: the state has moved on
    assert desk_in(tmp_path, store, artifacts, state).active == {}
    store.close()


def test_what_an_open_round_needs_stays_when_old_weights_go(tmp_path: Path, store: Store) -> None:
    artifacts = ArtifactStore(tmp_path / "artifacts")
    merged = group_state(programs=programs_in(artifacts), weights=artifacts.put(pack(LAYOUT, numbers())))
    state = store.begin(JOB, JobState(run_id="j-1", phase="merge", merged=merged))
    store.open_round(spec(), "merge")
    update = accepted(artifacts, "pi-1", seed=1)
    store.accept(update, update.round_id)
    old = artifacts.put(pack(LAYOUT, numbers(seed=3)))
    desk = desk_in(tmp_path, store, artifacts, state)

    desk.move(state)  # another group's round closed: a moment to make room

    assert update.manifest is not None
    assert artifacts.has(update.manifest.artifact)
    assert artifacts.has(merged.weights.artifact)
    assert artifacts.has(merged.programs["torch"].artifact)
    assert not artifacts.has(old.artifact)
    store.close()


def test_what_the_workshop_has_just_made_is_there_still_when_a_round_closed_meanwhile(tmp_path: Path) -> None:
    here = SmallDesk(tmp_path)
    here.arrive("pi-1", "pi-2")
    here.turn()
    here.desk.making = True  # the workshop's thread begins to make a program for an engine
    made, orphan = here.artifacts.put(b"a program for another engine"), here.artifacts.put(b"of a step that failed")
    for device in ("pi-1", "pi-2"):
        here.report(device)
    here.turn()
    assert "merged-0000" in here.records(), "a round has closed, and the disk was tidied"
    here.desk.making = False  # the loop hears of it
    here.desk.move(flow.provided(here.desk.state, Provided("merged", programs={"torch@1": made})))
    assert here.artifacts.has(made.artifact)
    assert not here.artifacts.has(orphan.artifact), "what nobody needs goes at the next look"
    here.close()
