"""The device's log: every line with its job, round and device, for people or as JSON, into a file that does not grow.

As JSON a line has the fields of the server's log (``mas-edge serve --log-json``): time (UTC, RFC 3339), level, message,
job, round, device, logger; those that do not apply are empty, and a traceback is the field ``error``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import msgspec

from mas_edge.protocol.errors import DeviceError

# With --verbose a round is some ten lines of 100 to 200 bytes: 1 MB are about 500 rounds. With two older files 3 MB are
# the most that a log takes of a memory card that is its owner's, and that wears out by being written to.
FILE_BYTES = 1_000_000
OLDER_FILES = 2

_work: ContextVar[tuple[str, str]] = ContextVar("work", default=("", ""))  # of this thread: job and round


@contextmanager
def about(job: str, round_id: str) -> Iterator[None]:
    """Every line that this thread logs within is about this round."""
    token = _work.set((job, round_id))
    try:
        yield
    finally:
        _work.reset(token)


class Context(logging.Filter):
    """Gives every line its job, round and device. A line that names no job belongs to the one that was named last."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self._job = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record; every line passes."""
        job, record.round = _work.get()
        self._job = record.job = job or self._job
        record.device = self._device
        return True


class JsonLines(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        fields = {
            "time": _utc(record.created), "level": record.levelname.lower(), "message": record.getMessage(),
            "job": _field(record, "job"), "round": _field(record, "round"), "device": _field(record, "device"),
            "logger": record.name,
        }  # fmt: skip
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        # What drivers and file names hold may be no Unicode; a log takes it all the same.
        clean = {name: text.encode("utf-8", "replace").decode() for name, text in fields.items()}
        return msgspec.json.encode(clean).decode()


class PlainLines(logging.Formatter):
    """For people: time, device, level, and the round unless the message begins with it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(device)s %(levelname)s %(where)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and its traceback below it."""
        named = _field(record, "round")
        record.where = f"{named}: " if named and not record.getMessage().startswith(named) else ""
        return super().format(record)


def configure(device: str, level: int, *, as_json: bool = False, file: Path | None = None) -> None:
    """Send the log of this process to stderr, and into ``file`` as well.

    Raises:
        DeviceError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        handlers.append(_rotating(file))
        logging.raiseExceptions = False  # a disk that is full takes no lines, and is no reason for a traceback a line
    context = Context(device)
    for handler in handlers:
        handler.addFilter(context)
        handler.setFormatter(JsonLines() if as_json else PlainLines())
    logging.basicConfig(level=level, handlers=handlers)


def _rotating(file: Path) -> logging.Handler:
    from logging.handlers import RotatingFileHandler  # 1.4 MB of memory, for those who keep a file

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=OLDER_FILES, encoding="utf-8")
    except OSError as error:
        message = f"--log-file {file}: cannot be written: {error.strerror}; choose another place"
        raise DeviceError(message) from None


def _field(record: logging.LogRecord, name: str) -> str:
    return str(getattr(record, name, ""))


def _utc(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}Z"
