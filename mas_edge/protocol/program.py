"""The program format: the exported graphs of one group, with no weights and no code in it.

A program is a set of methods (``train_step``, ``evaluate``, ``affinity``, ``infer``). For the engine ``torch`` each is
a list of ATen operator calls in order: data, not code. An engine that reads it runs only operators of the ``aten``
namespace, so that a program from the wire can compute and nothing else. The other engines have formats of their own:

* ``onnxruntime``: a method holds an ONNX model (``graph``; its inputs are named as declared, its outputs
  ``out.<name>``: in ONNX one name cannot be both);
* ``executorch``: the program holds one ``.pte`` with all methods (``file``), inputs and outputs in the declared order;
* ``litert``: the program holds one ``.tflite`` (``file``) with a signature for each method, tensors named as declared.

On the wire: 8 bytes of magic, then the zlib-compressed JSON of ``Program``.

Arguments are JSON: numbers, strings, booleans, null and lists stand for themselves; everything else is an object with
one key: ``{"ref": "name"}`` a value computed before, ``{"dtype": "float32"}``, ``{"device": "any"}`` (the device the
engine runs on), ``{"layout": "strided"}``, ``{"memory_format": "preserve_format"}``, ``{"float": "inf"}``.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from mas_edge.protocol.errors import ProgramError, WeightsError
from mas_edge.protocol.layout import Layout

MAGIC = b"MASEDGE1"
FORMAT = 1
MAX_PROGRAM_BYTES = 64 * 1024 * 1024  # decompressed; a ResNet-50 step is about 3 MB
# Commas and brackets of the JSON: each becomes up to 80 bytes of Python objects, whatever the text's length. Real
# programs have one in nine bytes; a text of nothing else would take a small board's whole memory.
MAX_PROGRAM_MARKS = 2**22

BOARD_WINDOW = 10  # bits: a board that has been at work has 1 KB in one piece when it has neither 32 nor 4


class Value(msgspec.Struct, frozen=True):
    """A named tensor that goes into or comes out of a method; every size is static."""

    name: str
    shape: list[int]
    dtype: str  # "float32" or "int64"


class Node(msgspec.Struct, frozen=True):
    """One operator call. ``op`` is ``namespace.name.overload``, or ``getitem`` for one of several results."""

    name: str
    op: str
    args: list[Any]
    kwargs: dict[str, Any] = {}
    module: str = ""  # the module of the network it came from, for error messages


class Constant(msgspec.Struct, frozen=True):
    """A tensor the graph needs that is neither input nor weight: raw little-endian bytes."""

    name: str
    shape: list[int]
    dtype: str
    data: bytes


class Method(msgspec.Struct, frozen=True):
    """One exported graph: inputs, operator calls in order, and the names of its results."""

    inputs: list[Value]
    outputs: list[Value]
    results: list[str]  # for each output the node, input or constant that it is
    nodes: list[Node]
    constants: list[Constant] = []
    graph: bytes = b""  # an ONNX model when the program's engine is onnxruntime; results, nodes, constants are empty
    memory_bytes: int = 0  # the most that its values take at any one call, inputs and constants included; 0 = unknown
    multiply_accumulates: int = 0  # of one run, the whole batch; 0 = unknown


class TargetSpec(msgspec.Struct, frozen=True):
    """What a device must feed for one task: the shape and dtype of one sample's target and of its mask."""

    shape: list[int]  # of one sample; [] for a class index
    dtype: str
    mask_shape: list[int]  # of one sample; [] = one number a sample, else the target's shape
    classes: int = 0  # > 0: values must be in range(classes), or ignore_index
    ignore_index: int = -100


class Program(msgspec.Struct, frozen=True):
    """Everything a device needs to train one group, apart from weights and data."""

    format: int
    group: str
    tasks: list[str]
    batch_size: int
    input_shape: list[int]  # of one sample
    targets: dict[str, TargetSpec]
    layout: Layout
    methods: dict[str, Method]
    engine: str = "torch"  # what runs it: "torch", "onnxruntime", "executorch" or "litert"
    file: bytes = b""  # the .pte or .tflite with all methods; their own nodes and graphs are empty then


def graph_output(name: str) -> str:
    """What the output ``name`` of a method is called in its ONNX model."""
    return f"out.{name}"


def dump(program: Program) -> bytes:
    """Return the bytes of a program; the same program gives the same bytes."""
    packer = zlib.compressobj(level=9, wbits=BOARD_WINDOW if program.engine == "micro" else zlib.MAX_WBITS)
    return MAGIC + packer.compress(msgspec.json.encode(program, order="deterministic")) + packer.flush()


def load(data: bytes) -> Program:
    """Read a program.

    Raises:
        ProgramError: the bytes are no program, of another version, too large, or damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        message = f"not a program file: expected it to begin with {MAGIC!r}, got {data[: len(MAGIC)]!r}"
        raise ProgramError(message)
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data[len(MAGIC) :], MAX_PROGRAM_BYTES)
    except zlib.error as error:
        message = f"program file is damaged: {error}"
        raise ProgramError(message) from None
    if not reader.eof or reader.unused_data:
        message = f"program file is truncated, has extra bytes, or is over {MAX_PROGRAM_BYTES} bytes when unpacked"
        raise ProgramError(message)
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_PROGRAM_MARKS:
        message = f"program file holds more than {MAX_PROGRAM_MARKS} values when unpacked"
        raise ProgramError(message)
    try:
        program = msgspec.json.decode(text, type=Program)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        message = f"program file does not decode: {error}"
        raise ProgramError(message) from None
    if program.format != FORMAT:
        message = f"program has format {program.format}, this runtime reads format {FORMAT}: update the device runtime"
        raise ProgramError(message)
    try:
        program.layout.check()
    except WeightsError as error:
        message = f"program file: {error}"
        raise ProgramError(message) from None
    return program
