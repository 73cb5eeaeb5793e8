"""The model card: what an exported model is, what it was measured at, and what nobody knows about it.

One struct, written as TOML for machines and as Markdown for people. It says only what the job, the run, the data and
the verification say; where they say nothing, so does the card, in words.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from mas_edge.export.report import Loss
from mas_edge.export.toml import to_toml
from mas_edge.protocol.errors import ServerError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of the card; what has its default is not written."""


class Measured(_Part, frozen=True):
    """A task on the test samples of all devices, and from the lowest to the highest device."""

    stage: str  # untrained, merged or split
    loss: float
    metric: float
    samples: int
    devices: int = 0
    lowest: float = 0.0  # of the metric
    highest: float = 0.0


class TaskCard(_Part, frozen=True):
    """A task as the model answers it."""

    name: str
    kind: str
    output: list[int]  # the shape of one answer
    metric: str
    loss: str
    classes: int = 0
    unit: str = ""
    measured: list[Measured] = []


class NetworkCard(_Part, frozen=True):
    """The network: where it comes from and how many numbers it has, by part."""

    architecture: str  # a family of the kit, or the job's own function
    weights: int
    trained: int
    parts: dict[str, int]
    arguments: dict[str, Any] = {}


class InputCard(_Part, frozen=True):
    """What the model takes."""

    name: str
    shape: list[int]  # of one sample
    dtype: str
    batch: str


class FileCard(_Part, frozen=True):
    """A file beside the card."""

    name: str
    size: int
    sha256: str
    content: str


class Checked(_Part, frozen=True):
    """The worst output of the model or of one method of the training program, against eager PyTorch."""

    what: str
    outputs: int
    worst: str
    max_abs: float
    max_rel: float
    tolerance: float


class DataCard(_Part, frozen=True):
    """What the job's author says about the data."""

    description: str = ""
    licence: str = ""
    contact: str = ""


class TrainingCard(_Part, frozen=True):
    """How the weights came about."""

    run: str
    rounds: int = 0  # in which this group was trained, the merged ones included
    devices: int = 0  # that took part
    seconds: float = 0.0


class Board(_Part, frozen=True):
    """What a microboard needs for the model; kernels, stack and the firmware itself come on top."""

    flash: int  # bytes
    arena: int  # bytes of RAM, found by bisection to ``granularity``
    granularity: int
    operators: dict[str, int]  # that the firmware registers, and how often the model calls each


class ModelCard(_Part, frozen=True):
    """Everything; ``from_toml(to_toml_text(card)) == card``."""

    format: int
    name: str
    job: str
    group: str
    target: str
    precision: str
    engine: str
    created: str  # ISO 8601, UTC
    tasks: list[TaskCard]
    input: InputCard
    network: NetworkCard
    training: TrainingCard
    files: list[FileCard]
    versions: dict[str, str]
    verification: list[Checked]
    quantization: list[Loss] = []
    board: Board | None = None
    data: DataCard = DataCard()
    intended_use: str = ""
    limits: str = ""


def to_toml_text(card: ModelCard) -> str:
    """The card as TOML."""
    return to_toml(msgspec.to_builtins(card))


def from_toml(text: str) -> ModelCard:
    """Read what ``to_toml_text`` wrote. Raises ServerError if it is no card."""
    try:
        return msgspec.convert(tomllib.loads(text), ModelCard)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        message = f"not a model card: {error}"
        raise ServerError(message) from None
