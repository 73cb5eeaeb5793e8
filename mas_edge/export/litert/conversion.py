"""Turning traced modules into one .tflite: LiteRT's converter, in a process of its own.

The converter is native code that ends the process on some graphs (measured: a segmentation fault), writes to standard
output, and brings JAX along. In a child process a crash becomes an error with a reason, and nothing of it stays.

What the child is given is a folder: ``NAME.pt2`` (a ``torch.export`` program) for each signature, ``signatures.json``,
and for int8 ``samples.npy``. It answers with ``model.tflite``, ``int8.tflite``, or with what went wrong in ``error``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mas_edge.protocol.errors import JobError, ServerError

INSTALL = "make an environment of its own for it: pip install 'mas-edge[litert-export]'"
PACKAGES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
CHILD = "mas_edge.export.litert.child"
TIMEOUT_S = 3600  # of one conversion: 0.1 s for each operator, and an affinity graph has thousands
LAST = 2000  # characters of what the child wrote that are looked at for a reason
# What the converter's messages have in front of the operator that it has no rule for.
_MISSING = re.compile(
    r"Lowering not found: ([\w.]+)|failed to legalize operation '([\w.]+)'|target=torch\.ops\.([\w.]+)"
)


@dataclass(frozen=True)
class Signature:
    """One method of the file: a module of tensors in order, and what its inputs and outputs are called in it."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    inputs: Sequence[str]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Calibration:
    """What int8 needs: samples [n, *input_shape] for the single input of the signature ``infer``, one at a time.

    With ``integers`` the file takes and gives int8, else float32.
    """

    samples: NDArray[np.float32]
    integers: bool = False


@dataclass(frozen=True)
class Converted:
    """The file in float32, and in int8 if samples were given."""

    data: bytes
    int8: bytes = b""


def require_converter() -> None:
    """Raise ServerError if the packages of the LiteRT build environment are not here. Imports none of them."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        message = f"exporting to LiteRT needs {', '.join(missing)}: {INSTALL}"
        raise ServerError(message)


def convert(signatures: Sequence[Signature], what: str, calibration: Calibration | None = None) -> Converted:
    """Return the .tflite with ``signatures``; ``what`` begins every message.

    Raises:
        JobError: an operator has no counterpart, or the converter crashed on the graph.
        ServerError: the packages of the build environment are missing, or the converter did not end in TIMEOUT_S.
    """
    require_converter()
    with tempfile.TemporaryDirectory(prefix="mas-edge-litert-") as made:
        room = Path(made)
        for signature in signatures:
            _save(signature, room, what)
        tables = [{"name": s.name, "inputs": list(s.inputs), "outputs": list(s.outputs)} for s in signatures]
        (room / "signatures.json").write_text(json.dumps(tables))
        if calibration is not None:
            np.save(room / "samples.npy", calibration.samples)
            (room / "integers").write_text(str(calibration.integers))
        _run(room, what)
        return Converted(_read(room / "model.tflite"), _read(room / "int8.tflite"))


def _save(signature: Signature, room: Path, what: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes of PyTorch's on its own internals
            program = torch.export.export(signature.module, signature.examples, strict=False)
            torch.export.save(program, room / f"{signature.name}.pt2")
    except Exception as error:  # whatever torch raises while it traces
        first = str(error).strip().partition("\n")[0]
        message = f"{what} cannot be written for LiteRT: {type(error).__name__}: {first}"
        raise JobError(message) from None


def _run(room: Path, what: str) -> None:
    command = [sys.executable, "-m", CHILD, str(room)]
    with (room / "output").open("wb") as output:
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter, a module of ours
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False,
                env=_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"{what}: LiteRT's converter did not end within {TIMEOUT_S} s"
            raise ServerError(message) from None
    if done.returncode == 0:
        return
    told = room / "error"
    if told.exists():
        text = reason(told.read_text())
    else:
        last = (room / "output").read_text(errors="replace")[-LAST:]
        text = f"its converter crashed with status {done.returncode}"
        text += f"; {reason(last)}" if _MISSING.search(last) else ""
    message = f"{what} cannot be written for LiteRT: {text}"
    raise JobError(message)


def _environment() -> dict[str, str]:
    """Quiet, one thread as every other measurement here, and this checkout first."""
    quiet = {"LITERT_TORCH_SHOW_PROGRESS": "n", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def reason(text: str) -> str:
    """The operator that a message of the converter is about, and what to do; else the message's first line."""
    found = _MISSING.search(text)
    if found:
        name = next(group for group in found.groups() if group)
        return f"it has no form of the operator {name}: write that part with other operators, or take another engine"
    return text.strip().partition("\n")[0]


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
