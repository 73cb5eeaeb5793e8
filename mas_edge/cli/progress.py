"""What a person sees while steps take their time: a spinner on a terminal, one line a step elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TextIO

PATIENCE_S = 2.0  # from then on a person who sees nothing believes that it hangs


@contextmanager
def if_slow(what: str, output: TextIO | None = None) -> Iterator[None]:
    """Say ``what`` goes on if the block takes longer than ``PATIENCE_S``; default output: stderr.

    A block that is fast says nothing. Not for one that writes to the same output itself.
    """
    shown = ExitStack()
    timer = threading.Timer(PATIENCE_S, lambda: shown.enter_context(_shown(what, output or sys.stderr)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be about to draw
        shown.close()


@contextmanager
def _shown(what: str, output: TextIO) -> Iterator[None]:
    """A spinner that goes with the block; without a terminal one line."""
    if not output.isatty():
        print(f"{what} ...", file=output, flush=True)
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(file=output).status(Text(what)):  # a path may hold what would be markup
        yield


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
            with _shown(what, self._output) if self._output.isatty() else nullcontext():
                yield
            ended = ""
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        finally:
            seconds = time.perf_counter() - start
            print(f"  {seconds:7.1f} s  {what}{f': {ended}' if ended else ''}", file=self._output, flush=True)
