"""What is in a program file: group, weights, methods, inputs, operators, size, digest. Runs nothing of it.

python tools/inspect_program.py runs/watch/artifacts/2c4d5152c844...
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import EdgeError, ProgramError
from mas_edge.protocol.program import Method, Program, Value


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; return the exit code."""
    parser = argparse.ArgumentParser(description="Print what is in a program file.")
    parser.add_argument("file", type=Path, help="such as one of the artifacts below --state")
    file = parser.parse_args(arguments).file
    try:
        data = _read(file)
        print("\n".join(page(program_format.load(data), data)))
    except EdgeError as error:
        print(f"error: {file}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def page(program: Program, data: bytes) -> list[str]:
    """The lines about a program and the bytes it came in."""
    numbers = Counter[str]()
    for entry in program.layout.entries:
        numbers[entry.part] += entry.size
    parts = ", ".join(f"{part} {count}" for part, count in numbers.items())
    lines = [
        f"program  {program.group} for {program.engine}, format {program.format}, {len(data)} bytes",
        f"sha256   {digest_of(data)}",
        f"tasks    {', '.join(program.tasks)}",
        f"batch    {program.batch_size} samples of shape {program.input_shape}",
        f"weights  {program.layout.size} numbers, {program.layout.trainable} of them trained: {parts}",
    ]
    for name, method in program.methods.items():
        lines += ["", *_about(name, method)]
    return lines


def _of_calls(method: Method) -> tuple[Counter[str], int]:
    """The operators of a method that is a list of calls, and the bytes of its constants."""
    return Counter(node.op for node in method.nodes), sum(len(constant.data) for constant in method.constants)


def _of_model(method: Method) -> tuple[Counter[str], int]:
    """The same of a method that is an ONNX model."""
    import onnx  # on the server; a device has no need of it

    graph = onnx.load_model_from_string(method.graph).graph
    return Counter(node.op_type for node in graph.node), sum(len(tensor.raw_data) for tensor in graph.initializer)


def _about(name: str, method: Method) -> list[str]:
    operators, constants = _of_model(method) if method.graph else _of_calls(method)
    return [
        f"{name}: {operators.total()} calls of {len(operators)} operators, {constants} bytes of constants",
        *(f"  in   {_tensor(value)}" for value in method.inputs),
        *(f"  out  {_tensor(value)}" for value in method.outputs),
        *(f"  {count:4} {op}" for op, count in operators.most_common()),
    ]


def _tensor(value: Value) -> str:
    return f"{value.name} {value.dtype} {value.shape}"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}; expected a program file"
        raise ProgramError(message) from None


if __name__ == "__main__":
    raise SystemExit(main())
