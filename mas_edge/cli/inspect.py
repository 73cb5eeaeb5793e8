"""``mas-edge inspect``: what is in a program, a model or a file of weights."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "inspect",
        help="show what is in a file: methods, inputs, outputs, operators, size, sha256",
        description="Show what is in a program of this kit, an ONNX, ExecuTorch (.pte) or LiteRT (.tflite) model, or a "
        "safetensors file. Nothing of the file is run.",
        epilog="example: mas-edge inspect exported/group-0/onnx-fp32/train.program",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="also one of the artifacts below a run's --state")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the page. Raises ProgramError for a file of no known kind, a damaged or a truncated one."""
    from mas_edge.export.contents import read_contents
    from mas_edge.export.contents.listing import lines_of

    contents = read_contents(args.file)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(contents), indent=2).decode())
    else:
        print("\n".join(lines_of(contents)))
    return 0
