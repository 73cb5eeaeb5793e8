from __future__ import annotations

import re
import subprocess
import sys

from tests.docs.pages import ROOT


def printed(*options: str) -> str:
    command = [sys.executable, str(ROOT / "tools" / "bench_rooms.py"), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_the_speed_of_each_size_is_printed() -> None:
    (speed,) = re.findall(r"^ +32 x 32 +(\d+) images/s$", printed("--size", "32"), re.MULTILINE)
    assert int(speed) > 0


def test_the_table_of_units_is_the_one_in_the_code() -> None:
    table = (ROOT / "mas_edge" / "datasets" / "rooms" / "units.py").read_text(encoding="utf-8")
    assert printed("--units", "--size", "32") in table
