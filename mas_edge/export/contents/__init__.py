"""What is in a file that this kit makes or takes, told from its bytes alone; nothing of it is ever run."""

from __future__ import annotations

from pathlib import Path

from mas_edge.export.contents.listing import Contents, MethodContents, Tensor
from mas_edge.export.contents.onnx_file import read_onnx
from mas_edge.export.contents.program_file import read_program
from mas_edge.export.contents.pte_file import read_pte
from mas_edge.export.contents.safetensors_file import is_safetensors, read_safetensors
from mas_edge.export.contents.tflite_file import read_tflite
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.models import format_of
from mas_edge.protocol.program import MAGIC

__all__ = ["Contents", "MethodContents", "Tensor", "contents_of", "read_contents"]

_READERS = {"onnx": read_onnx, "pte": read_pte, "tflite": read_tflite}


def read_contents(path: Path) -> Contents:
    """Read a file. Raises ProgramError or WeightsError that begins with its path."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}; expected a program, a model or a file of weights"
        raise ProgramError(message) from None
    try:
        return contents_of(data)
    except ProgramError as error:
        message = f"{path}: {error}"
        raise ProgramError(message) from None


def contents_of(data: bytes) -> Contents:
    """What is in the bytes of a file.

    Raises:
        ProgramError: they are of no known kind, damaged, or truncated.
    """
    if data.startswith(MAGIC):
        return read_program(data)
    if is_safetensors(data):
        return read_safetensors(data)
    try:
        kind = format_of(data)
    except ProgramError:
        message = (
            f"{len(data)} bytes that begin with {data[:8]!r} are of no known kind: expected a program of this kit, "
            "ONNX, ExecuTorch (.pte), LiteRT (.tflite) or safetensors"
        )
        raise ProgramError(message) from None
    return _READERS[kind](data)
