"""The server's log: every line with its job, round and device, for people or as JSON, into a file that does not grow.

A line is logged with ``extra={"job": ..., "round": ..., "device": ...}``, each where it applies. As JSON it has the
fields of a device's log (``mas-edge-device run --log-json``): time (UTC, RFC 3339), level, message, job, round, device;
those that do not apply are empty.
"""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from mas_edge.protocol.errors import ServerError

# 10 MB are some 60,000 lines: a day of a fleet that closes a round every few seconds. With four older files 50 MB are
# the most that a log ever takes of the disk that the run itself needs.
FILE_BYTES = 10_000_000
OLDER_FILES = 4
CONTEXT = ("job", "round", "device")


class Context(logging.Filter):
    """Gives every line the three fields. A line that names no job belongs to the one that was named last."""

    def __init__(self) -> None:
        super().__init__()
        self._job = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record; every line passes."""
        self._job = getattr(record, "job", "") or self._job
        record.job = self._job
        record.round = getattr(record, "round", "")
        record.device = getattr(record, "device", "")
        return True


class JsonLines(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; a traceback is the field ``error``."""
        fields = {
            "time": _utc(record.created), "level": record.levelname.lower(), "message": record.getMessage(),
            **{name: getattr(record, name, "") for name in CONTEXT}, "logger": record.name,
        }  # fmt: skip
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def _utc(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{thousandths:03d}Z"


class PlainLines(logging.Formatter):
    """For people: the fields that apply stand before the message, but a message that begins with one needs it once."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(where)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and its traceback below it."""
        named = [str(getattr(record, name, "")) for name in CONTEXT]
        message = record.getMessage()
        where = " ".join(name for name in named if name and not message.startswith(name))
        record.where = f"[{where}] " if where else ""
        return super().format(record)


def configure(level: int, *, as_json: bool = False, file: Path | None = None) -> None:
    """Send the log of this process to stderr, and into ``file`` as well.

    Raises:
        ServerError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=OLDER_FILES, encoding="utf-8"))
        except OSError as error:
            message = f"--log-file {file}: cannot be written: {error.strerror}; choose another place"
            raise ServerError(message) from None
    context = Context()
    for handler in handlers:
        handler.addFilter(context)
        handler.setFormatter(JsonLines() if as_json else PlainLines())
    logging.basicConfig(level=level, handlers=handlers)
