"""What an interpreter without PyTorch does for the tests: ``python -m tests.device_runtime.numpy_child FOLDER``.

``train.program`` and ``feeds.npz``: ten steps on one batch, written to ``first.npz`` and ``last.npz``; every ``*.pte``:
the outputs for ``x.npy``, written beside it as ``.npz``. What became of the process is written to ``report.json``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

from device_runtime.engines import open_engine
from device_runtime.engines.base import Arrays
from device_runtime.engines.executorch_engine import inference_model
from mas_edge.protocol.program import load

STEPS = 10


def main(folder: Path) -> None:
    runner = open_engine("executorch").load(load((folder / "train.program").read_bytes()))
    feeds = dict(np.load(folder / "feeds.npz"))
    for step in range(STEPS):
        outputs = runner.run("train_step", feeds)
        if step == 0:
            _save(folder / "first.npz", outputs)
        feeds |= {"weights": outputs["weights"], "momentum": outputs["momentum"]}
    _save(folder / "last.npz", outputs)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    x = np.load(folder / "x.npy")
    for file in folder.glob("*.pte"):
        _save(file.with_suffix(".npz"), inference_model(file.read_bytes(), ["label", "amount"]).run(x))
    report = {"torch": "torch" in sys.modules, "peak_bytes": int(peak[1]) * 1024 if peak else 0}
    (folder / "report.json").write_text(json.dumps(report))


def _save(file: Path, arrays: Arrays) -> None:
    np.savez(file, **arrays)  # type: ignore[arg-type]  # a name is no option here


if __name__ == "__main__":
    main(Path(sys.argv[1]))
