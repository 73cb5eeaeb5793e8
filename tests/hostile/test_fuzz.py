"""Sound files with damage that nobody thought of: each reader gives a result or an error of the tree, in one line."""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.program import MAGIC
from tests.hostile.make_corpus import PROGRAM, packed, text, weights
from tests.hostile.readers import READERS
from tests.hostile.sound import SOUND
from tests.hostile.strategies import damaged, messages, spoiled

# What lies on a disk is written anew for each example.
EXAMPLES = dict.fromkeys(("npy", "data", "job", "map", "finished"), 60)


def read(kind: str, content: bytes) -> None:
    with TemporaryDirectory() as directory:
        try:
            READERS[kind](content, Path(directory))
        except EdgeError as error:
            assert 0 < len(str(error)) < 1500
            assert str(error).isprintable(), str(error)


def test_every_kind_has_a_sound_file_that_is_read(tmp_path: Path) -> None:
    assert SOUND.keys() == READERS.keys()
    for kind, files in SOUND.items():
        for number, content in enumerate(files):
            directory = tmp_path / kind / str(number)
            directory.mkdir(parents=True)
            READERS[kind](content, directory)


@pytest.mark.parametrize("kind", [kind for kind in READERS if not kind.startswith("from_")])
def test_damage_ends_in_one_line_or_in_nothing(kind: str) -> None:
    @settings(max_examples=EXAMPLES.get(kind, 200), deadline=None)
    @given(damaged(SOUND[kind]))
    def check(content: bytes) -> None:
        read(kind, content)

    check()


@pytest.mark.parametrize("kind", ["from_device", "from_orchestrator"])
def test_messages_end_in_one_line_or_in_a_message(kind: str) -> None:
    @settings(max_examples=400, deadline=None)
    @given(messages(SOUND[kind]))
    def check(content: bytes) -> None:
        read(kind, content)

    check()


def _unpacked(content: bytes) -> bytes:
    return zlib.decompress(content[len(MAGIC) :])


@settings(max_examples=200, deadline=None)
@given(spoiled([_unpacked(content) for content in SOUND["program"]] + [text(PROGRAM)]).map(packed))
def test_a_program_with_odd_values_ends_in_one_line_or_in_a_program(content: bytes) -> None:
    read("program", content)


_HEADER = text({"encoder.w": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}})


@settings(max_examples=200, deadline=None)
@given(spoiled([_HEADER]), st.sampled_from([b"", bytes(4), bytes(32)]))
def test_weights_with_odd_values_in_their_header_end_in_one_line_or_in_tensors(header: bytes, body: bytes) -> None:
    read("weights", weights(header, body))


@settings(max_examples=100, deadline=None)
@given(spoiled(SOUND["finished"]))
def test_a_finished_round_with_odd_values_is_offered_again_or_removed(content: bytes) -> None:
    read("finished", content)
