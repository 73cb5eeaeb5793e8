"""What passes between the orchestrator and the process of its workshop: msgpack in frames, through two pipes."""

from __future__ import annotations

from typing import IO, TypeAlias

import msgspec

from mas_edge.federation.flow import JobState, Local, Provided
from mas_edge.federation.supply import Wanted
from mas_edge.job import Job
from mas_edge.orchestrator.records import RoundRecord, SplitRecord

_SIZE_BYTES = 4  # of the length before each message: states with thousands of rounds are a few MB


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """The first word to the process: the job, where its files are, and from which level on to say what it logs."""

    job: Job
    artifacts: str
    directory: str
    log_level: int


class Take(msgspec.Struct, frozen=True, tag=True):
    """An order: do a step of the orchestrator's own."""

    work: Local
    state: JobState
    records: list[RoundRecord]


class Provide(msgspec.Struct, frozen=True, tag=True):
    """An order: make what a device needs."""

    wanted: Wanted
    state: JobState


class Taken(msgspec.Struct, frozen=True, tag=True):
    """The answer to ``Take``."""

    state: JobState
    split: SplitRecord | None


class Supplied(msgspec.Struct, frozen=True, tag=True):
    """The answer to ``Provide``."""

    made: Provided


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The answer to an order that cannot be carried out: the name of an error of the kit's tree, and its message."""

    error: str
    message: str


class Said(msgspec.Struct, frozen=True, tag=True):
    """A line for the orchestrator's log, before the answer."""

    logger: str
    level: int
    text: str


Order: TypeAlias = Take | Provide
Answer: TypeAlias = Taken | Supplied | Failed


def send(pipe: IO[bytes], message: Opening | Order | Answer | Said) -> None:
    """Write one message. Raises OSError if nobody reads it."""
    data = msgspec.msgpack.encode(message)
    pipe.write(len(data).to_bytes(_SIZE_BYTES, "big") + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """Read one message, still encoded. Raises EOFError if the pipe ends before it does."""
    return _all_of(pipe, int.from_bytes(_all_of(pipe, _SIZE_BYTES), "big"))


def _all_of(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def opening_of(data: bytes) -> Opening:
    """Decode a first word. Raises msgspec.MsgspecError."""
    return msgspec.msgpack.decode(data, type=Opening)


def order_of(data: bytes) -> Order:
    """Decode an order. Raises msgspec.MsgspecError."""
    order: Order = msgspec.msgpack.decode(data, type=Order)
    return order


def answer_of(data: bytes) -> Answer | Said:
    """Decode what comes back. Raises msgspec.MsgspecError."""
    answer: Answer | Said = msgspec.msgpack.decode(data, type=Answer | Said)
    return answer
