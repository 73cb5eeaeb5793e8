"""Whether these tests run in the LiteRT build environment, found out without importing its packages (7 s of CPU)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_converter = pytest.mark.skipif(find_spec("litert_torch") is None, reason="litert_torch is not installed")
needs_board = pytest.mark.skipif(
    find_spec("litert_torch") is None or find_spec("tflite_micro") is None, reason="tflite_micro is not installed"
)


def require_converter() -> None:
    """Skip what asks for it outside of that environment."""
    if find_spec("litert_torch") is None:
        pytest.skip("litert_torch is not installed")
