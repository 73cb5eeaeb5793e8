from __future__ import annotations

import re
import subprocess
import sys

from tests.docs.pages import ROOT


def test_what_signing_costs_is_printed() -> None:
    command = [sys.executable, str(ROOT / "tools" / "bench_signing.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert len(re.findall(r"\d+\.\d\d ms", printed)) == 5
    bare, signed = (int(size) for size in re.findall(r"(\d+) B bare, (\d+) B signed", printed)[0])
    assert 0 < signed - bare < 500
