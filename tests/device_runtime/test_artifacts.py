"""Artifacts on a real disk, through crashes, damage and a full disk."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.part_file import PartFile
from mas_edge.protocol.artifact import (
    HEADER_BYTES,
    chunk_count,
    chunk_span,
    decode_chunk,
    describe,
    digest_of,
    encode_chunk,
)
from mas_edge.protocol.errors import DamagedChunksError, DeviceError, TransferError
from mas_edge.protocol.transfer import Incoming

DATA = random.Random(7).randbytes(9 * 1024 + 100)  # 10 chunks of 1 KiB, the last one short
MANIFEST = describe(DATA, 1024)
COUNT = chunk_count(MANIFEST)
DIGEST = MANIFEST.artifact

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")


def piece(index: int) -> bytes:
    return DATA[chunk_span(MANIFEST, index)]


def held_by(part: PartFile) -> set[int]:
    return set(range(COUNT)) - set(part.held.missing())


def write(part: PartFile, *indices: int) -> None:
    for index in indices:
        part.write(index, piece(index))


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
    later = path.stat().st_mtime_ns + 10**9  # some systems count a file's time in steps of 4 ms
    os.utime(path, ns=(later, later))


def names(store: ArtifactStore) -> set[str]:
    return {path.name for path in store.directory.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "state" / "artifacts")


def test_what_is_put_is_there_under_its_digest_and_alone(store: ArtifactStore) -> None:
    manifest = store.put(DATA, 1024)
    assert manifest == MANIFEST
    assert store.has(DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA == store.read(DIGEST)
    assert names(store) == {DIGEST}
    assert store.total_bytes == len(DATA)


def test_putting_the_same_bytes_again_changes_nothing(store: ArtifactStore) -> None:
    assert store.put(DATA) == store.put(DATA)
    assert names(store) == {DIGEST}


def test_an_artifact_that_is_here_can_be_described_again(store: ArtifactStore) -> None:
    store.put(DATA)
    assert store.manifest(DIGEST, 1024) == MANIFEST


def test_the_chunks_of_an_artifact_are_read_from_their_places_as_frames(store: ArtifactStore) -> None:
    store.put(DATA)
    frames = [store.read_frame(MANIFEST, index) for index in range(COUNT)]
    assert frames == [encode_chunk(MANIFEST, index, piece(index)) for index in range(COUNT)]
    with pytest.raises(TransferError, match="chunks 0 to 9"):
        store.read_frame(MANIFEST, COUNT)


READERS: dict[str, Callable[[ArtifactStore], object]] = {
    "read": lambda store: store.read(DIGEST),
    "read_frame": lambda store: store.read_frame(MANIFEST, 3),
    "manifest": lambda store: store.manifest(DIGEST),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_artifact_is_never_given_out_and_is_removed(store: ArtifactStore, reader: str) -> None:
    store.put(DATA)
    damage(store.path(DIGEST), 3 * 1024 + 5)
    with pytest.raises(DeviceError, match="damaged on disk and has been removed"):
        READERS[reader](store)
    assert not store.has(DIGEST)


@pytest.mark.parametrize("reader", READERS)
def test_an_artifact_cut_short_is_never_given_out(store: ArtifactStore, reader: str) -> None:
    store.put(DATA)
    store.path(DIGEST).write_bytes(DATA[: 3 * 1024 + 1])
    with pytest.raises(DeviceError, match="damaged"):
        READERS[reader](store)


@pytest.mark.parametrize("reader", READERS)
def test_an_artifact_that_is_not_here_is_asked_for_in_words(store: ArtifactStore, reader: str) -> None:
    with pytest.raises(DeviceError, match="has to be received again"):
        READERS[reader](store)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "/" + "a" * 63, "a" * 64 + ".part"])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(TransferError, match="not a sha256"):
        store.has(digest)
    with pytest.raises(TransferError, match="not a sha256"):
        store.partial(replace(MANIFEST, artifact=digest))


def test_keep_removes_everything_else_also_what_a_killed_process_left(store: ArtifactStore) -> None:
    other = store.put(b"other").artifact
    store.put(b"old")
    write(store.partial(MANIFEST), 1)
    store.partial(describe(b"stale"))
    store.path(digest_of(b"killed")).with_suffix(".tmp").write_bytes(b"kil")
    store.keep({other, DIGEST})
    assert names(store) == {other, f"{DIGEST}.part", f"{DIGEST}.map"}
    assert held_by(store.partial(MANIFEST)) == {1}


def test_chunks_in_any_order_become_the_artifact(store: ArtifactStore) -> None:
    part = store.partial(MANIFEST)
    for index in random.Random(3).sample(range(COUNT), COUNT):
        assert not store.has(DIGEST)
        part.write(index, memoryview(piece(index)))
    assert part.finish() == store.path(DIGEST)
    assert store.read(DIGEST) == DATA
    assert names(store) == {DIGEST}


def test_an_empty_artifact_is_complete_at_once(store: ArtifactStore) -> None:
    assert store.partial(describe(b"")).finish().read_bytes() == b""


def test_an_incomplete_part_is_not_finished(store: ArtifactStore) -> None:
    part = store.partial(MANIFEST)
    write(part, 0, 1)
    with pytest.raises(TransferError, match="lacks 8 of 10 chunks"):
        part.finish()
    assert held_by(store.partial(MANIFEST)) == {0, 1}


def test_a_manifest_whose_chunks_are_not_its_artifact_ends_with_nothing_on_disk(store: ArtifactStore) -> None:
    lie = replace(MANIFEST, artifact=digest_of(b"something else"))
    part = store.partial(lie)
    write(part, *range(COUNT))
    with pytest.raises(TransferError, match="its manifest contradicts itself"):
        part.finish()
    assert names(store) == set()


def test_damage_that_came_while_nobody_ran_is_found_when_the_artifact_is_first_asked_for(store: ArtifactStore) -> None:
    store.put(DATA, 1024)
    damage(store.path(DIGEST), 17)
    again = ArtifactStore(store.directory)
    assert not again.has(DIGEST)
    assert names(again) == set()


def test_half_a_file_under_a_whole_name_is_fetched_again(store: ArtifactStore) -> None:
    """What a power cut may leave of a download: those are not synced."""
    store.path(DIGEST).write_bytes(b"")
    assert not store.has(DIGEST)
    part = store.partial(MANIFEST)
    write(part, *range(COUNT))
    part.finish(durable=False)
    assert ArtifactStore(store.directory).read(DIGEST) == DATA


def test_an_artifact_is_lent_without_being_read_into_memory(store: ArtifactStore) -> None:
    store.put(DATA, 1024)
    empty = store.put(b"").artifact
    with store.opened(DIGEST) as whole, store.opened(empty) as nothing:
        assert (bytes(whole), bytes(nothing)) == (DATA, b"")
    damage(store.path(DIGEST), 17)
    with pytest.raises(DeviceError, match="damaged"), store.opened(DIGEST):
        pass
    assert not store.has(DIGEST)


@given(st.permutations(range(COUNT)))
def test_a_manifest_that_contradicts_itself_is_found_in_whatever_order_chunks_come(order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = ArtifactStore(Path(directory))
        lie = replace(MANIFEST, artifact=digest_of(b"something else"))
        part, honest = store.partial(lie), store.partial(MANIFEST)
        write(part, *order)
        write(honest, *order)
        with pytest.raises(TransferError, match="contradicts itself"):
            part.finish()
        assert honest.finish().read_bytes() == DATA


def test_damage_that_comes_after_a_chunk_was_verified_is_found_at_the_end(store: ArtifactStore) -> None:
    part = store.partial(MANIFEST)
    write(part, *range(COUNT))
    damage(store.path(DIGEST).with_suffix(".part"), 17)
    with pytest.raises(DamagedChunksError, match=r"1 of 10 chunks .* corrupt, the first is 0") as caught:
        part.finish()
    assert caught.value.indices == [0]
    assert not store.has(DIGEST)
    assert held_by(store.partial(MANIFEST)) == set(range(1, COUNT)), "a restart asks for no more than that"
    write(part, 0)
    assert part.finish().read_bytes() == DATA


WHOLE_ONLY = describe(DATA, 1024, chunk_digests=False)


def test_without_digests_of_its_chunks_an_artifact_that_arrived_damaged_comes_again_as_a_whole(
    store: ArtifactStore,
) -> None:
    part = store.partial(WHOLE_ONLY)
    write(part, *range(COUNT))
    damage(store.path(DIGEST).with_suffix(".part"), 17)
    with pytest.raises(DamagedChunksError) as caught:
        part.finish()
    assert caught.value.indices == list(range(COUNT))
    assert held_by(store.partial(WHOLE_ONLY)) == set()
    write(part, *range(COUNT))
    assert part.finish().read_bytes() == DATA


def test_without_digests_of_its_chunks_a_resume_believes_the_map_and_nothing_without_it(store: ArtifactStore) -> None:
    write(store.partial(WHOLE_ONLY), 1, 7)
    part = store.partial(WHOLE_ONLY)
    assert held_by(part) == {1, 7}
    store.path(DIGEST).with_suffix(".map").unlink()
    assert held_by(store.partial(WHOLE_ONLY)) == set()
    write(part, *part.held.missing())
    assert part.finish().read_bytes() == DATA


def test_what_the_disk_damaged_is_not_sent_even_without_digests_of_its_chunks(store: ArtifactStore) -> None:
    assert store.put(DATA, 1024, chunk_digests=False) == WHOLE_ONLY
    assert store.read_frame(WHOLE_ONLY, 3)[HEADER_BYTES:] == DATA[3 * 1024 : 4 * 1024]
    damage(store.path(DIGEST), 17)
    with pytest.raises(DeviceError, match="damaged"):
        store.read_frame(WHOLE_ONLY, 3)
    assert not store.has(DIGEST)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, COUNT - 1)), st.sets(st.integers(0, COUNT - 1)), st.booleans())
def test_a_resume_believes_only_chunks_that_match_their_digest(
    written: set[int], torn: set[int], map_lost: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        write(store.partial(MANIFEST), *written)
        for index in torn:
            damage(store.path(DIGEST).with_suffix(".part"), chunk_span(MANIFEST, index).start)
        if map_lost:
            store.path(DIGEST).with_suffix(".map").unlink()
        part = store.partial(MANIFEST)
        assert held_by(part) == written - torn
        asked = Incoming(MANIFEST, part.held, broadcast=True).poll(0.0) or []
        assert {index for start, stop in asked for index in range(start, stop)} == set(range(COUNT)) - (written - torn)
        write(part, *part.held.missing())
        assert part.finish().read_bytes() == DATA


def empty_map(chunk_map: Path) -> None:
    chunk_map.write_bytes(b"")


def cut_map(chunk_map: Path) -> None:
    chunk_map.write_bytes(chunk_map.read_bytes()[:-1])


def garbage_map(chunk_map: Path) -> None:
    chunk_map.write_bytes(b"\xff" * 100)


def map_with_bits_too_many(chunk_map: Path) -> None:
    chunk_map.write_bytes(chunk_map.read_bytes()[:-1] + b"\xff")


def map_of_another_chunk_size(chunk_map: Path) -> None:
    chunk_map.write_bytes(b"MAP1" + (4096).to_bytes(4, "big") + b"\x00")


@pytest.mark.parametrize("harm", [empty_map, cut_map, garbage_map, map_with_bits_too_many, map_of_another_chunk_size])
def test_a_map_that_is_no_use_loses_no_chunk(store: ArtifactStore, harm: Callable[[Path], None]) -> None:
    write(store.partial(MANIFEST), 2, 9)
    harm(store.path(DIGEST).with_suffix(".map"))
    assert held_by(store.partial(MANIFEST)) == {2, 9}


def test_a_map_that_claims_chunks_which_never_came_is_not_believed(store: ArtifactStore) -> None:
    write(store.partial(MANIFEST), 2)
    chunk_map = store.path(DIGEST).with_suffix(".map")
    chunk_map.write_bytes(chunk_map.read_bytes()[:8] + b"\xff\x03")
    assert held_by(store.partial(MANIFEST)) == {2}


def test_what_came_in_small_chunks_still_counts_when_the_sender_uses_larger_ones(store: ArtifactStore) -> None:
    write(store.partial(MANIFEST), 0, 1, 2, 3, 5)
    part = store.partial(describe(DATA, 2048))
    assert part.held.missing() == [2, 3, 4]


def test_a_part_of_another_size_is_begun_again(store: ArtifactStore) -> None:
    write(store.partial(MANIFEST), 1)
    with store.path(DIGEST).with_suffix(".part").open("ab") as file:
        file.write(b"x")
    part = store.partial(MANIFEST)
    write(part, *part.held.missing())
    assert part.finish().read_bytes() == DATA


KILLED = """
import os, signal, sys
from pathlib import Path
from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.protocol.artifact import chunk_span, describe
data = Path(sys.argv[2]).read_bytes()
manifest = describe(data, 1024)
part = ArtifactStore(Path(sys.argv[1])).partial(manifest)
for index in (4, 0, 7):
    part.write(index, data[chunk_span(manifest, index)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_keeps_every_chunk_it_had_written(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    script = [sys.executable, "-c", KILLED, str(store.directory), str(tmp_path / "data")]
    assert subprocess.run(script, check=False).returncode < 0
    part = store.partial(MANIFEST)
    assert held_by(part) == {0, 4, 7}
    incoming = Incoming(MANIFEST, part.held)
    for index in part.held.missing():
        frame = encode_chunk(MANIFEST, index, piece(index))
        data = incoming.on_chunk(decode_chunk(frame), 0.0)
        assert data is not None
        part.write(index, data)
    assert part.finish().read_bytes() == DATA


@needs_dev_full
def test_a_full_disk_is_said_in_words_when_putting(store: ArtifactStore) -> None:
    store.path(DIGEST).with_suffix(".tmp").symlink_to("/dev/full")
    with pytest.raises(DeviceError, match="the disk is full: free some space"):
        store.put(DATA)
    assert names(store) == set()


@needs_dev_full
def test_a_full_disk_is_said_in_words_when_receiving(store: ArtifactStore) -> None:
    part = store.partial(MANIFEST)
    file = store.path(DIGEST).with_suffix(".part")
    file.unlink()
    file.symlink_to("/dev/full")
    with pytest.raises(DeviceError, match="the disk is full"):
        write(part, 0)
    assert 0 not in part.held


def test_an_artifact_larger_than_the_free_space_is_refused_before_it_is_received(store: ArtifactStore) -> None:
    huge = replace(MANIFEST, size=2**60, chunk_size=2**60)
    with pytest.raises(DeviceError, match="bytes free, the artifact needs"):
        store.partial(huge)
    assert names(store) == set()


def test_a_directory_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError, match="cannot make the artifact directory"):
        ArtifactStore(tmp_path / "file" / "artifacts")


def test_a_part_that_was_pruned_while_it_arrives_is_said_in_words(store: ArtifactStore) -> None:
    part = store.partial(MANIFEST)
    write(part, *range(COUNT - 1))
    store.keep(set())
    with pytest.raises(DeviceError, match="cannot write to"):
        write(part, COUNT - 1)


@given(st.lists(st.binary(max_size=3000), max_size=6))
def test_pieces_are_put_as_what_they_are_together(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = ArtifactStore(Path(directory))
        assert store.put_pieces(pieces, 1024) == describe(b"".join(pieces), 1024)
        assert store.read(digest_of(b"".join(pieces))) == b"".join(pieces)
        assert len(names(store)) == 1
