"""Manifests, frames, ranges and bitmaps."""

import hashlib
import itertools
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.protocol.artifact import (
    DEFAULT_CHUNK,
    HEADER_BYTES,
    MAX_CHUNK,
    MAX_CHUNKS,
    MIN_CHUNK,
    Bitmap,
    check_manifest,
    chunk_count,
    chunk_size_for,
    chunk_span,
    decode_chunk,
    describe,
    describe_stream,
    digest_of,
    encode_chunk,
    from_ranges,
    to_ranges,
    verify_chunk,
)
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest

MIB = 1024 * 1024
DATA = bytes(range(256)) * 10  # 2560 bytes: two whole chunks of 1 KiB and a half one
MANIFEST = describe(DATA, 1024)

index_sets = st.integers(0, 70).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1)) if count else st.just(set()))
)


def test_a_manifest_names_the_bytes_and_every_chunk() -> None:
    assert MANIFEST.artifact == hashlib.sha256(DATA).hexdigest() == digest_of(DATA)
    assert (MANIFEST.size, MANIFEST.chunk_size, chunk_count(MANIFEST)) == (2560, 1024, 3)
    pieces = [DATA[:1024], DATA[1024:2048], DATA[2048:]]
    assert MANIFEST.chunk_digests == b"".join(hashlib.sha256(piece).digest() for piece in pieces)


@given(st.binary(max_size=5000), st.integers(MIN_CHUNK, 3000))
def test_the_spans_of_the_chunks_cover_the_artifact_once(data: bytes, chunk_size: int) -> None:
    manifest = check_manifest(describe(memoryview(data), chunk_size), max_bytes=5000)
    assert b"".join(data[chunk_span(manifest, index)] for index in range(chunk_count(manifest))) == data


def test_a_stream_is_described_like_the_bytes_it_gives() -> None:
    assert describe_stream(lambda start, length: DATA[start : start + length], len(DATA), 1024) == MANIFEST


def test_a_stream_that_ends_early_is_refused() -> None:
    with pytest.raises(TransferError, match="at offset 2048 of an artifact of 3584, got 512"):
        describe_stream(lambda start, length: DATA[start : start + length], len(DATA) + 1024, 1024)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        (0, MAX_CHUNK, DEFAULT_CHUNK),
        (2 * MIB, MAX_CHUNK, DEFAULT_CHUNK),
        (2 * MIB + 1, MAX_CHUNK, 2 * DEFAULT_CHUNK),
        (4 * MIB + 1, MAX_CHUNK, 4 * DEFAULT_CHUNK),
        (8 * MIB + 1, MAX_CHUNK, MAX_CHUNK),
        (100 * MIB, MAX_CHUNK, MAX_CHUNK),
        (1024 * MIB, MAX_CHUNK, MAX_CHUNK),
        (MIB, 20_000, 20_000),  # a broker with a small packet limit
        (100 * MIB, 100_000, 100_000),
        (MIB, 10 * MIB, DEFAULT_CHUNK),
    ],
)
def test_chunks_are_64_kib_and_grow_only_for_large_artifacts(size: int, limit: int, expected: int) -> None:
    assert chunk_size_for(size, limit) == expected


@given(st.integers(0, 2 * MAX_CHUNKS * MAX_CHUNK), st.integers(0, 2 * MAX_CHUNK))
def test_a_chunk_size_is_within_the_limit_and_enough_or_there_is_none(size: int, limit: int) -> None:
    try:
        chosen = chunk_size_for(size, limit)
    except TransferError:
        assert limit < MIN_CHUNK or size > MAX_CHUNKS * min(limit, MAX_CHUNK)
    else:
        assert MIN_CHUNK <= chosen <= min(limit, MAX_CHUNK)
        assert size <= MAX_CHUNKS * chosen


MANIFEST_FAULTS: dict[str, tuple[Manifest, str]] = {
    "digest too short": (replace(MANIFEST, artifact="ab" * 31), "not a sha256"),
    "digest in upper case": (replace(MANIFEST, artifact=MANIFEST.artifact.upper()), "not a sha256"),
    "digest is a path": (replace(MANIFEST, artifact="../" * 21 + "x"), "not a sha256"),
    "digest with a line break": (replace(MANIFEST, artifact=MANIFEST.artifact[:-1] + "\n"), "not a sha256"),
    "too large": (replace(MANIFEST, size=10_001), "at most 10000"),
    "negative size": (replace(MANIFEST, size=-1), "negative"),
    "no chunk size": (replace(MANIFEST, chunk_size=0), "chunk size 0"),
    "negative chunk size": (replace(MANIFEST, chunk_size=-1024), "chunk size -1024"),
    "chunks below the smallest": (replace(MANIFEST, chunk_size=1023), "chunk size 1023"),
    "chunks above the largest": (replace(MANIFEST, chunk_size=MAX_CHUNK + 1), f"chunk size {MAX_CHUNK + 1}"),
    "a digest missing": (replace(MANIFEST, chunk_digests=MANIFEST.chunk_digests[:-32]), "expected 96 for 3 chunks"),
    "a digest too many": (replace(MANIFEST, chunk_digests=MANIFEST.chunk_digests + b"x" * 32), "has 128 bytes"),
    "half a digest": (replace(MANIFEST, chunk_digests=MANIFEST.chunk_digests[:-16]), "has 80 bytes"),
    "empty but with digests": (replace(MANIFEST, size=0), "expected 0 for 0 chunks"),
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_a_wrong_manifest_is_refused_by_name(fault: str) -> None:
    manifest, text = MANIFEST_FAULTS[fault]
    with pytest.raises(TransferError, match=text):
        check_manifest(manifest, max_bytes=10_000)


def test_a_manifest_of_too_many_chunks_is_refused_before_anything_is_allocated_for_it() -> None:
    manifest = Manifest(artifact="0" * 64, size=10**15, chunk_size=MAX_CHUNK, chunk_digests=b"")
    with pytest.raises(TransferError, match="more than 4096 chunks"):
        check_manifest(manifest, max_bytes=10**18)


@given(st.binary(max_size=5000), st.integers(MIN_CHUNK, 3000))
def test_every_frame_of_an_artifact_decodes_to_its_chunk(data: bytes, chunk_size: int) -> None:
    manifest = describe(data, chunk_size)
    for index in range(chunk_count(manifest)):
        frame = encode_chunk(manifest, index, data[chunk_span(manifest, index)])
        chunk = decode_chunk(frame)
        verify_chunk(manifest, chunk)
        assert (chunk.index, bytes(chunk.data)) == (index, data[chunk_span(manifest, index)])


def test_the_frame_is_the_documented_24_bytes_and_the_data() -> None:
    frame = encode_chunk(MANIFEST, 2, DATA[2048:])
    assert frame[:HEADER_BYTES] == hashlib.sha256(DATA).digest()[:16] + b"\0\0\0\x02" + b"\0\0\x02\0"
    assert frame[HEADER_BYTES:] == DATA[2048:]


def test_decoding_copies_no_data() -> None:
    manifest = describe(bytes(MAX_CHUNK), MAX_CHUNK)
    frame = encode_chunk(manifest, 0, bytes(MAX_CHUNK))
    tracemalloc.start()
    chunk = decode_chunk(frame)
    verify_chunk(manifest, chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert chunk.data.obj is frame
    assert peak < MAX_CHUNK // 8


@pytest.mark.parametrize(("index", "data"), [(3, b"x"), (-1, b"x"), (0, DATA[:1023]), (2, DATA[:1024]), (0, b"")])
def test_a_chunk_that_the_artifact_does_not_have_is_not_encoded(index: int, data: bytes) -> None:
    with pytest.raises(TransferError):
        encode_chunk(MANIFEST, index, data)


GOOD_FRAME = encode_chunk(MANIFEST, 1, DATA[1024:2048])
FRAME_FAULTS: dict[str, bytes] = {
    "nothing": b"",
    "half a header": GOOD_FRAME[:12],
    "only a header": GOOD_FRAME[:HEADER_BYTES],
    "one byte short": GOOD_FRAME[:-1],
    "one byte too many": GOOD_FRAME + b"x",
    "empty data": struct.pack(">16sII", b"", 0, 0),
    "an index no artifact has": struct.pack(">16sII", b"", MAX_CHUNKS, 1) + b"x",
    "more data than any chunk": struct.pack(">16sII", b"", 0, MAX_CHUNK + 1) + bytes(MAX_CHUNK + 1),
    "text": b'{"type":"want","sender":"d"}',
}


@pytest.mark.parametrize("fault", FRAME_FAULTS)
def test_a_malformed_frame_is_refused(fault: str) -> None:
    with pytest.raises(TransferError, match="chunk frame"):
        decode_chunk(FRAME_FAULTS[fault])


CHUNK_FAULTS: dict[str, tuple[bytes, str]] = {
    "another artifact": (encode_chunk(describe(b"other", 1024), 0, b"other"), "expected one of"),
    "an index beyond this artifact": (GOOD_FRAME[:16] + b"\0\0\0\x03" + GOOD_FRAME[20:], "chunks 0 to 2"),
    "another chunk's data": (GOOD_FRAME[:16] + b"\0\0\0\x00" + GOOD_FRAME[20:-1] + b"?", "corrupt"),
    "one bit flipped": (GOOD_FRAME[:-1] + bytes([GOOD_FRAME[-1] ^ 1]), "corrupt"),
    "short data with a header that agrees": (GOOD_FRAME[:20] + b"\0\0\0\x01" + b"x", "has 1024 bytes, got 1"),
}


@pytest.mark.parametrize("fault", CHUNK_FAULTS)
def test_a_chunk_that_is_not_what_it_says_is_refused(fault: str) -> None:
    frame, text = CHUNK_FAULTS[fault]
    with pytest.raises(TransferError, match=text):
        verify_chunk(MANIFEST, decode_chunk(frame))


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: GOOD_FRAME[:20] + tail)))
def test_whatever_is_received_gives_a_verified_chunk_or_a_transfer_error(frame: bytes) -> None:
    try:
        verify_chunk(MANIFEST, decode_chunk(frame))
    except TransferError:
        return
    assert frame == GOOD_FRAME


@given(index_sets)
def test_ranges_carry_a_set_of_indices_and_are_merged(counted: tuple[int, set[int]]) -> None:
    count, indices = counted
    ranges = to_ranges(indices)
    assert from_ranges(ranges, count) == sorted(indices)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def test_repeated_indices_make_one_range() -> None:
    assert to_ranges([4, 2, 3, 2, 7, 7]) == [(2, 5), (7, 8)]


RANGE_FAULTS: dict[str, list[tuple[int, int]]] = {
    "empty": [(2, 2)],
    "backwards": [(3, 1)],
    "negative": [(-1, 2)],
    "beyond the last chunk": [(0, 11)],
    "far beyond": [(0, 10**18)],
    "overlapping": [(0, 3), (2, 4)],
    "the same again": [(0, 10), (0, 10)],
    "descending": [(5, 6), (1, 2)],
}


@pytest.mark.parametrize("fault", RANGE_FAULTS)
def test_wrong_ranges_are_refused(fault: str) -> None:
    with pytest.raises(TransferError, match="range"):
        from_ranges(RANGE_FAULTS[fault], 10)


@given(index_sets)
def test_a_bitmap_is_a_set_that_survives_its_bytes(counted: tuple[int, set[int]]) -> None:
    count, indices = counted
    bitmap = Bitmap(count)
    for index in [*indices, *indices]:
        bitmap.add(index)
    for same in (bitmap, Bitmap.from_bytes(bitmap.to_bytes(), count)):
        assert same.missing() == sorted(set(range(count)) - indices)
        assert {index for index in range(count) if index in same} == indices
        assert len(same) == len(indices)
        assert same.complete == (len(indices) == count)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Bitmap.from_bytes(b"", 3),
        lambda: Bitmap.from_bytes(b"\0\0", 3),
        lambda: Bitmap.from_bytes(b"\x08", 3),
        lambda: Bitmap(3).add(3),
        lambda: Bitmap(3).add(-1),
    ],
    ids=["too short", "too long", "a bit too many", "an index too large", "a negative index"],
)
def test_a_bitmap_refuses_what_does_not_fit_it(wrong: Callable[[], object]) -> None:
    with pytest.raises(TransferError):
        wrong()


def test_only_an_update_may_come_without_the_digests_of_its_chunks() -> None:
    bare = describe(DATA, MANIFEST.chunk_size, chunk_digests=False)
    assert bare == replace(MANIFEST, chunk_digests=b"")
    assert check_manifest(bare, len(DATA), whole_only=True) == bare
    with pytest.raises(TransferError, match="0 bytes of chunk digests"):
        check_manifest(bare, len(DATA))
    with pytest.raises(TransferError, match="expected 96 for 3 chunks"):
        check_manifest(replace(bare, chunk_digests=b"x" * 32), len(DATA), whole_only=True)
