"""The one error tree of the kit, rooted by whose fault it is.

    EdgeError                     anything this kit raises on purpose
     ├── JobError                 the job's author: job file, network, loss      (exit 3)
     ├── DataError                the device's owner: data folder, reader        (exit 4)
     ├── BrokerError              the broker: unreachable, refuses, too small    (exit 5)
     ├── ServerError              the orchestrator: store, export, disk          (exit 6)
     ├── DeviceError              the device runtime: engine, memory, disk       (exit 7)
     └── ProtocolError            whoever sent these bytes                       (exit 8)
          ├── MessageError        a control message that does not decode
          ├── TransferError       a manifest, a chunk or a range
          ├── WeightsError        a weights file: names, shapes, dtype, not finite
          ├── ProgramError        a program file: format, operator, argument
          └── TrustError          signed by nobody we trust, expired, or an old word said again

A message says what was expected, what came, and what to do. No dependency's error reaches a user.
"""

from __future__ import annotations

from mas_edge.protocol.limits import MAX_ERROR, printable


class EdgeError(Exception):
    """Root of everything this kit raises on purpose; ``exit_code`` is what a command ends with.

    The message is made one line that may stand in a log and on a terminal: it may quote what came from elsewhere.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message, MAX_ERROR))


class JobError(EdgeError):
    """The job's author has to change something: job file, network, loss or metric."""

    exit_code = 3


class DataError(EdgeError):
    """The device's owner has to change something: data folder or reader."""

    exit_code = 4


class BrokerError(EdgeError):
    """The broker cannot be reached, refuses us, or lacks something we need."""

    exit_code = 5


class ServerError(EdgeError):
    """The orchestrator cannot go on: store, export, disk."""

    exit_code = 6


class DeviceError(EdgeError):
    """The device runtime cannot go on: engine, memory, disk."""

    exit_code = 7


class ProtocolError(EdgeError):
    """Bytes from the other side that are not what the contract says."""

    exit_code = 8


class MessageError(ProtocolError):
    """A control message that does not decode or breaks a rule of its type."""


class TransferError(ProtocolError):
    """A manifest, a chunk or a range that does not fit its artifact."""


class DamagedChunksError(TransferError):
    """``indices``: the chunks of an artifact that are not what its manifest says; they have to come again."""

    def __init__(self, message: str, indices: list[int]) -> None:
        super().__init__(message)
        self.indices = indices


class WeightsError(ProtocolError):
    """A weights file with wrong names, shapes or dtype, or with values that are not finite."""


class ProgramError(ProtocolError):
    """A program file of an unknown format, or with an operator or argument that is not allowed."""


class TrustError(ProtocolError):
    """A plan, an artifact or metadata that is not signed by whom this device trusts, is expired, or is an old one."""
