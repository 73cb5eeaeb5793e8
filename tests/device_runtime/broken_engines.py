"""A folder of libraries that do not start, to come before the real ones."""

from __future__ import annotations

from pathlib import Path

from device_runtime.engines import ENGINES


def break_every_engine(folder: Path) -> Path:
    """Write a library of each name that raises when it is imported; return the folder for PYTHONPATH."""
    for kind in ENGINES.values():
        for library in {name for needed in kind.libraries for name in needed}:
            (folder / library).mkdir(parents=True, exist_ok=True)
            (folder / library / "__init__.py").write_text("raise ImportError('libbroken.so.1: cannot open')")
    return folder
