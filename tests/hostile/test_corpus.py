"""Every malicious file of the corpus is refused, or harmless: in one line, in little memory, and nothing is left."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from device_runtime.data import problems
from mas_edge.protocol.errors import EdgeError
from tests.device_runtime import folders
from tests.hostile.make_corpus import CORPUS, FILES, weights
from tests.hostile.readers import READERS, allowed_bytes, snapshot

CASES = [(kind, case) for kind, cases in FILES.items() for case in cases]


def test_the_script_makes_exactly_these_files() -> None:
    there = {str(path.relative_to(CORPUS)): path.read_bytes() for path in CORPUS.rglob("*") if path.is_file()}
    assert there == {f"{kind}/{case}": content for kind, cases in FILES.items() for case, content in cases.items()}


def test_the_corpus_stays_small() -> None:
    assert sum(len(content) for cases in FILES.values() for content in cases.values()) < 512 * 1024


# What is read although it is hostile, and why that does no harm.
HARMLESS = {
    ("from_device", "lines_of_a_log"): "its reason is made one line",
    ("from_device", "a_last_will_of_10_kilobytes"): "its reason is cut",
    ("from_device", "a_manifest_of_an_exabyte"): "the round says how large an update may be",
    ("from_device", "a_manifest_without_chunks"): "checked with the round's size",
    ("from_device", "a_manifest_below_zero"): "checked with the round's size",
    ("from_device", "a_manifest_that_is_a_path"): "checked with the round's size",
    ("from_device", "a_want_below_zero"): "checked against the artifact",
    ("from_device", "a_want_of_everything_twice"): "checked against the artifact",
    ("from_device", "a_want_without_end"): "checked against the artifact",
    ("from_device", "an_affinity_of_10_000_rows"): "the round knows how many rows there are",
    ("from_orchestrator", "a_program_of_an_exabyte"): "checked by the agent",
    ("from_orchestrator", "a_program_without_chunks"): "checked by the agent",
    ("from_orchestrator", "a_program_that_is_a_path"): "checked by the agent",
    ("from_orchestrator", "weights_out_of_a_path"): "checked by the agent",
    ("from_orchestrator", "digests_of_another_number_of_chunks"): "checked by the agent",
    ("from_orchestrator", "no_time"): "it is over at once",
    ("from_orchestrator", "all_the_time"): "until it is cancelled",
    ("from_orchestrator", "no_weights"): "checked by the agent",
    ("from_orchestrator", "a_deployment_without_golden_outputs"): "checked by the agent",
    ("from_orchestrator", "a_want_without_end"): "checked against the artifact",
    ("from_orchestrator", "a_receipt_of_nothing"): "nothing is forgotten",
    **{("finished", case): "removed: a power cut leaves such files" for case in FILES["finished"]},
    **{("map", case): "the digests decide" for case in FILES["map"]},
}


@pytest.mark.parametrize(("kind", "case"), CASES, ids=lambda value: value)
def test_a_hostile_file_is_refused_in_one_line_and_little_memory_unless_it_is_known_why_not(
    kind: str, case: str, tmp_path: Path
) -> None:
    content, said = (CORPUS / kind / case).read_bytes(), ""
    tracemalloc.start()
    try:
        READERS[kind](content, tmp_path)
    except EdgeError as error:
        said = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert bool(said) == ((kind, case) not in HARMLESS)
    assert len(said) < 1500
    assert said.isprintable(), said
    assert peak <= allowed_bytes(kind, len(content)), f"{peak} bytes for a file of {len(content)}"


@pytest.mark.parametrize("case", FILES["finished"])
def test_a_damaged_finished_round_is_gone_from_the_disk(case: str, tmp_path: Path) -> None:
    assert READERS["finished"](FILES["finished"][case], tmp_path) == []
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("kind", ["job", "data", "npy"])
def test_reading_writes_nothing(kind: str, tmp_path: Path) -> None:
    for number, content in enumerate(FILES[kind].values()):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(EdgeError):
            READERS[kind](content, directory)
        before = snapshot(directory)
        with pytest.raises(EdgeError):
            READERS[kind](content, directory)
        assert snapshot(directory) == before


def test_a_list_of_tensors_that_would_take_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = b"[" + b"[]," * (16 << 20 >> 2) + b"[]]"
    tracemalloc.start()
    with pytest.raises(EdgeError, match="a header at most"):
        READERS["weights"](weights(header), tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(header)


def test_a_pipe_where_a_file_belongs_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folders.write(tmp_path)
    for name in ("x.npy", "data.toml"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        assert problems(tmp_path)
