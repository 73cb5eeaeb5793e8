"""Seconds, memory and processor time of a federated round without training, beside what its bytes cost alone.

python tools/bench_rounds.py --json rounds.json
python tools/bench_rounds.py --against flower              # makes an environment with flwr (300 MB) if it is not there
python tools/bench_rounds.py --against flower superlink    # its deployment engine too: minutes

Real processes through a real mosquitto: the orchestrator and its store, 8 devices with their stores; 10.49 MB of
float32 weights down and up, then 10 KB. Beside it the same bytes by raw TCP and through the bare broker. All of them
take turns, block by block, so that a busy machine is busy for all. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rounds_floor as floor
import rounds_flower as flower
import rounds_kit as kit
import rounds_superlink as superlink

from mas_edge.orchestrator.broker.managed import ManagedBroker

PAYLOADS = {"10.49 MB": 20 * 131_072, "10 KB": 20 * 128}  # numbers of float32; the first is the reference's
FLOWER = Path.home() / ".cache" / "mas-edge" / "flower"
PEERS = ("flower", "superlink")
LEGACY, DEPLOYED = "Flower, legacy gRPC", "Flower, SuperLink"
SUPERLINK_ROUNDS = 2  # in each block: they take some twenty seconds each, and are much alike


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure federated rounds without training.")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="in each block")
    parser.add_argument("--blocks", type=int, default=3, help="how often everything takes its turn")
    parser.add_argument("--payload", nargs="+", choices=PAYLOADS, default=list(PAYLOADS))
    parser.add_argument("--against", nargs="+", choices=PEERS, default=[], help="peers, in an environment of their own")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args(arguments)
    python = flower.environment(FLOWER) if options.against else None
    blocks: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _ in range(options.blocks):
        for payload in options.payload:
            for name, measured in _block(PAYLOADS[payload], options.devices, options.rounds, python, options.against):
                blocks[payload, name].append(measured)
    rows = [_row(payload, name, found) for (payload, name), found in blocks.items()]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"devices": options.devices, "rows": rows}, indent=2) + "\n")
    return 0


def _block(
    floats: int, devices: int, rounds: int, python: Path | None, against: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Everything once, for one payload."""
    found: list[tuple[str, dict[str, Any]]] = []
    size = 4 * floats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found.append(("mas-edge", asdict(kit.measure(folder, floats, devices, rounds))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if python is not None and "flower" in against:
            found.append((LEGACY, flower.measure(python, folder, floats, devices, rounds)))
        if python is not None and "superlink" in against:
            found.append((DEPLOYED, superlink.measure(python, folder, floats, devices, SUPERLINK_ROUNDS)))
        found.append(("raw TCP", {"seconds": floor.tcp(folder, size, devices, rounds)}))
        with ManagedBroker(folder) as broker:
            seconds, cpu = floor.mqtt(folder, broker.url, broker.pid or 0, size, devices, rounds)
        found.append(("bare broker", {"seconds": seconds, "cpu_s": {"broker": cpu}}))
    return found


def _row(payload: str, name: str, blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All blocks of one line of the table: the median over all rounds, the peak of memory, the mean of time."""
    seconds = [second for block in blocks for second in block["seconds"]]
    timed, held = blocks[0].get("cpu_s", {}), blocks[0].get("memory_mb", {})
    return {
        "payload": payload, "what": name, "rounds": len(seconds), "median_s": statistics.median(seconds),
        "fastest_s": min(seconds), "slowest_s": max(seconds),
        "block_medians_s": [statistics.median(block["seconds"]) for block in blocks],
        "memory_mb": {role: max(block["memory_mb"][role] for block in blocks) for role in held},
        "cpu_s": {role: statistics.mean(block["cpu_s"][role] for block in blocks) for role in timed},
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people, with our time as a multiple of each other's."""
    ours = {row["payload"]: row["median_s"] for row in rows if row["what"] == "mas-edge"}
    peer = next((row["median_s"] for row in rows if row["what"] == LEGACY), None)
    lines = [
        f"{'payload':9} {'what':20} {'s a round':>10} {'(min - max)':>15} {'ours / it':>9}  "
        "memory MB and CPU s a round: server, a client, broker"
    ]
    for row in rows:
        took = f"{_roles(row['memory_mb'], '.0f')} | {_roles(row['cpu_s'], '.2f')}"
        spread = f"({row['fastest_s']:.3f} - {row['slowest_s']:.3f})"
        lines.append(
            f"{row['payload']:9} {row['what']:20} {row['median_s']:10.3f} {spread:>15} "
            f"{ours[row['payload']] / row['median_s']:9.2f}  {took}"
        )
    if peer is not None:
        lines += [f"{payload}: {seconds / peer:.2f} x {LEGACY}'s first payload" for payload, seconds in ours.items()]
    return "\n".join(lines)


def _roles(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{values[role]:{form}}" if role in values else "-" for role in ("server", "client", "broker"))


if __name__ == "__main__":
    sys.exit(main())
