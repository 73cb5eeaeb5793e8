"""Export trained groups: ``mas-edge export`` as a script.

python tools/export_model.py demo-out --target onnx --out exported
"""

from __future__ import annotations

import sys

from mas_edge.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
