"""Rounds of Flower's legacy gRPC server and clients without training, to hold ours against; see ``bench_rounds.py``.

python tools/rounds_flower.py server ADDRESS FLOATS CLIENTS ROUNDS
python tools/rounds_flower.py client ADDRESS INDEX

Runs in an environment of its own that ``environment`` makes: flwr is no dependency of this project.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

VERSION = "1.41.0"  # the last that was measured for the reference; it still has start_server and start_client
TENSORS = 20
WARM_UP = 2


def environment(folder: Path) -> Path:
    """The Python of an environment with flwr in ``folder``, made when it is not there (300 MB)."""
    python = folder / "bin" / "python"
    if not (folder / f".flwr-{VERSION}").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"flwr=={VERSION}"], check=True)
        (folder / f".flwr-{VERSION}").touch()
    return python


def measure(python: Path, folder: Path, floats: int, clients: int, rounds: int) -> dict[str, Any]:
    """Run ``rounds`` rounds after WARM_UP; the fields of ``rounds_kit.Measured``."""
    import rounds_meter as meter

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ExitStack() as stack:
        server = stack.enter_context(
            _process(python, folder, "server", address, str(floats), str(clients), str(rounds))
        )
        pids = [
            stack.enter_context(_process(python, folder, "client", address, str(index))).pid for index in range(clients)
        ]
        everyone = [server.pid, *pids]
        _expect(server, "warm", folder)
        before = [meter.taken(pid) for pid in everyone]
        _expect(server, "done", folder)
        after = [meter.taken(pid) for pid in everyone]
        seconds = json.loads(server.stdout.readline()) if server.stdout else []
    cpu = [(late.cpu_s - early.cpu_s) / rounds for early, late in zip(before, after, strict=True)]
    return {
        "seconds": seconds,
        "memory_mb": {"server": after[0].peak_mb, "client": max(each.peak_mb for each in after[1:])},
        "cpu_s": {"server": cpu[0], "client": sum(cpu[1:]) / clients},
    }


@contextmanager
def _process(python: Path, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    quiet = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with (folder / f"flower-{arguments[0]}.log").open("a") as log:
        process = subprocess.Popen(
            [python, __file__, *arguments],
            env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _expect(process: subprocess.Popen[str], word: str, folder: Path) -> None:
    line = process.stdout.readline().strip() if process.stdout else ""
    if line != word:
        log = (folder / "flower-server.log").read_text()
        sys.exit(f"Flower's server said {line!r} instead of {word!r}:\n{log[-2000:]}")


def serve(address: str, floats: int, clients: int, rounds: int) -> None:
    """Federated averaging over all clients, without evaluation."""
    import flwr
    import numpy as np

    opened: list[float] = []

    class Timed(flwr.server.strategy.FedAvg):  # type: ignore[misc]
        def configure_fit(self, *arguments: Any, **named: Any) -> Any:
            opened.append(time.time())
            if len(opened) in (WARM_UP + 1, WARM_UP + 1 + rounds):
                print("warm" if len(opened) == WARM_UP + 1 else "done", flush=True)
            if len(opened) == WARM_UP + 1 + rounds:
                print(
                    json.dumps([b - a for a, b in zip(opened[WARM_UP:], opened[WARM_UP + 1 :], strict=False)]),
                    flush=True,
                )
                sys.stdin.readline()
            return super().configure_fit(*arguments, **named)

    tensors = [np.random.default_rng(n).standard_normal(floats // TENSORS).astype(np.float32) for n in range(TENSORS)]
    strategy = Timed(
        fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients,
        initial_parameters=flwr.common.ndarrays_to_parameters(tensors),
    )  # fmt: skip
    config = flwr.server.ServerConfig(num_rounds=WARM_UP + rounds + 1)
    flwr.server.start_server(server_address=address, config=config, strategy=strategy)


def client(address: str, index: int) -> None:
    """Give the weights back with a number of our own added."""
    import flwr
    import numpy as np

    class Echo(flwr.client.NumPyClient):  # type: ignore[misc]
        def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
            return [tensor + np.float32(index + 1) for tensor in parameters], 3, {}

    flwr.client.start_client(server_address=address, client=Echo().to_client())


if __name__ == "__main__":
    role, where, *rest = sys.argv[1:]
    if role == "server":
        serve(where, *(int(number) for number in rest))
    else:
        client(where, *(int(number) for number in rest))
