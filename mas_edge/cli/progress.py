"""What a person sees while steps take their time: a spinner on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes steps and the seconds they took to ``output``."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def head(self, text: str) -> None:
        """Begin a group of steps."""
        print(text, file=self._output, flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show ``what`` while the block runs, then the seconds."""
        start = time.perf_counter()
        ended = "failed"
        try:
            with self._shown(what):
                yield
            ended = ""
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        finally:
            seconds = time.perf_counter() - start
            print(f"  {seconds:7.1f} s  {what}{f': {ended}' if ended else ''}", file=self._output, flush=True)

    @contextmanager
    def _shown(self, what: str) -> Iterator[None]:
        if not self._output.isatty():
            yield
            return
        from rich.console import Console
        from rich.text import Text

        with Console(file=self._output).status(Text(what)):  # a path may hold what would be markup
            yield
