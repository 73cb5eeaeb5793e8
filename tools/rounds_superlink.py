"""Rounds of Flower's deployment engine, a SuperLink and SuperNodes, without training; see ``bench_rounds.py``.

Real processes as its documentation starts them: ``flower-superlink``, a ``flower-supernode`` for each client, and
``flwr run`` with an app of two small modules, whose ServerApp writes down when each round began. It starts a process
for every message and polls every few seconds, so a round of any payload takes some seconds of both cores.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import rounds_meter as meter

WARM_UP = 1  # rounds before the clock starts: the first one waits for all SuperNodes, and carries the app to them
START_S = 60.0  # it imports for some seconds
PATIENCE_S = 120.0  # for one round: six times what the reference took

_PROJECT = """
[project]
name = "rounds"
version = "1.0.0"

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "rounds"

[tool.flwr.app.components]
serverapp = "rounds.server:app"
clientapp = "rounds.client:app"

[tool.flwr.app.config]
floats = {floats}
clients = {clients}
rounds = {rounds}
times = "{times}"
"""

_SERVER = """
import time
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

TENSORS = 20
app = ServerApp()


class Timed(FedAvg):
    def configure_train(self, *arguments, **named):
        with open(self.times, "a") as file:
            file.write(f"{time.time()}\\n")
        return super().configure_train(*arguments, **named)


@app.main()
def main(grid, context):
    config = context.run_config
    clients, size = config["clients"], config["floats"] // TENSORS
    tensors = [np.random.default_rng(n).standard_normal(size).astype(np.float32) for n in range(TENSORS)]
    strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    strategy.times = config["times"]
    strategy.start(grid=grid, initial_arrays=ArrayRecord(tensors), num_rounds=config["rounds"])
"""

_CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    own = np.float32(context.node_config["number"] + 1)
    arrays = ArrayRecord([tensor + own for tensor in message.content["arrays"].to_numpy_ndarrays()])
    metrics = MetricRecord({"num-examples": 3})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
"""


def measure(python: Path, folder: Path, floats: int, clients: int, rounds: int) -> dict[str, Any]:
    """Run ``rounds`` rounds after WARM_UP; the fields of ``rounds_kit.Measured``. ``python``: of ``rounds_flower``."""
    times, (port, *others) = folder / "times", _free_ports(1 + clients)
    address = f"127.0.0.1:{port}"
    _write_app(folder, times, floats, clients, WARM_UP + rounds + 1)  # one more, whose beginning ends the last
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\ninsecure = true\n'
    )
    with ExitStack() as stack:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        server = stack.enter_context(_process(python, folder, "flower-superlink", "--insecure", *where))
        _await_port(port, server, folder)
        nodes = []
        for number, other in enumerate(others):
            own = ["--superlink", address, "--port", str(other), "--node-config", f"number={number}"]
            nodes.append(stack.enter_context(_process(python, folder, "flower-supernode", "--insecure", *own)))
        stack.enter_context(_process(python, folder, "flwr", "run", str(folder / "rounds"), "here"))
        pids = {"server": server.pid, **{f"client-{number}": node.pid for number, node in enumerate(nodes)}}
        peaks = dict.fromkeys(pids, 0.0)
        _await_rounds(times, WARM_UP + 1, pids, peaks, folder)
        before = {name: meter.tree_cpu_s(pid) for name, pid in pids.items()}
        _await_rounds(times, WARM_UP + rounds + 1, pids, peaks, folder)
        cpu = {name: (meter.tree_cpu_s(pid) - before[name]) / rounds for name, pid in pids.items()}
    opened = [float(line) for line in times.read_text().split()][WARM_UP : WARM_UP + rounds + 1]
    return {
        "seconds": [late - early for early, late in pairwise(opened)],
        "memory_mb": {"server": peaks.pop("server"), "client": max(peaks.values())},
        "cpu_s": {"server": cpu.pop("server"), "client": sum(cpu.values()) / clients},
    }


def _write_app(folder: Path, times: Path, floats: int, clients: int, rounds: int) -> None:
    package = folder / "rounds" / "rounds"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "server.py").write_text(_SERVER)
    (package / "client.py").write_text(_CLIENT)
    project = _PROJECT.format(floats=floats, clients=clients, rounds=rounds, times=times)
    (folder / "rounds" / "pyproject.toml").write_text(project)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _process(python: Path, folder: Path, command: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of the environment in a group of its own, and end all that it started."""
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1", "FLWR_HOME": str(folder),
        "PATH": f"{python.parent}:{os.environ['PATH']}",  # it starts commands of its own by their names
    }  # fmt: skip
    with (folder / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(
            [python.parent / command, *arguments], env=environment, cwd=folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        meter.end_tree(process.pid)
        process.wait()


def _await_port(port: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    _give_up("the SuperLink does not listen", folder)


def _await_rounds(times: Path, count: int, pids: dict[str, int], peaks: dict[str, float], folder: Path) -> None:
    """Wait until so many rounds have begun; note the most memory that each process and its children hold meanwhile."""
    begun, until = -1, time.monotonic() + PATIENCE_S
    while begun < count:
        now = len(times.read_text().split()) if times.exists() else 0
        if now > begun:
            begun, until = now, time.monotonic() + PATIENCE_S
        if time.monotonic() > until:
            _give_up(f"{begun} of {count} rounds have begun", folder)
        for name, pid in pids.items():
            peaks[name] = max(peaks[name], meter.tree_resident_mb(pid))
        time.sleep(0.25)  # its children live for seconds


def _give_up(problem: str, folder: Path) -> None:
    logs = "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(folder.glob("*.log")))
    sys.exit(f"Flower's deployment: {problem}\n{logs}")
