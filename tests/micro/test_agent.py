"""A board's agent as its owner would try it: damaged pieces, a full flash, a cut in the middle of a piece."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_runtime.micro import agent as _agent
from device_runtime.micro import flash as _flash
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import Manifest

agent: Any = _agent  # written for MicroPython, which has no types
flash: Any = _flash
DATA = bytes(range(256)) * 20  # five chunks


class Bench:
    """An agent with a real store, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.said: list[dict[str, Any]] = []
        state = flash.State(str(folder))
        self.store = flash.Store(str(folder / "artifacts"), flash.Models(str(folder), state))
        self.agent = agent.Agent(
            "esp", "life", dict, self.store, str(folder / "offers"), lambda message, topic: self.said.append(message),
            lambda manifest, index: None, lambda plan: "",
        )  # fmt: skip
        self.manifest = describe(DATA, 1024)

    def tell(self, **plan: Any) -> None:
        message = {
            "type": "plan", "sender": "orchestrator", "boot_id": "o", "seq": 1, "job": "j", "round_id": "r1",
            "kind": "deploy", "group": "g", "tasks": ["a"], "deadline_s": 60, "program": told(self.manifest),
            "health": {"golden": told(self.manifest), "tolerance": 0.1, "max_latency_s": 1}, "format": "int8", **plan,
        }  # fmt: skip
        self.agent.on_message(json.dumps(message).encode(), 0)

    def give(self, index: int, *, damaged: bool = False) -> None:
        piece = bytearray(DATA[1024 * index : 1024 * index + 1024])
        piece[7] ^= damaged
        frame = encode_chunk(self.manifest, index, bytes(piece))
        self.agent.on_frame(len(frame), reader_of(frame), 0)

    def close(self) -> None:
        if self.agent._part is not None:
            self.agent._part.close()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.said if message["type"] == kind]


def told(manifest: Manifest) -> dict[str, Any]:
    return {
        "artifact": manifest.artifact, "size": manifest.size, "chunk_size": manifest.chunk_size,
        "chunk_digests": base64.b64encode(manifest.chunk_digests).decode(),
    }  # fmt: skip


def reader_of(data: bytes) -> Callable[[memoryview], None]:
    place = 0

    def fill(view: memoryview) -> None:
        nonlocal place
        view[:] = data[place : place + len(view)]
        place += len(view)

    return fill


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_damaged_piece_is_asked_for_again_and_the_whole_is_right(bench: Bench) -> None:
    bench.tell()
    for index in (0, 1, 2, 3):
        bench.give(index)
    bench.give(4, damaged=True)
    assert bench.of("want")[-1]["ranges"] == [[4, 5]]
    bench.give(4)
    assert Path(bench.store.path(bench.manifest.artifact)).read_bytes() == DATA
    assert bench.of("refusal") == []


def test_who_sends_damaged_pieces_only_is_told_and_the_board_is_free_for_the_next_plan(bench: Bench) -> None:
    bench.tell()
    for _ in range(agent.MAX_CORRUPT):
        bench.give(0, damaged=True)
    assert [refusal["round_id"] for refusal in bench.of("refusal")] == ["r1"]
    assert "5 chunks" in bench.of("refusal")[0]["reason"]
    wants = len(bench.of("want"))
    bench.give(0)  # one that was still on its way
    assert (bench.agent.errands, len(bench.of("want"))) == ([], wants)
    bench.tell(round_id="r2")
    for index in range(5):
        bench.give(index)
    assert [errand.stage for errand in bench.agent.errands] == ["ready"]


@pytest.mark.parametrize("index", [9, 4])
def test_a_piece_that_is_none_of_the_artifact_is_dropped(bench: Bench, index: int) -> None:
    bench.tell()
    frame = encode_chunk(describe(bytes(10 * 1024), 1024), index, bytes(1024))
    bench.agent.on_frame(len(frame), reader_of(frame), 0)  # of another artifact
    own = bytearray(encode_chunk(bench.manifest, 4, DATA[4096:]))
    own[16:20] = (index + 5).to_bytes(4, "big")
    with pytest.raises(flash.Refused):
        bench.agent.on_frame(len(own), reader_of(bytes(own)), 0)
    assert bench.agent._part.missing(9) == [0, 1, 2, 3, 4]


def test_a_full_flash_is_a_refusal_and_what_lay_there_of_the_plan_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tell()
    bench.give(0)

    def full(*_: object) -> bool:
        raise OSError(28, "ENOSPC")

    monkeypatch.setattr(flash.Part, "write", full)
    with pytest.raises(OSError, match="ENOSPC") as error:
        bench.give(1)
    bench.agent.on_flash_failed(error.value, 0)
    assert "the flash refuses" in bench.of("refusal")[0]["reason"]
    assert bench.agent.errands == []
    assert list(Path(bench.store.folder).iterdir()) == []


def test_a_power_cut_in_the_middle_of_a_piece_costs_that_piece(tmp_path: Path, bench: Bench) -> None:
    bench.tell()
    bench.give(0)

    def cut(view: memoryview) -> None:
        if len(view) != 24:
            view[:300] = DATA[1024:1324]  # so much of it was in the buffer
            bench.agent._part._file.write(view[:300])
            raise KeyboardInterrupt
        view[:] = encode_chunk(bench.manifest, 1, DATA[1024:2048])[:24]

    with pytest.raises(KeyboardInterrupt):
        bench.agent.on_frame(1048, cut, 0)
    bench.close()
    again = Bench(tmp_path)
    again.tell()
    assert again.of("want")[-1]["ranges"] == [[1, 5]]
    for index in (1, 2, 3, 4):
        again.give(index)
    assert Path(again.store.path(again.manifest.artifact)).read_bytes() == DATA


def test_an_artifact_that_is_not_what_its_chunks_make_is_refused_and_not_fetched_for_ever(bench: Bench) -> None:
    """Its pieces are right, and the whole has another name: whoever says so has no other."""
    bench.manifest = msgspec.structs.replace(bench.manifest, artifact="0" * 64)
    bench.tell()
    for _ in range(2):
        assert bench.of("refusal") == []
        for index in range(5):
            bench.give(index)
    assert "000000000000" in bench.of("refusal")[0]["reason"]
    assert bench.agent.errands == []
    assert list(Path(bench.store.folder).iterdir()) == []


def test_an_empty_artifact_of_another_name_is_refused(bench: Bench) -> None:
    bench.manifest = msgspec.structs.replace(describe(b"", 1024), artifact="0" * 64)
    bench.tell()
    assert "000000000000" in bench.of("refusal")[0]["reason"]
    assert bench.agent.errands == []


DAMAGED_OFFERS = {
    "no JSON": b"{",
    "none": b"null",
    "a list": b"[1]",
    "another round": b'{"job": "j", "round_id": "other", "report": {}}',
    "no job": b'{"round_id": "r1", "report": {}}',
    "a report that is none": b'{"job": "j", "round_id": "r1", "report": 7}',
    "a manifest that is none": b'{"job": "j", "round_id": "r1", "report": {}, "manifest": [1]}',
    "a manifest that contradicts itself": b'{"job": "j", "round_id": "r1", "report": {}, "manifest": {"artifact": "'
    + b"0" * 64
    + b'", "size": 7, "chunk_size": 0, "chunk_digests": ""}}',
}


@pytest.mark.parametrize("what", DAMAGED_OFFERS)
def test_an_offer_that_the_flash_damaged_is_forgotten_and_the_board_works_on(tmp_path: Path, what: str) -> None:
    (tmp_path / "offers").mkdir()
    (tmp_path / "offers" / "r1").write_bytes(DAMAGED_OFFERS[what])
    bench = Bench(tmp_path)
    bench.agent.on_connected(0)
    bench.tell()
    assert [ack["round_id"] for ack in bench.of("ack")] == ["r1"]
    assert bench.of("offer") == []
    assert list((tmp_path / "offers").iterdir()) == []
    bench.close()
