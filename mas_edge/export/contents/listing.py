"""The shape of the answer, whatever the file was: kind, size, digest, and its methods or tensors."""

from __future__ import annotations

import msgspec


class Tensor(msgspec.Struct, frozen=True):
    """A named array; a size that is free is its name, such as ``batch``."""

    name: str
    dtype: str
    shape: list[int | str]


class MethodContents(msgspec.Struct, frozen=True, kw_only=True):
    """One graph: what goes in and comes out, and how often it calls each operator."""

    name: str
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    operators: dict[str, int] = {}  # most frequent first
    constants_bytes: int = 0


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """A file. ``facts`` are what else its kind knows about itself, for people."""

    kind: str
    engine: str  # what runs it; empty for weights
    size: int
    sha256: str
    facts: dict[str, str] = {}
    methods: list[MethodContents] = []
    tensors: list[Tensor] = []  # of a file of weights


def lines_of(contents: Contents) -> list[str]:
    """The page for people; names come out of the file, so that what would steer a terminal is taken out of them."""
    engine = f" for {contents.engine}" if contents.engine else ""
    facts = {"kind": f"{contents.kind}{engine}", "size": f"{contents.size} bytes", "sha256": contents.sha256}
    facts |= contents.facts
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {text}" for name, text in facts.items()]
    for method in contents.methods:
        lines += ["", *_about(method)]
    if contents.tensors:
        lines += ["", *(f"  {_tensor(tensor)}" for tensor in contents.tensors)]
    return ["".join(char if char.isprintable() else "?" for char in line) for line in lines]


def _about(method: MethodContents) -> list[str]:
    calls, kinds = sum(method.operators.values()), len(method.operators)
    return [
        f"{method.name}: {calls} calls of {kinds} operators, {method.constants_bytes} bytes of constants",
        *(f"  in   {_tensor(tensor)}" for tensor in method.inputs),
        *(f"  out  {_tensor(tensor)}" for tensor in method.outputs),
        *(f"  {count:4} {operator}" for operator, count in method.operators.items()),
    ]


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
