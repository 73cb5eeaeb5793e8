"""A model as C: the bytes as an array in flash, and a header with everything that firmware needs to know of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from mas_edge.export.micro.tables import TensorSpec

ARRAY = "mas_edge_model"
HEADER, SOURCE = "mas_edge_model.h", "mas_edge_model.c"
ALIGNMENT = 16  # what tflite-micro asks of a model
BYTES_A_LINE = 16


def source_text(model: bytes) -> str:
    """The C11 file with the model."""
    lines = (
        " ".join(f"0x{byte:02x}," for byte in model[start : start + BYTES_A_LINE])
        for start in range(0, len(model), BYTES_A_LINE)
    )
    return (
        f'#include "{HEADER}"\n\n#include <stdalign.h>\n\n'
        f"alignas({ALIGNMENT}) const unsigned char {ARRAY}[MAS_EDGE_MODEL_BYTES] = {{\n"
        + "".join(f"  {line}\n" for line in lines)
        + "};\n"
    )


def header_text(model_bytes: int, arena: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """The header, for C and C++. Numbers of inputs and outputs are those of the interpreter."""
    lines = [
        "/* A model for tflite-micro, one sample a call, int8 in and out.",
        " * integer = round(real / SCALE) + ZERO_POINT, kept within -128..127; real = SCALE * (integer - ZERO_POINT).",
        " * Give the arena alignas(16). Its size was measured with 64-bit pointers; 32-bit boards need less. */",
        "#ifndef MAS_EDGE_MODEL_H",
        "#define MAS_EDGE_MODEL_H",
        "",
        f"#define MAS_EDGE_MODEL_BYTES {model_bytes}",
        f"#define MAS_EDGE_ARENA_BYTES {arena}",
        *_tensors("INPUT", inputs),
        *_tensors("OUTPUT", outputs),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"extern const unsigned char {ARRAY}[MAS_EDGE_MODEL_BYTES];",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, specs: Sequence[TensorSpec]) -> Iterator[str]:
    yield ""
    yield f"#define MAS_EDGE_{kind}S {len(specs)}"
    for i, (spec, name) in enumerate(zip(specs, identifiers([spec.name for spec in specs]), strict=True)):
        prefix = f"MAS_EDGE_{kind}_{name}"
        yield f"/* {spec.name}: int8 [{', '.join(map(str, spec.shape))}] */"
        yield f"#define {prefix} {i}"
        yield f"#define {prefix}_SIZE {math.prod(spec.shape)}"
        yield f"#define {prefix}_SCALE {spec.scale:.9e}f"
        yield f"#define {prefix}_ZERO_POINT ({spec.zero_point})"


def identifiers(names: Sequence[str]) -> list[str]:
    """The names as parts of C macros, different from each other: task names may hold signs that C has not."""
    found = [re.sub(r"[^A-Z0-9]", "_", name.upper()) for name in names]
    return [f"{name}_{i}" if found.count(name) > 1 else name for i, name in enumerate(found)]
