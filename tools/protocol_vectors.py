"""Byte-exact test vectors of the wire contract, made by the code that the orchestrator and the devices run.

python tools/protocol_vectors.py              # writes docs/protocol/vectors/*.json
python tools/protocol_vectors.py --c-header   # prints them as C arrays, for tests/micro/vectors.c

A change of the wire changes these files; a test makes them anew and compares. Which section holds what, and what a
reader has to do with it, is in docs/protocol/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_runtime.edge.fragments import PacketLimit
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import Bitmap, describe, digest_of, encode_chunk, to_ranges
from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.messages import FromDevice, FromOrchestrator, Manifest, Plan, encode
from mas_edge.protocol.program import Method, Node, Program, TargetSpec, Value
from mas_edge.protocol.signed import signed_bytes
from mas_edge.protocol.topics import Topics, check_name
from mas_edge.protocol.weights import Entry, Layout, derive, pack, part_weights, sent_layout

FOLDER = Path(__file__).parents[1] / "docs" / "protocol" / "vectors"
FLEET, DEVICE = "home", "pi-kitchen"
WHOLE = bytes(index % 251 for index in range(3000))  # 251 is prime: no two chunks of it are equal
KEY = bytes(range(32))  # of the signature; known to everybody, and good for nothing else

Vectors = dict[str, Any]


def vectors() -> dict[str, Vectors]:
    """Every section by the name of its file. Raises nothing: these are the reference's own answers."""
    return {
        "topics": _topics(), "messages": _messages(), "refused": _refused(), "frames": _frames(),
        "fragments": _fragments(), "ranges": _ranges(), "weights": _weights(), "programs": _programs(),
        "signed": _signed(),
    }  # fmt: skip


# ---------------------------------------------------------------------- messages


def _topics() -> Vectors:
    topics, artifact = Topics(FLEET), describe(WHOLE, 1024).artifact
    of_device = ("birth", "status", "command", "response", "chunk", "upload")
    names = {"good": ["a", "pi-kitchen", "A.b_c-9", "x" * 64], "bad": ["", "-a", ".a", "a/b", "a+", "#", "x" * 65, "ä"]}
    for name in names["bad"]:
        try:
            check_name(name, "device")
        except MessageError:
            continue
        raise AssertionError(name)
    return {
        "fleet": FLEET, "device": DEVICE, "artifact": artifact, "names": names,
        "of_device": {leaf: getattr(topics, leaf)(DEVICE) for leaf in of_device},
        "command_all": topics.command_all, "broadcast": topics.broadcast(artifact), "orchestrator": topics.orchestrator,
    }  # fmt: skip


def _messages() -> Vectors:
    """Each message with the fields that it must have, and with all of them."""
    found: Vectors = {}
    for direction, union in (("from_device", FromDevice), ("from_orchestrator", FromOrchestrator)):
        sender = DEVICE if direction == "from_device" else "orchestrator"
        for cls in get_args(union):
            for extent in ("least", "full"):
                message = _filled(cls, sender, everything=extent == "full")
                text = encode(message) if extent == "full" else _least(message)
                found[f"{direction}/{cls.__struct_config__.tag}/{extent}"] = text.decode()
    return found


def _least(message: Any) -> bytes:
    """Its JSON without the fields that have a default."""
    needed = ["type", *(field.name for field in msgspec.structs.fields(message) if field.required)]
    raw = msgspec.json.decode(encode(message), type=dict[str, msgspec.Raw])  # a plan that is signed stays as it is
    return msgspec.json.encode({name: raw[name] for name in needed})


def _filled(cls: type[Any], sender: str, *, everything: bool) -> Any:
    """An instance whose values say little and fit: required fields only, or ``everything``."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [field for field in msgspec.structs.fields(cls) if everything or field.required]
    return cls(**{field.name: _value(field.name, hints[field.name], sender, everything) for field in fields})


def _value(name: str, hint: Any, sender: str, everything: bool) -> Any:
    manifest = describe(WHOLE, 1024)
    known: Vectors = {
        "sender": sender, "round_id": "merged-0003", "job": "watch-1f", "ranges": [(0, 2), (5, 6)],
        "artifact": manifest.artifact, "derive_from": manifest.artifact, "affinity": [[None, 0.5], [-0.25, 0.0]],
        "receiver": DEVICE, "tasks": ["a", "b"],
    }  # fmt: skip
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Manifest:
        return manifest
    if hint is msgspec.Raw:
        return msgspec.Raw(encode(_filled(Plan, sender, everything=everything)))
    if name in known and not (name == "tasks" and origin is not list):
        return known[name]
    if origin is typing.Annotated:
        return _value(name, arguments[0], sender, everything)
    if origin in (types.UnionType, typing.Union):
        return _value(name, next(each for each in arguments if each is not types.NoneType), sender, everything)
    if origin is typing.Literal:
        return arguments[0]
    if origin is list:
        return [_value(name, arguments[0], sender, everything)]
    if origin is dict:
        return {"a": _value(name, arguments[1], sender, everything)}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _filled(hint, sender, everything=everything)
    return {str: f"the {name}", int: 7, float: 0.5, bool: True, bytes: b"\x00\x01\xfe\xff"}[hint]


def _refused() -> Vectors:
    """Bodies that no reader may take, with the reason; ``hex`` because not all of them are text."""
    ack = json.loads(encode(_filled(get_args(FromDevice)[2], DEVICE, everything=False)))
    want = json.loads(encode(_filled(get_args(FromDevice)[4], DEVICE, everything=False)))
    receipt = {**ack, "type": "receipt", "sender": "orchestrator", "verdict": "accepted"}
    text = json.dumps(receipt)
    bodies: dict[str, tuple[str, bytes]] = {
        "empty": ("from_orchestrator", b""),
        "no JSON": ("from_orchestrator", b"\x00\x01"),
        "cut off": ("from_orchestrator", text[:-1].encode()),
        "something behind it": ("from_orchestrator", (text + "}").encode()),
        "not UTF-8": ("from_orchestrator", text.replace("accepted", "acc").encode() + b"\xff"),
        "a list": ("from_orchestrator", b"[]"),
        "no type": ("from_orchestrator", _body(receipt, without="type")),
        "a type nobody knows": ("from_orchestrator", _body(receipt, type="reciept")),
        "no job": ("from_orchestrator", _body(receipt, without="job")),
        "a number for text": ("from_orchestrator", _body(receipt, job=3)),
        "null for text": ("from_orchestrator", _body(receipt, job=None)),
        "a verdict nobody knows": ("from_orchestrator", _body(receipt, verdict="perhaps")),
        "a fraction for an integer": ("from_orchestrator", _body(receipt, seq=3.5)),
        "text for an integer": ("from_orchestrator", _body(receipt, seq="3")),
        "true for an integer": ("from_orchestrator", _body(receipt, seq=True)),
        "a sequence below zero": ("from_orchestrator", _body(receipt, seq=-1)),
        "text for a number": ("from_orchestrator", _body(receipt, next_checkin_s="60")),
        "a NaN": ("from_orchestrator", text.replace('"accepted"', '"accepted", "next_checkin_s": NaN').encode()),
        "a round that is a path": ("from_orchestrator", _body(receipt, round_id="../state")),
        "a round without a name": ("from_orchestrator", _body(receipt, round_id="")),
        "a pair of three": ("from_orchestrator", _body(want, sender="orchestrator", ranges=[[0, 1, 2]])),
        "another device's name": ("from_device", _body(ack, sender="pi-garden")),
        "a message of the other side": ("from_device", text.encode()),
    }
    return {why: {"direction": direction, "hex": body.hex()} for why, (direction, body) in bodies.items()}


def _body(message: Vectors, without: str = "", **changed: Any) -> bytes:
    return json.dumps({name: value for name, value in {**message, **changed}.items() if name != without}).encode()


# ---------------------------------------------------------------------- artifacts


def _manifest(manifest: Manifest) -> Vectors:
    return {
        "artifact": manifest.artifact, "size": manifest.size, "chunk_size": manifest.chunk_size,
        "chunk_digests": manifest.chunk_digests.hex(),
    }  # fmt: skip


def _frames() -> Vectors:
    manifest = describe(WHOLE, 1024)
    frames = [encode_chunk(manifest, index, WHOLE[index * 1024 : (index + 1) * 1024]) for index in range(3)]
    last = frames[2]
    corrupt = last[:-1] + bytes([last[-1] ^ 1])
    held = Bitmap(20)
    for index in (0, 3, 9, 19):
        held.add(index)
    return {
        "whole": WHOLE.hex(), "manifest": _manifest(manifest), "frames": [frame.hex() for frame in frames],
        "empty": _manifest(describe(b"", 1024)),
        "refused": {
            "shorter than its header": last[:23].hex(),
            "no data": last[:20].hex() + "00000000",
            "less data than it says": last[:-1].hex(),
            "more data than it says": last.hex() + "00",
            "a chunk that no artifact has": (last[:16] + (4096).to_bytes(4, "big") + last[20:]).hex(),
            "a chunk that this one has not": (last[:16] + (3).to_bytes(4, "big") + last[20:]).hex(),
            "another length than the chunk's": (last[:20] + (951).to_bytes(4, "big") + last[24:-1]).hex(),
            "another digest than the chunk's": corrupt.hex(),
            "of another artifact": (bytes(16) + last[16:]).hex(),
        },
        "bitmap": {"count": 20, "held": [0, 3, 9, 19], "hex": held.to_bytes().hex()},
    }  # fmt: skip


def _ranges() -> Vectors:
    sets = [[], [0], [0, 1, 2], [0, 2, 3, 9], [9]]
    return {
        "count": 10,
        "good": [{"indices": indices, "ranges": to_ranges(indices)} for indices in sets],
        "refused": [[[0, 0]], [[2, 1]], [[0, 11]], [[-1, 2]], [[3, 4], [0, 1]], [[0, 3], [2, 5]]],
    }


def _fragments() -> Vectors:
    number, topic, limit = 2**64 - 2, "t", 1024
    splitter = PacketLimit(configured=limit)
    splitter._number = number - 1  # it counts before it sends
    pieces = [bytes(piece) for piece in splitter.split(topic, WHOLE)]
    first = pieces[0]
    return {
        "whole": WHOLE.hex(), "limit": limit, "topic": topic, "number": f"{number:016x}",
        "fragments": [piece.hex() for piece in pieces],
        "refused": {
            "one of one": (first[:16] + b"\0\0\0\1" + first[20:]).hex(),
            "one behind the last": (first[:16] + b"\0\3\0\3" + first[20:]).hex(),
            "one of too many": (first[:16] + b"\0\0\x08\x01" + first[20:]).hex(),
            "nothing in it": first[:20].hex(),
        },
    }  # fmt: skip


# ---------------------------------------------------------------------- files

LAYOUT = Layout([
    Entry("encoder.weight", [2, 3], "encoder"), Entry("encoder.bias", [2], "encoder"),
    Entry("heads.a.weight", [1, 2], "a"), Entry("heads.b.weight", [], "b"), Entry("heads.é.weight", [0], "é"),
    Entry("encoder.mean", [2], "encoder", trainable=False),
])  # fmt: skip


def _weights() -> Vectors:
    numbers = np.array([0, -0.0, 1, -2, 0.5, 3.4028235e38, 1e-45, 0.1, 7, 8, 9, 10, 11], np.float32)
    data = pack(LAYOUT, numbers)
    derived = LAYOUT.of_parts({"encoder", "a"})
    samples = {"a": 5, "b": 0, "é": 3}
    body = data[8 + int.from_bytes(data[:8], "little") :]
    return {
        "layout": msgspec.to_builtins(LAYOUT)["entries"], "numbers": numbers.tobytes().hex(),
        "file": data.hex(), "artifact": digest_of(data),
        "derived": {"parts": ["encoder", "a"], "file": derive(data, derived).hex()},
        "sent": {
            "samples": samples, "counts": part_weights(samples),
            "tensors": [entry.name for entry in sent_layout(LAYOUT, samples).entries],
        },
        "refused": {
            "shorter than its length": data[:7].hex(),
            "a header longer than the file": ((1 << 40).to_bytes(8, "little") + data[8:]).hex(),
            "a header that is no JSON": _weights_file(b"{]", body).hex(),
            "numbers of another type": _weights_file(_tensor(dtype="F16"), body[:8]).hex(),
            "a place that the shape does not fill": _weights_file(_tensor(shape=[3]), body[:8]).hex(),
            "a gap before the first": _weights_file(_tensor(data_offsets=[4, 12]), body[:12]).hex(),
            "less than it says": _weights_file(_tensor(), body[:4]).hex(),
            "more than it says": _weights_file(_tensor(), body[:12]).hex(),
        },
    }  # fmt: skip


def _tensor(**changed: Any) -> bytes:
    return json.dumps({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}}).encode()


def _weights_file(header: bytes, body: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + body


def _programs() -> Vectors:
    """Compressed bytes differ from library to library: a reader is held to what they unpack to."""
    values = [Value("weights", [1], "float32"), Value("x", [2, 1], "float32")]
    nodes = [Node("n0", "aten.mul.Tensor", [{"ref": "x"}, {"ref": "weights"}])]
    program = Program(
        format=1, group="merged", tasks=["a"], batch_size=2, input_shape=[1],
        targets={"a": TargetSpec([], "float32", [])}, layout=Layout([Entry("encoder.weight", [1], "encoder")]),
        methods={"evaluate": Method(values, [Value("losses", [1], "float32")], ["n0"], nodes)},
    )  # fmt: skip
    text = msgspec.json.encode(program, order="deterministic")
    stored = program_format.MAGIC + zlib.compress(text, level=0)
    return {
        "text": text.decode(), "stored": stored.hex(),
        "refused": {
            "another beginning": (b"MASEDGE2" + stored[8:]).hex(), "cut off": stored[:-1].hex(),
            "something behind it": (stored + b"\0").hex(), "damaged": (stored[:-1] + b"\0").hex(),
        },
    }  # fmt: skip


def _signed() -> Vectors:
    plan, life, seq = encode(_filled(Plan, "orchestrator", everything=False)), 3, 12
    key = Ed25519PrivateKey.from_private_bytes(KEY)
    signed = signed_bytes(FLEET, DEVICE, life, seq, plan)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "fleet": FLEET, "receiver": DEVICE, "life": life, "seq": seq, "plan": plan.decode(), "signed": signed.hex(),
        "public_key": public.hex(), "signature": key.sign(signed).hex(),
    }  # fmt: skip


# ---------------------------------------------------------------------- output


def c_header(made: dict[str, Vectors]) -> Iterator[str]:
    """The vectors that a reader without JSON needs: bytes as arrays, with a table of their names."""
    yield "/* Made by tools/protocol_vectors.py --c-header. */"
    frames, fragments, weights = made["frames"], made["fragments"], made["weights"]
    blobs = {
        "whole": frames["whole"], "artifact": frames["manifest"]["artifact"],
        "chunk_digests": frames["manifest"]["chunk_digests"], "weights_file": weights["file"],
        "weights_numbers": weights["numbers"], "weights_artifact": weights["artifact"],
    }  # fmt: skip
    for name, text in blobs.items():
        yield from _array(name, [text])
    yield from _array("frames", frames["frames"])
    yield from _array("frames_refused", frames["refused"].values())
    yield from _array("fragments", fragments["fragments"])
    yield from _array("fragments_refused", fragments["refused"].values())
    yield from _array("weights_refused", weights["refused"].values())


def _array(name: str, texts: Any) -> Iterator[str]:
    texts = list(texts)
    for number, text in enumerate(texts):
        numbers = ",".join(str(byte) for byte in bytes.fromhex(text)) or "0"
        yield f"static const unsigned char {name}_{number}[] = {{{numbers}}};"
    rows = ",".join(f"{{{name}_{number}, {len(text) // 2}}}" for number, text in enumerate(texts))
    yield f"static const struct blob {name}[] = {{{rows}}};"


def text_of(section: Vectors) -> str:
    """The text of a section's file."""
    return json.dumps(section, indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or print the C header."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--c-header", action="store_true", help="print C arrays instead")
    made = vectors()
    if parser.parse_args(arguments).c_header:
        print("\n".join(c_header(made)))
        return 0
    FOLDER.mkdir(exist_ok=True)
    for name, section in made.items():
        (FOLDER / f"{name}.json").write_text(text_of(section), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
