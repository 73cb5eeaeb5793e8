"""The malicious files of ``corpus``, each made by one line that says what is wrong with it.

    python -m tests.hostile.make_corpus

A file is ``corpus/KIND/CASE``; ``readers`` says by what each kind is read. A test holds the files against this script.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
DIGEST = "ab" * 32
HUGE = 2**62
MANIFEST: dict[str, Any] = {
    "artifact": DIGEST, "size": 2048, "chunk_size": 1024, "chunk_digests": base64.b64encode(bytes(64)).decode(),
}  # fmt: skip
ACK: dict[str, Any] = {"type": "ack", "sender": "pi-1", "boot_id": "b", "seq": 1, "job": "j-1", "round_id": "r"}
BIRTH: dict[str, Any] = {
    "type": "birth", "sender": "pi-1", "boot_id": "b", "seq": 1, "runtime": "0", "python": "3", "machine": "m",
    "cores": 1, "memory_bytes": 1, "engine": "torch", "engines": ["torch"], "input_shape": [3], "tasks": {},
}  # fmt: skip
OFFER: dict[str, Any] = {**ACK, "type": "offer", "report": {"samples": {"a": 1}, "losses": {"a": 0.5}}}
PLAN: dict[str, Any] = {
    **ACK, "type": "plan", "kind": "evaluate", "group": "merged", "tasks": ["a"], "deadline_s": 60.0,
    "program": MANIFEST, "weights": {"manifest": MANIFEST},
}  # fmt: skip
PROGRAM: dict[str, Any] = {
    "format": 1, "group": "merged", "tasks": ["a"], "batch_size": 1, "input_shape": [3], "targets": {},
    "layout": {"entries": []}, "methods": {},
}  # fmt: skip
PICKLE = b"\x80\x04cos\nsystem\n(S'true'\ntR."
JOB = """name = "j"
[data]
input_shape = [3]
[federation]
rounds = 4
merge_rounds = 2
groups = 1
[[tasks]]
name = "a"
kind = "value"
"""
DATA = 'format = 1\ninput_shape = [2, 4]\n[tasks.gait]\nkind = "class"\nclasses = 3\n'


def text(*parts: dict[str, Any], **changes: Any) -> bytes:
    """The JSON of an object made of others."""
    made: dict[str, Any] = {}
    for part in (*parts, changes):
        made |= part
    return json.dumps(made).encode()


def weights(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(said) if length is None else length) + said + body


def tensor(shape: list[Any], start: Any = 0, stop: Any = 0, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def program(*parts: dict[str, Any], **changes: Any) -> bytes:
    """A program file."""
    return packed(text(PROGRAM, *parts, **changes))


def packed(content: bytes) -> bytes:
    return b"MASEDGE1" + zlib.compress(content, 9)


def entry(shape: list[int], part: str = "encoder") -> dict[str, Any]:
    """One tensor ``w`` of a program's layout."""
    return {"name": "w", "shape": shape, "part": part}


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file, whatever its header says."""
    size = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + version + struct.pack(size, len(header)) + header.encode() + body


def array(shape: str, body: bytes, kind: str = "<f4") -> bytes:
    """A .npy file of such numbers."""
    return npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n", body)


def field(number: int, content: bytes) -> bytes:
    """One field of a Protobuf message."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def graphs_in_graphs(depth: int) -> bytes:
    """An ONNX model whose node has a graph whose node has a graph."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))  # node > attribute > graph
    return field(7, graph)


def same_again(identifier: bytes, vector: int, inner: int, count: int, version: int | None = None) -> bytes:
    """FlatBuffers: field ``vector`` of the root leads ``count`` times to one table, whose ``inner`` does so again.

    ``version``: the field of the root that holds the number 3, where the format wants one.
    """
    slots = max(vector, inner, version or 0) + 1
    frame = 4 + 2 * slots  # of the list of fields that stands before each table
    root = 8 + 2 * frame + 4
    first = root + 12
    middle = first + 4 + 4 * count
    second = middle + 8
    last = second + 4 + 4 * count
    fields = {vector: 4} | ({version: 8} if version is not None else {})
    out = struct.pack("<I", root) + identifier
    out += struct.pack(f"<HH{slots}H", frame, 12, *(fields.get(slot, 0) for slot in range(slots)))
    out += struct.pack(f"<HH{slots}H", frame, 8, *(4 if slot == inner else 0 for slot in range(slots)))
    out += struct.pack("<HH", 4, 4)
    out += struct.pack("<iII", root - 8, first - root - 4, 3)
    out += offsets(first, middle, count)
    out += struct.pack("<iI", middle - 8 - frame, second - middle - 4)
    out += offsets(second, last, count)
    return out + struct.pack("<i", last - 8 - 2 * frame)


def offsets(at: int, target: int, count: int) -> bytes:
    """A vector at byte ``at`` whose every item leads to ``target``."""
    return struct.pack(f"<I{count}I", count, *(target - (at + 4 + 4 * place) for place in range(count)))


FILES: dict[str, dict[str, bytes]] = {
    "from_device": {
        "brackets_without_end": b'{"type":"ack","x":' + b"[" * 10_000,
        "a_count_of_4000_digits": text(BIRTH).replace(b'"seq": 1', b'"seq": ' + b"9" * 4000),
        "a_batch_that_makes_the_round_s_record_unwritable": text(
            OFFER, report={"samples": {"a": 1}, "losses": {"a": 0.5}, "steps": 9, "batch_size": 10**4000}
        ),
        "samples_beyond_every_sum": text(BIRTH, tasks={"a": {"train": 2**60, "test": 0}}),
        "three_hundred_tasks": text(BIRTH, tasks={f"t{i}": {"train": 1, "test": 1} for i in range(300)}),
        "a_name_of_10_kilobytes": text(BIRTH, machine="x" * 10_000),
        "lines_of_a_log": text(ACK, type="refusal", reason="no\n2026-01-01 INFO merged-0001: complete\x1b[2J\u202e"),
        "a_last_will_of_10_kilobytes": text(BIRTH, type="status", online=False, reason="\x07" * 10_000),
        "half_a_surrogate": text(BIRTH, machine="\ud800"),
        "a_round_that_is_a_path": text(ACK, round_id="../../state"),
        "another_device": text(ACK, sender="pi-2"),
        "the_orchestrator": text(PLAN),
        "a_loss_that_is_no_number": text(OFFER).replace(b"0.5", b"NaN"),
        "a_loss_beyond_a_double": text(OFFER).replace(b"0.5", b"1e999"),
        "a_manifest_of_an_exabyte": text(OFFER, manifest={**MANIFEST, "size": HUGE}),
        "a_manifest_without_chunks": text(OFFER, manifest={**MANIFEST, "chunk_size": 0}),
        "a_manifest_below_zero": text(OFFER, manifest={**MANIFEST, "size": -1}),
        "a_manifest_that_is_a_path": text(OFFER, manifest={**MANIFEST, "artifact": "../../../etc/passwd"}),
        "a_want_below_zero": text(BIRTH, type="want", artifact=DIGEST, ranges=[[-HUGE, HUGE]]),
        "a_want_of_everything_twice": text(BIRTH, type="want", artifact=DIGEST, ranges=[[0, 2], [0, 2]]),
        "a_want_without_end": text(BIRTH, type="want", artifact=DIGEST, ranges=[[0, HUGE]]),
        "an_affinity_of_10_000_rows": text(
            OFFER, report={"samples": {"a": 1}, "losses": {"a": 0.5}, "affinity": [[]] * 10_000}
        ),
    },
    "from_orchestrator": {
        "brackets_without_end": b'{"type":"plan","x":' + b"[" * 10_000,
        "a_round_that_is_a_path": text(PLAN, round_id="../../state"),
        "a_program_of_an_exabyte": text(PLAN, program={**MANIFEST, "size": HUGE}),
        "a_program_without_chunks": text(PLAN, program={**MANIFEST, "chunk_size": 0}),
        "a_program_that_is_a_path": text(PLAN, program={**MANIFEST, "artifact": "../../../etc/passwd"}),
        "weights_out_of_a_path": text(PLAN, weights={"manifest": MANIFEST, "derive_from": "../../../etc/passwd"}),
        "digests_of_another_number_of_chunks": text(PLAN, program={**MANIFEST, "size": 4096}),
        "no_time": text(PLAN, deadline_s=-1e308),
        "all_the_time": text(PLAN, deadline_s=1e308),
        "no_weights": text(PLAN, weights=None),
        "a_deployment_without_golden_outputs": text(PLAN, kind="deploy"),
        "a_want_without_end": text(ACK, type="want", artifact=DIGEST, ranges=[[0, HUGE]]),
        "a_receipt_of_nothing": text(ACK, type="receipt", verdict="accepted"),
    },
    "chunk": {
        "nothing": b"",
        "a_header_alone": bytes(24),
        "a_length_of_4_gib": bytes(16) + struct.pack(">II", 0, 2**32 - 1),
        "an_index_without_end": bytes(16) + struct.pack(">II", 2**32 - 1, 1) + b"x",
        "less_than_it_says": bytes(16) + struct.pack(">II", 0, 9) + b"x",
    },
    "weights": {
        "nothing": b"",
        "a_header_of_an_exabyte": weights({}, length=HUGE),
        "brackets_without_end": weights(b"[" * 10_000),
        "no_numbers_along_endless_axes": weights({"a": tensor([0, 2**40, 2**40])}),
        "an_axis_below_zero": weights({"a": tensor([-1, -1], 0, 4)}, bytes(4)),
        "an_axis_of_truth": weights({"a": tensor([True], 0, 4)}, bytes(4)),
        "a_hundred_axes": weights({"a": tensor([1] * 100, 0, 4)}, bytes(4)),
        "more_than_there_is": weights({"a": tensor([2**30], 0, 2**32)}, bytes(4)),
        "tensors_over_each_other": weights({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, bytes(4)),
        "a_gap": weights({"a": tensor([1], 4, 8)}, bytes(8)),
        "something_behind_the_end": weights({"a": tensor([1], 0, 4)}, bytes(9)),
        "another_type": weights({"a": tensor([1], 0, 8, "F64")}, bytes(8)),
        "a_pickle": PICKLE,
        "a_number_of_5000_digits": weights(b'{"a":' + b"9" * 5000 + b"}"),
    },
    "program": {
        "nothing": b"",
        "64_megabytes_of_lists": packed(b'{"methods":[' + b"[]," * (21 << 20)),
        "a_gigabyte": packed(bytes(1 << 24)) + b"\0",
        "brackets_without_end": packed(b"[" * 10_000),
        "a_network_of_terabytes": program(layout={"entries": [entry([2**40], "encoder")]}),
        "a_network_without_end": program(layout={"entries": [entry([2**40] * 6, "encoder")]}),
        "a_thousand_axes": program(layout={"entries": [entry([1] * 1000, "encoder")]}),
        "an_axis_below_zero": program(layout={"entries": [entry([-4, -4], "encoder")]}),
        "a_tensor_twice": program(layout={"entries": [entry([1], "encoder"), entry([1], "a")]}),
        "another_format": program(format=2**63),
        "cut_short": program()[:-4],
        "something_behind_the_end": program() + b"x",
    },
    "onnx": {
        "graphs_in_graphs": graphs_in_graphs(40),
        "a_number_without_end": b"\xff" * 40,
        "a_field_of_an_exabyte": b"\x3a" + varint(HUGE),
        "a_number_where_a_graph_belongs": b"\x38\x01",
        "tensors_in_another_file": field(7, field(5, field(13, b"/etc/passwd"))),
        "operators_of_its_own": field(8, field(1, b"com.example")),
    },
    "tflite": {
        "the_same_graph_again_and_again": same_again(b"TFL3", 2, 3, 2000, version=0),
        "a_root_behind_the_end": b"\xff\xff\xff\xffTFL3" + bytes(40),
        "nothing_but_its_name": b"\0\0\0\0TFL3",
    },
    "pte": {
        "the_same_method_again_and_again": same_again(b"ET12", 1, 2, 2000),
        "a_root_behind_the_end": b"\xff\xff\xff\xffET12" + bytes(40),
        "a_header_without_end": b"\0\0\0\0ET12eh00" + b"\xff" * 20,
    },
    "job": {
        "brackets_without_end": b"a = " + b"[" * 10_000,
        "tables_without_end": b"a" + b".a" * 5_000 + b" = 1",
        "a_number_of_5000_digits": JOB.replace('name = "j"', f'name = "j"\nseed = {"9" * 5000}').encode(),
        "a_seed_without_end": JOB.replace('name = "j"', f'name = "j"\nseed = {"9" * 4000}').encode(),
        "rounds_that_are_no_number": JOB.replace("rounds = 4", "rounds = nan").encode(),
        "a_deadline_that_is_no_number": JOB.replace("rounds = 4", "rounds = 4\ndeadline_s = nan").encode(),
        "a_name_that_is_a_path": JOB.replace('"j"', '"../../j"').encode(),
        "a_task_twice": (JOB + "[[tasks]]\nname = \"a\"\nkind = \"value\"\n").encode(),
        "a_hundred_tasks": (JOB + "".join(f'[[tasks]]\nname = "t{i}"\nkind = "value"\n' for i in range(100))).encode(),
        "a_key_with_a_line_end": (JOB + '"a\\n\\u001b[2Jb`c" = 1\n').encode(),
        "not_unicode": b"name = \"\xff\xfe\"",
        "zeros": bytes(1000),
    },
    "data": {
        "brackets_without_end": b"a = " + b"[" * 10_000,
        "a_number_of_5000_digits": b"format = " + b"9" * 5000,
        "a_format_without_end": DATA.replace("format = 1", f"format = {'9' * 4000}").encode(),
        "classes_without_end": DATA.replace("classes = 3", f"classes = {'9' * 4000}").encode(),
        "an_ignored_label_without_end": (DATA + f"ignore_index = {'9' * 400}\n").encode(),
        "an_axis_of_an_exabyte": DATA.replace("[2, 4]", f"[{HUGE}, {HUGE}]").encode(),
        "a_task_that_is_a_path": DATA.replace("tasks.gait", 'tasks."../../gait"').encode(),
        "a_reader_that_is_code": ('reader = "os:system(1)"\n' + DATA).encode(),
        "a_reader_that_is_not_there": ('reader = "no_such_package:f"\n' + DATA).encode(),
        "a_book": b"#" * 70_000,
        "not_unicode": b"format = \"\xff\xfe\"",
        "zeros": bytes(1000),
    },
    "npy": {
        "nothing": b"",
        "a_pickle": array("(10, 2, 4)", PICKLE, "|O"),
        "code": npy("__import__('os').abort()\n"),
        "brackets_without_end": npy("(" * 9_000),
        "a_header_of_4_gib": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        "an_array_of_an_exabyte": array(f"({HUGE}, 2, 4)", b""),
        "an_axis_below_zero": array("(-10, 2, 4)", bytes(320), "<f4"),
        "half_of_it": array("(10, 2, 4)", bytes(100), "<f4"),
        "no_axis": array("()", bytes(4), "<f4"),
        "a_hundred_axes": npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 100}}}\n", bytes(4)),
        "numbers_of_no_size": array("(10, 2, 4)", b"", "|V0"),
        "text": array("(10, 2, 4)", bytes(2560), "<U8"),
        "times": array("(10, 2, 4)", bytes(640), "<M8[s]"),
        "columns": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (10, 2)}\n", bytes(80)),
        "numbers_the_other_way_round": array("(10, 2, 4)", bytes(320), ">f4"),
    },
    "finished": {
        "a_round_of_another_name": text(job="j", round_id="../../x", report={"samples": {}, "losses": {}}),
        "a_manifest_without_chunks": text(
            job="j", round_id="case", report={"samples": {}, "losses": {}}, manifest={**MANIFEST, "chunk_size": 0}
        ),
        "brackets_without_end": b'{"job":' + b"[" * 10_000,
        "half_of_it": text(job="j", round_id="case", report={"samples": {}, "losses": {}})[:-9],
        "zeros": bytes(500),
    },
    "map": {
        "more_bits_than_chunks": b"MAP1" + struct.pack(">I", 1024) + b"\xff",
        "another_size_of_chunks": b"MAP1" + struct.pack(">I", 0) + b"\x03",
        "zeros": bytes(50),
    },
}  # fmt: skip


def main() -> None:
    """Write every file."""
    for kind, cases in FILES.items():
        (CORPUS / kind).mkdir(parents=True, exist_ok=True)
        for case, content in cases.items():
            (CORPUS / kind / case).write_bytes(content)


if __name__ == "__main__":
    main()
