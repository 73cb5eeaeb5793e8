"""The wire contract's page against the code: fields, types, defaults, topics, verdicts, numbers, example bytes."""

from __future__ import annotations

import importlib
import json
import types
import typing
import zlib
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from device_runtime.engines import open_engine
from mas_edge.protocol import messages, program, weights
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import Message, Verdict
from mas_edge.protocol.models import BOARD_ENGINE, BOARD_FORMAT, ENGINE_OF
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import Entry, Layout, pack
from tests.docs.pages import ROOT, blocks, in_ticks, rows, section

PAGE = ROOT / "docs" / "protocol" / "README.md"
STRUCTS: dict[str, type[msgspec.Struct]] = {
    cls.__name__: cls
    for module in (messages, program, weights)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct)
}
# What is read out of a message that does not decode: it never crosses the broker itself.
INTERNAL = {"RoundName"}
WITHOUT_FIELDS = {"Rebirth"}
PLANS = "What a device does with a plan"
SIMPLE = {
    str: "text", int: "integer", float: "number", bool: "true or false", bytes: "base64", Any: "any",
    msgspec.Raw: "any",
}  # fmt: skip


def json_type(hint: Any) -> str:
    """How the page calls a type."""
    origin, arguments = typing.get_origin(hint), get_args(hint)
    if hint in SIMPLE:
        return SIMPLE[hint]
    if origin in (types.UnionType, typing.Union):  # the latter where a part of it is annotated
        return f"{json_type(next(a for a in arguments if a is not types.NoneType))} or null"
    if origin is dict:
        return f"object: {json_type(arguments[1])}"
    if origin is list:
        item = json_type(arguments[0])
        return f"list of ({item})" if typing.get_origin(arguments[0]) is types.UnionType else f"list of {item}"
    if origin in (typing.Literal, tuple):
        return "one word" if origin is typing.Literal else "pair"
    return str(hint.__name__)


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    made = field.default_factory() if callable(field.default_factory) else field.default
    return f"`{json.dumps(made.decode() if isinstance(made, bytes) else made)}`"


def fields_of(cls: type[msgspec.Struct]) -> list[list[str]]:
    hints = typing.get_type_hints(cls)
    inherited = set(Message.__struct_fields__) if issubclass(cls, Message) and cls is not Message else set()
    own = [field for field in msgspec.structs.fields(cls) if field.name not in inherited]
    return [[f"`{field.name}`", json_type(hints[field.name]), default_of(field)] for field in own]


@pytest.mark.parametrize("name", sorted(STRUCTS.keys() - INTERNAL - WITHOUT_FIELDS))
def test_every_field_is_documented_with_its_type_and_default_and_no_other(name: str) -> None:
    assert [row[:3] for row in rows(section(PAGE, name))] == fields_of(STRUCTS[name])


@pytest.mark.parametrize("name", sorted(name for name, cls in STRUCTS.items() if issubclass(cls, Message)))
def test_every_message_is_documented_with_its_type_word(name: str) -> None:
    tag = STRUCTS[name].__struct_config__.tag
    assert tag is None or f'`"type": "{tag}"`' in section(PAGE, name)


def test_the_verdicts_are_those_of_the_receipt() -> None:
    assert {in_ticks(row[0])[0] for row in rows(section(PAGE, "Receipt"), 1)} == set(get_args(Verdict))


def test_the_topics_are_those_of_the_code() -> None:
    topics = Topics("F")
    of_device = (topics.birth, topics.status, topics.command, topics.response, topics.chunk, topics.upload)
    known = [topic("D") for topic in of_device]
    known += [topics.command_all, topics.broadcast("a" * 64), topics.orchestrator]
    documented = [in_ticks(row[0])[0] for row in rows(section(PAGE, "Topics"))]
    filled = [t.format(fleet="F", device="D", artifact="a" * 32) for t in documented]
    assert filled == known


@pytest.mark.parametrize("row", rows(section(PAGE, "Numbers")), ids=lambda row: row[0])
def test_the_numbers_are_those_of_the_code(row: list[str]) -> None:
    module, constant = in_ticks(row[2])[0].split(":")
    assert float(row[1]) == getattr(importlib.import_module(module), constant)


def test_the_formats_of_models_are_those_of_the_code_in_their_order() -> None:
    documented = [(in_ticks(row[0])[0], in_ticks(row[1])[0]) for row in rows(section(PAGE, PLANS))]
    assert documented == [*ENGINE_OF.items(), (BOARD_FORMAT, BOARD_ENGINE)]


def test_the_example_messages_decode() -> None:
    found = [json.loads(block.text) for block in blocks(PAGE) if block.language == "json" and '"type"' in block.text]
    kinds = [type(messages.decode_from_device(json.dumps(m).encode(), m["sender"])).__name__ for m in found]
    assert kinds == ["Birth", "Want"]


def test_the_example_program_loads_and_runs() -> None:
    [text] = [block.text for block in blocks(PAGE) if block.language == "json" and '"methods"' in block.text]
    loaded = program.load(b"MASEDGE1" + zlib.compress(text.encode()))
    feeds = {"weights": np.array([3], np.float32), "x": np.array([[1], [2]], np.float32)}
    assert open_engine("torch").load(loaded).run("evaluate", feeds)["losses"] == [4.5]


def test_the_example_chunk_has_the_bytes_that_are_shown() -> None:
    [shown] = [bytes.fromhex(block.text) for block in blocks(PAGE) if block.language == "hex"]
    whole = b"a" * 3000
    frame = encode_chunk(describe(whole, 1024), 2, whole[2048:])
    assert frame[: len(shown)] == shown
    assert len(frame) == 24 + 952


def test_the_example_weights_have_the_bytes_that_are_shown() -> None:
    [text] = [block.text for block in blocks(PAGE) if block.language == "safetensors"]
    length, header, numbers = text.splitlines()
    layout = Layout([Entry("encoder.bias", [2], "encoder"), Entry("heads.a.weight", [1, 1], "a")])
    shown = bytes.fromhex(length) + header.encode() + b"  " + bytes.fromhex(numbers)
    assert pack(layout, np.array([1, -2, 0.5], np.float32)) == shown
