"""The two places of a deployed model: the one in use, and the one on trial beside it.

The file's suffix is its format. A model that passes its trial takes the place of the old one in one rename; where the
format changed, the old file goes right after. A power cut in between leaves both, and the newer one counts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from device_runtime.edge.files import sync
from mas_edge.protocol.models import ENGINE_OF


class Slots:
    """The places of one group's model in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def active(self) -> Path | None:
        """The model in use; None if none ever passed."""
        there = [path for path in self._places() if path.is_file()]
        return max(there, key=lambda path: path.stat().st_mtime_ns, default=None)

    def put_on_trial(self, source: Path, suffix: str) -> Path:
        """Copy a model beside the one in use; return where it is now."""
        self._directory.mkdir(parents=True, exist_ok=True)
        trial = self._directory / f"trial.{suffix}"
        shutil.copyfile(source, trial)
        return trial

    def activate(self, trial: Path) -> Path:
        """Put ``trial`` in the place of the model in use, durably; return its path."""
        active = self._directory / f"active{trial.suffix}"
        sync(trial)
        trial.replace(active)
        sync(active)
        for old in self._places():
            if old != active:
                old.unlink(missing_ok=True)
        return active

    def _places(self) -> list[Path]:
        return [self._directory / f"active.{suffix}" for suffix in ENGINE_OF]
