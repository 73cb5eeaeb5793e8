"""A program of this kit, whichever engine it is for."""

from __future__ import annotations

from collections import Counter

from mas_edge.export.contents.listing import Contents, MethodContents, Tensor
from mas_edge.export.contents.onnx_file import read_onnx
from mas_edge.export.contents.pte_file import read_pte
from mas_edge.export.contents.tflite_file import read_tflite
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.models import format_of
from mas_edge.protocol.program import Method, Program, Value

_FILES = {"pte": read_pte, "tflite": read_tflite}


def read_program(data: bytes) -> Contents:
    """What is in it. Raises ProgramError."""
    program = program_format.load(data)
    numbers = Counter[str]()
    for entry in program.layout.entries:
        numbers[entry.part] += entry.size
    parts = ", ".join(f"{part} {count}" for part, count in numbers.items())
    return Contents(
        kind=f"program {program.group} (format {program.format})",
        engine=program.engine,
        size=len(data),
        sha256=digest_of(data),
        facts={
            "tasks": ", ".join(program.tasks),
            "batch": f"{program.batch_size} samples of shape {program.input_shape}",
            "weights": f"{program.layout.size} numbers, {program.layout.trainable} of them trained: {parts}",
        },
        methods=_methods(program),
    )


def _methods(program: Program) -> list[MethodContents]:
    """The program says what goes in and comes out, its graphs or its one file which operators there are."""
    inside = {}
    if program.file:
        inside = {method.name: method for method in _FILES[format_of(program.file)](program.file).methods}
    return [_method(name, method, inside.get(name)) for name, method in program.methods.items()]


def _method(name: str, method: Method, inside: MethodContents | None) -> MethodContents:
    if method.graph:
        [inside] = read_onnx(method.graph).methods
    operators = Counter(node.op for node in method.nodes)
    return MethodContents(
        name=name,
        inputs=_values(method.inputs),
        outputs=_values(method.outputs),
        operators=inside.operators if inside else dict(operators.most_common()),
        constants_bytes=inside.constants_bytes if inside else sum(len(each.data) for each in method.constants),
    )


def _values(values: list[Value]) -> list[Tensor]:
    return [Tensor(value.name, value.dtype, list(value.shape)) for value in values]
