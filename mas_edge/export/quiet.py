"""Silence around an exporter, which warns and logs about packages and arguments that are not ours."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*packages: str) -> Iterator[None]:
    """Hold back warnings, what the loggers of ``packages`` say, and what this thread says on the root logger itself.

    Errors on a log are held back too: what fails is raised as well. The root logger is everybody's, and some exporters
    log on it; other threads, and the loggers of other packages, are heard as ever. Python's warning filters belong to
    the whole process, so a warning of another thread may get lost meanwhile.
    """
    root, said_here = logging.getLogger(), _ThisThread()
    loggers = [logging.getLogger(name) for name in packages]
    levels = [logger.level for logger in loggers]
    root.addFilter(said_here)  # a logger's own filter sees what is said on it, not what comes up from others
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(said_here)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _ThisThread(logging.Filter):
    """Drops what the thread that made it logs, unless it is critical."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno >= logging.CRITICAL
