"""``data.toml``: what a data folder says about itself, read and checked.

format = 1
input_shape = [6, 64]              # of one sample, channels first
reader = "package:function"        # optional: returns the arrays instead of the .npy files

[tasks.exercise]                   # one table for each task this device holds labels for
kind = "class"                     # class, dense_class, value or direction
shape = []                         # of one target
classes = 7                        # for the two kinds of classes
ignore_index = -100                # the label that stands for "no label"
element_mask = false               # exercise.mask.npy has the target's shape, not one number a sample
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from mas_edge.protocol.toml import parse_toml

FORMAT = 1
HEADER = "data.toml"
MAX_HEADER_BYTES = 64 * 1024  # a table for each of 500 tasks
SHAPES = {
    "class": "shape must be absent: one class index a sample",
    "dense_class": "shape must name the places of a sample, such as [64, 64]",
    "value": "shape may be absent (one number a sample) or name up to 4 sizes",
    "direction": "shape must begin with the vector's size, such as [3] or [3, 64, 64]",
}
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_READER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_RESERVED = ("x", "split", "encoder", "merged")  # names of other arrays, and of other parts of a network

Kind = Literal["class", "dense_class", "value", "direction"]
_S = TypeVar("_S", bound=msgspec.Struct)


Size = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]  # of an axis, a label: what an array can have


class TaskData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this device holds for one task; the words are those of the job file."""

    kind: Kind
    shape: list[Size] = []
    classes: Size = 0
    ignore_index: Size = -100
    element_mask: bool = False

    @property
    def indices(self) -> bool:
        """Whether targets are class indices (int64 in a batch) and not numbers (float32)."""
        return self.kind in ("class", "dense_class")


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of ``data.toml``."""

    format: Size
    input_shape: list[Size]
    tasks: dict[str, TaskData]
    reader: str = ""

    def source(self, array: str) -> str:
        """Where the array called ``array`` comes from, for messages: a file, or what a reader returned."""
        return f"{array!r} of the reader {self.reader}" if self.reader else f"{array}.npy"


def read_header(directory: Path) -> tuple[Header | None, list[str]]:
    """Read ``data.toml`` of a data folder: the header, or None and what is wrong in plain words."""
    if not directory.is_dir():
        there = "it is a file" if directory.exists() else "there is nothing of that name"
        return None, [f"not a folder: {there}; expected a folder with {HEADER} and .npy files"]
    path = directory / HEADER
    try:
        if not path.is_file():  # a pipe of that name would be read for ever
            return None, [f"missing file {HEADER}: it says the shape of the input and which tasks there are labels for"]
        if path.stat().st_size > MAX_HEADER_BYTES:
            return None, [f"{HEADER} has {path.stat().st_size} bytes; expected a few lines, {MAX_HEADER_BYTES} at most"]
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{HEADER} cannot be read: {error}"]
    try:
        tree = parse_toml(text)
    except ValueError as error:
        return None, [f"{HEADER} is not valid TOML: {error}"]
    return _parse(tree)


def _parse(tree: dict[str, Any]) -> tuple[Header | None, list[str]]:
    """Convert the parts one by one, so that every problem names its place and one does not hide the others."""
    found: list[str] = []
    entries = tree.get("tasks")
    tasks: dict[str, TaskData] = {}
    if isinstance(entries, dict):
        for name, entry in entries.items():
            task = _convert(entry, TaskData, f"tasks.{name}", found)
            if task is not None:
                found += _task_problems(name, task)
                tasks[name] = task
        tree = {**tree, "tasks": {}}
    header = _convert(tree, Header, "", found)
    if header is not None:
        header = msgspec.structs.replace(header, tasks=tasks)
        found += _header_problems(header, declared=entries)
    return (None, found) if found else (header, [])


def _convert(tree: object, kind: type[_S], where: str, found: list[str]) -> _S | None:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        found.append(_in_plain_words(str(error), kind, where))
        return None


def _in_plain_words(text: str, kind: type[msgspec.Struct], where: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.format`" into the key and what is allowed."""
    problem, _, place = text.partition(" - at `$")
    allowed = ", ".join(kind.__struct_fields__)
    section = f" in [{where}]" if where else ""
    if "unknown field" in problem:
        return f"{HEADER}: unknown key {problem.split('`')[1]!r}{section}; allowed there: {allowed}"
    if "missing required" in problem:
        return f"{HEADER}: missing key {problem.split('`')[1]!r}{section}"
    key = ".".join(part for part in (where, place.rstrip("`").lstrip(".")) if part) or "the file"
    return f"{HEADER}: {key}: {problem[0].lower()}{problem[1:].replace('`', '')}"


def _header_problems(header: Header, declared: object) -> list[str]:
    found = []
    if header.format != FORMAT:
        found.append(f"{HEADER}: format is {header.format}, this runtime reads format {FORMAT}")
    if not _is_shape(header.input_shape, least=1):
        found.append(f"{HEADER}: input_shape is {header.input_shape}; allowed: 1 to 4 sizes of at least 1")
    if not declared:
        found.append(f"{HEADER}: there is no task; add a table such as [tasks.exercise] with its kind")
    if header.reader and not _READER.fullmatch(header.reader):
        found.append(f"{HEADER}: reader is {header.reader!r}; allowed: package:function")
    return found


def _task_problems(name: str, task: TaskData) -> list[str]:
    found = []
    if not _TASK.fullmatch(name) or name in _RESERVED:
        not_these = ", ".join(_RESERVED)
        found.append(
            f"{HEADER}: task {name!r} has no valid name; allowed: 1 to 32 letters, digits, '_', '-'; not {not_these}"
        )
    needs_shape = {"class": False, "dense_class": True, "value": bool(task.shape), "direction": True}[task.kind]
    if not _is_shape(task.shape, least=0) or bool(task.shape) != needs_shape:
        found.append(f"{HEADER}: tasks.{name}: shape is {task.shape}; for kind {task.kind!r} {SHAPES[task.kind]}")
    if (task.classes >= 2) != task.indices or task.classes < 0:
        allowed = "2 or more" if task.indices else "none"
        found.append(f"{HEADER}: tasks.{name}: classes is {task.classes}; allowed for kind {task.kind!r}: {allowed}")
    return found


def _is_shape(shape: list[int], least: int) -> bool:
    return least <= len(shape) <= 4 and all(size >= 1 for size in shape)
