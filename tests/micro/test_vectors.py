"""The published vectors and the AsyncAPI document: what the code makes now, and what the reference reads."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_runtime.edge.fragments import Assembly
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import decode_chunk, digest_of, from_ranges, to_ranges, verify_chunk
from mas_edge.protocol.errors import MessageError, ProtocolError
from mas_edge.protocol.messages import Manifest, decode_from_device, decode_from_orchestrator, encode
from mas_edge.protocol.signed import signed_bytes
from mas_edge.protocol.topics import check_name
from mas_edge.protocol.weights import Entry, Layout, flatten, unpack
from tests.docs.pages import ROOT

FOLDER = ROOT / "docs" / "protocol" / "vectors"
ANEW = "the wire has changed: run `python tools/protocol_vectors.py` and look at what it changes"


def tool(name: str) -> ModuleType:
    """A script of the tools folder as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def manifest_of(told: dict[str, Any]) -> Manifest:
    return Manifest(**{**told, "chunk_digests": bytes.fromhex(told["chunk_digests"])})


MANIFEST = manifest_of(section("frames")["manifest"])
WHOLE = bytes.fromhex(section("frames")["whole"])


def test_the_files_are_what_the_code_makes() -> None:
    made = tool("protocol_vectors")
    assert {path.stem for path in FOLDER.iterdir()} == set(made.vectors())
    for name, vectors in made.vectors().items():
        assert (FOLDER / f"{name}.json").read_text() == made.text_of(vectors), ANEW


def test_the_asyncapi_document_is_what_the_code_makes() -> None:
    made = json.dumps(tool("message_schema").asyncapi(), indent=2) + "\n"
    stored = (FOLDER.parent / "asyncapi.json").read_text()
    assert stored == made, "run `python tools/message_schema.py --asyncapi > docs/protocol/asyncapi.json`"


def references(node: object) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(references, node.values()))


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads((FOLDER.parent / "asyncapi.json").read_text())
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    used = {step["channel"]["$ref"].rpartition("/")[2] for step in document["operations"].values()}
    assert used == document["channels"].keys()


def decode(direction: str, data: bytes) -> Any:
    if direction == "from_orchestrator":
        return decode_from_orchestrator(data)
    return decode_from_device(data, section("topics")["device"])


@pytest.mark.parametrize("name", section("messages"))
def test_a_message_is_read_and_written_as_the_vector_says(name: str) -> None:
    text = section("messages")[name].encode()
    message = decode(name.partition("/")[0], text)
    assert message.__struct_config__.tag == name.split("/")[1]
    if name.endswith("/full"):
        assert encode(message) == text
    assert decode(name.partition("/")[0], encode(message)) == message


@pytest.mark.parametrize("why", section("refused"))
def test_a_body_is_refused_that_is(why: str) -> None:
    case = section("refused")[why]
    with pytest.raises(ProtocolError):
        decode(case["direction"], bytes.fromhex(case["hex"]))


def test_the_names_are_good_and_bad() -> None:
    names = section("topics")["names"]
    assert [check_name(name, "device") for name in names["good"]] == names["good"]
    for name in names["bad"]:
        with pytest.raises(MessageError):
            check_name(name, "device")


def test_the_frames_are_the_pieces_of_the_whole() -> None:
    chunks = [decode_chunk(bytes.fromhex(frame)) for frame in section("frames")["frames"]]
    for chunk in chunks:
        verify_chunk(MANIFEST, chunk)
    assert b"".join(chunk.data for chunk in chunks) == WHOLE
    assert digest_of(WHOLE) == MANIFEST.artifact


@pytest.mark.parametrize("why", section("frames")["refused"])
def test_a_frame_is_refused_that_has(why: str) -> None:
    frame = bytes.fromhex(section("frames")["refused"][why])
    with pytest.raises(ProtocolError):
        verify_chunk(MANIFEST, decode_chunk(frame))


def test_the_fragments_are_put_together_in_any_order() -> None:
    vectors = section("fragments")
    pieces = [bytes.fromhex(piece) for piece in vectors["fragments"]]
    assembly = Assembly()
    assert [assembly.take("t", piece) for piece in pieces[:0:-1]] == [None] * (len(pieces) - 1)
    assert assembly.take("t", pieces[0]) == bytes.fromhex(vectors["whole"])
    for refused in vectors["refused"].values():
        with pytest.raises(MessageError):
            Assembly().take("t", bytes.fromhex(refused))


def test_the_ranges_are_the_indices() -> None:
    vectors = section("ranges")
    for case in vectors["good"]:
        ranges = [(start, stop) for start, stop in case["ranges"]]
        assert to_ranges(case["indices"]) == ranges
        assert from_ranges(ranges, vectors["count"]) == case["indices"]
    for refused in vectors["refused"]:
        with pytest.raises(ProtocolError):
            from_ranges([(start, stop) for start, stop in refused], vectors["count"])


def test_the_weights_hold_the_numbers() -> None:
    vectors = section("weights")
    layout = Layout([Entry(**entry) for entry in vectors["layout"]])
    data = bytes.fromhex(vectors["file"])
    assert flatten(layout, data).tobytes() == bytes.fromhex(vectors["numbers"])
    assert digest_of(data) == vectors["artifact"]
    derived = unpack(bytes.fromhex(vectors["derived"]["file"]))
    assert list(derived) == [e.name for e in layout.of_parts(set(vectors["derived"]["parts"])).entries]
    assert all(np.array_equal(tensor, unpack(data)[name]) for name, tensor in derived.items())


@pytest.mark.parametrize("why", section("weights")["refused"])
def test_weights_are_refused_with(why: str) -> None:
    with pytest.raises(ProtocolError):
        unpack(bytes.fromhex(section("weights")["refused"][why]))


def test_the_program_unpacks_to_the_text() -> None:
    vectors = section("programs")
    program = program_format.load(bytes.fromhex(vectors["stored"]))
    assert msgspec.json.encode(program, order="deterministic").decode() == vectors["text"]
    for refused in vectors["refused"].values():
        with pytest.raises(ProtocolError):
            program_format.load(bytes.fromhex(refused))


def test_the_signature_is_that_of_the_signed_bytes() -> None:
    vectors = section("signed")
    plan = vectors["plan"].encode()
    signed = signed_bytes(vectors["fleet"], vectors["receiver"], vectors["life"], vectors["seq"], plan)
    assert signed == bytes.fromhex(vectors["signed"])
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["public_key"]))
    key.verify(bytes.fromhex(vectors["signature"]), signed)


def test_the_header_for_c_holds_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("protocol_vectors").main(["--c-header"]) == 0
    printed = capsys.readouterr().out
    first = ",".join(map(str, bytes.fromhex(section("frames")["frames"][0])))
    assert f"frames_0[] = {{{first}}};" in printed


def test_the_folder_is_named_by_the_page() -> None:
    page = Path(FOLDER.parent / "README.md").read_text()
    assert all(f"`{path.name}`" in page for path in FOLDER.iterdir())
    assert "asyncapi.json" in page
