"""Taking in updates: whole ones only, from the device that offered them, through restarts."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.orchestrator.collection import MAX_ACTIVE, MAX_CORRUPT, Collection
from mas_edge.orchestrator.filing import Filing
from mas_edge.protocol.artifact import Chunk, chunk_count, decode_chunk, describe, encode_chunk, from_ranges
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest, Offer
from tests.orchestrator.small_run import offer

DATA = bytes(range(256)) * 40  # ten chunks
MANIFEST = describe(DATA, 1024)
COUNT = chunk_count(MANIFEST)


def piece(index: int, manifest: Manifest = MANIFEST, data: bytes = DATA) -> Chunk:
    start = index * manifest.chunk_size
    return decode_chunk(encode_chunk(manifest, index, data[start : start + manifest.chunk_size]))


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def collection(artifacts: ArtifactStore) -> Collection:
    begun = Collection(artifacts)
    begun.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    return begun


def asked(collection: Collection, now: float) -> list[int]:
    return [index for _, _, ranges, _ in collection.poll(now) for index in from_ranges(ranges, COUNT)]


def take(collection: Collection, device: str, chunk: Chunk, now: float = 0.0) -> list[Offer]:
    """Take in a piece; the offers whose update is whole with it. Raises what is wrong with it."""
    collection.on_chunk(device, chunk, now)
    done: list[Offer] = []
    for filed in collection.filed(now):
        if filed.problem:
            raise filed.problem
        done += filed.offers
    return done


def fetch(collection: Collection) -> list[Offer]:
    """Answer what is asked for until the update is whole."""
    for now in range(100):
        for index in asked(collection, float(now)):
            if done := take(collection, "pi-1", piece(index), float(now)):
                return done
    return []


def test_an_update_is_asked_for_and_its_offer_comes_back_when_it_is_whole(
    collection: Collection, artifacts: ArtifactStore
) -> None:
    ((device, artifact, _, round_id),) = collection.poll(0.0)
    assert (device, artifact, round_id) == ("pi-1", MANIFEST.artifact, "merged-0000")
    assert fetch(collection) == [offer(manifest=MANIFEST)]
    assert artifacts.read(MANIFEST.artifact) == DATA
    assert collection.poll(1000.0) == []
    assert collection.next_poll == float("inf")
    assert take(collection, "pi-1", piece(0), 1000.0) == [], "a late piece of a whole update"


def test_an_offer_that_comes_again_does_not_begin_anew(collection: Collection) -> None:
    for index in range(COUNT - 1):
        take(collection, "pi-1", piece(index), 0.0)
    collection.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    assert asked(collection, 50.0) == [COUNT - 1]


def test_another_devices_pieces_are_refused(collection: Collection) -> None:
    with pytest.raises(TransferError, match="pi-2 sent a piece of pi-1's update"):
        take(collection, "pi-2", piece(0), 0.0)
    with pytest.raises(TransferError, match="pi-2 sent a piece of pi-1's update"):
        collection.offer_of("pi-2", piece(0))
    assert collection.offer_of("pi-1", piece(0)) == offer(manifest=MANIFEST)
    assert 0 in asked(collection, 0.0), "what the other one sent does not count"


def test_a_piece_nobody_waits_for_is_ignored(collection: Collection) -> None:
    other = describe(b"other" * 1000, 1024)
    stray = piece(0, other, b"other" * 1000)
    assert collection.offer_of("pi-1", stray) is None
    assert take(collection, "pi-1", stray, 0.0) == []


def test_a_damaged_piece_is_refused_and_asked_for_again(collection: Collection) -> None:
    asked(collection, 0.0)
    take(collection, "pi-1", Chunk(piece(0).artifact_prefix, 0, memoryview(bytes(1024))), 0.0)
    with pytest.raises(TransferError, match=r"1 of 10 chunks .* corrupt, the first is 0"):
        fetch(collection)
    assert collection.offer_of("pi-1", piece(0)) is not None
    assert asked(collection, 60.0) == [0]
    assert fetch(collection)


def test_a_restarted_orchestrator_asks_only_for_what_is_missing(
    collection: Collection, artifacts: ArtifactStore
) -> None:
    for index in (0, 1, 2, 3, 5, 6, 7, 8):
        take(collection, "pi-1", piece(index), 0.0)
    again = Collection(artifacts)
    again.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    assert asked(again, 0.0) == [4, 9]
    take(again, "pi-1", piece(4), 0.1)
    assert take(again, "pi-1", piece(9), 0.1) == [offer(manifest=MANIFEST)]


def test_an_update_that_contradicts_its_manifest_is_given_up(collection: Collection) -> None:
    lie = replace(MANIFEST, artifact="ab" * 32)
    collection.begin(offer("pi-2", manifest=lie), lie, 100_000)
    for index in range(COUNT - 1):
        take(collection, "pi-2", piece(index, lie), 0.0)
    with pytest.raises(TransferError, match="contradicts itself"):
        take(collection, "pi-2", piece(COUNT - 1, lie), 0.0)
    assert collection.offer_of("pi-2", piece(0, lie)) is None, "so that it is told apart from a damaged piece"


def test_devices_that_came_to_the_same_weights_share_one_upload(collection: Collection) -> None:
    collection.begin(offer("pi-2", manifest=MANIFEST), MANIFEST, 100_000)
    assert {device for device, _, _, _ in collection.poll(0.0)} == {"pi-1"}
    assert collection.offer_of("pi-2", piece(0)) == offer("pi-2", manifest=MANIFEST)
    take(collection, "pi-2", piece(0), 0.0)
    assert fetch(collection) == [offer("pi-1", manifest=MANIFEST), offer("pi-2", manifest=MANIFEST)]


def test_the_second_device_is_asked_when_the_first_falls_silent(collection: Collection) -> None:
    collection.begin(offer("pi-2", manifest=MANIFEST), MANIFEST, 100_000)
    asked(collection, 0.0)
    wants = [want for now in (1.0, 2.5) for want in collection.poll(now)]
    assert {device for device, _, _, _ in wants} == {"pi-2"}
    assert sum(len(from_ranges(ranges, COUNT)) for _, _, ranges, _ in wants) > 0


def test_uploads_wait_for_their_turn_and_a_slow_one_keeps_nobody_waiting(artifacts: ArtifactStore) -> None:
    collection = Collection(artifacts)
    updates = [describe(bytes([number]) * 5000, 1024) for number in range(MAX_ACTIVE + 2)]
    for number, manifest in enumerate(updates):
        collection.begin(offer(f"pi-{number}", manifest=manifest), manifest, 100_000)
    first = {device for device, _, _, _ in collection.poll(0.0)}
    assert first == {f"pi-{number}" for number in range(MAX_ACTIVE)}
    assert collection.poll(0.1) == []
    assert collection.next_poll > 0.1, "nothing to do is no reason to look again at once"
    for index in range(5):
        take(collection, "pi-0", piece(index, updates[0], bytes(5000)), 0.2)
    assert {device for device, _, _, _ in collection.poll(0.2)} == {f"pi-{MAX_ACTIVE}"}
    slow_from = collection.next_poll
    assert 0.2 < slow_from < 0.5
    assert f"pi-{MAX_ACTIVE + 1}" in {device for device, _, _, _ in collection.poll(slow_from)}


MANIFESTS: dict[str, tuple[Manifest, str]] = {
    "too large": (replace(MANIFEST, size=100_001), "at most 100000"),
    "a path": (replace(MANIFEST, artifact="../x"), "not a sha256"),
    "too few digests": (replace(MANIFEST, chunk_digests=b"x"), "1 bytes of chunk digests"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_is_refused_before_a_byte_is_fetched_that_is(artifacts: ArtifactStore, case: str) -> None:
    manifest, reason = MANIFESTS[case]
    collection = Collection(artifacts)
    with pytest.raises(TransferError, match=reason):
        collection.begin(offer(manifest=manifest), manifest, 100_000)
    assert list(artifacts.directory.iterdir()) == []
    assert collection.poll(0.0) == []


def test_a_newer_offer_of_the_same_round_takes_the_place_of_the_older(collection: Collection) -> None:
    newer = describe(bytes(5000), 1024)
    collection.begin(offer(manifest=newer), newer, 100_000)
    assert {artifact for _, artifact, _, _ in collection.poll(0.0)} == {newer.artifact}


def test_updates_of_rounds_that_are_over_are_not_fetched_any_more(collection: Collection) -> None:
    other = describe(bytes(5000), 1024)
    collection.begin(offer(round_id="merged-0001", manifest=other), other, 100_000)
    collection.keep_rounds({"merged-0001"})
    assert {round_id for _, _, _, round_id in collection.poll(0.0)} == {"merged-0001"}
    assert take(collection, "pi-1", piece(0), 0.0) == []


def test_an_update_whose_last_piece_came_just_before_a_power_cut_is_whole(artifacts: ArtifactStore) -> None:
    part = artifacts.partial(MANIFEST)
    for index in range(COUNT):
        part.write(index, piece(index).data)
    restarted = Collection(artifacts)
    assert restarted.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    assert artifacts.read(MANIFEST.artifact) == DATA
    assert restarted.poll(0.0) == []


def test_a_device_that_sends_nothing_but_broken_pieces_is_not_asked_for_ever(collection: Collection) -> None:
    for index in range(1, COUNT):
        take(collection, "pi-1", piece(index), 0.0)
    broken = decode_chunk(encode_chunk(MANIFEST, 0, bytes(1024)))
    for _ in range(MAX_CORRUPT):
        assert collection.offer_of("pi-1", broken)
        with pytest.raises(TransferError, match="corrupt"):
            take(collection, "pi-1", broken, 0.0)
    assert collection.offer_of("pi-1", broken) is None
    assert collection.poll(1000.0) == []


class Slow:
    """A clerk who works when told to."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def hand(self, work: Callable[[], None]) -> None:
        self._waiting.append(work)

    def work(self) -> None:
        for work in self._waiting:
            work()


def test_a_clerk_files_beside_the_loop_and_the_offer_is_told_afterwards(artifacts: ArtifactStore) -> None:
    filed = threading.Event()
    clerk = Filing("clerk")
    collection = Collection(artifacts, clerk, filed.set)
    collection.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    for index in range(COUNT):
        collection.on_chunk("pi-1", piece(index), 0.0)
    assert filed.wait(10)
    assert [each.offers for each in collection.filed(0.0)] == [[offer(manifest=MANIFEST)]]
    assert artifacts.read(MANIFEST.artifact) == DATA
    clerk.close()


def test_an_update_is_not_taken_for_whole_before_it_is_safe(artifacts: ArtifactStore) -> None:
    """It has its name before it is synced; another device may offer the same weights in between."""
    clerk = Slow()
    collection = Collection(artifacts, clerk)
    collection.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    for index in range(COUNT):
        collection.on_chunk("pi-1", piece(index), 0.0)
    clerk.work()
    assert artifacts.has(MANIFEST.artifact)
    assert not collection.begin(offer("pi-2", manifest=MANIFEST), MANIFEST, 100_000), "the loop has not heard of it"
    both = [offer(manifest=MANIFEST), offer("pi-2", manifest=MANIFEST)]
    assert [each.offers for each in collection.filed(0.0)] == [both]


def test_an_upload_that_was_given_up_while_it_was_filed_is_not_spoken_of(artifacts: ArtifactStore) -> None:
    clerk = Slow()
    collection = Collection(artifacts, clerk)
    collection.begin(offer(manifest=MANIFEST), MANIFEST, 100_000)
    for index in range(COUNT):
        collection.on_chunk("pi-1", piece(index), 0.0)
    artifacts.keep(set())  # its round is over: its part goes, and every write fails
    collection.keep_rounds(set())
    clerk.work()
    assert list(collection.filed(0.0)) == []


def test_an_update_that_a_power_cut_damaged_before_it_had_its_name_is_asked_for_again(artifacts: ArtifactStore) -> None:
    whole_only = describe(DATA, 1024, chunk_digests=False)
    clerk = Slow()
    collection = Collection(artifacts, clerk)
    collection.begin(offer(manifest=whole_only), whole_only, 100_000)
    for index in range(COUNT):
        collection.on_chunk("pi-1", piece(index), 0.0)
    part = artifacts.path(MANIFEST.artifact).with_suffix(".part")
    part.write_bytes(bytes(1024) + part.read_bytes()[1024:])  # the map was written, the first piece was not
    again = Collection(artifacts)
    assert not again.begin(offer(manifest=whole_only), whole_only, 100_000)
    assert fetch(again) == [offer(manifest=whole_only)]
    assert artifacts.read(MANIFEST.artifact) == DATA
