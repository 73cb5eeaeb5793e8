"""What the same bytes cost without us: between bare processes by TCP, and through a bare mosquitto.

python tools/rounds_floor.py tcp-device PORT BYTES
python tools/rounds_floor.py mqtt-device URL NAME BYTES

``bench_rounds.py`` starts these. A round is ``BYTES`` down to every device and ``BYTES`` up from each; nothing is
computed, checked or stored.
"""

from __future__ import annotations

import os
import queue
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rounds_meter as meter

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2
PIECE = 512 * 1024  # the packets of the bare broker: as large as our chunks may be
READ = 1024 * 1024


def tcp(folder: Path, size: int, devices: int, rounds: int) -> list[float]:
    """Seconds of each round between processes that only send and receive."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = str(listener.getsockname()[1])
        for _ in range(devices):
            stack.enter_context(_process(folder, "tcp-device", port, str(size)))
        connections = [stack.enter_context(listener.accept()[0]) for _ in range(devices)]
        payload = os.urandom(size)
        return [_tcp_round(connections, payload) for _ in range(WARM_UP + rounds)][WARM_UP:]


def _tcp_round(connections: list[socket.socket], payload: bytes) -> float:
    began = time.perf_counter()
    left = {connection: memoryview(payload) for connection in connections}
    owed = dict.fromkeys(connections, len(payload))
    buffer = bytearray(READ)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while any(owed.values()):
            for key, events in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if events & selectors.EVENT_WRITE:
                    left[connection] = left[connection][connection.send(left[connection]) :]
                    if not left[connection]:
                        selector.modify(connection, selectors.EVENT_READ)
                if events & selectors.EVENT_READ:
                    owed[connection] -= connection.recv_into(buffer)
    return time.perf_counter() - began


def tcp_device(port: int, size: int) -> None:
    """Take a payload in whole, then give it back, for ever."""
    buffer = bytearray(size)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            view = memoryview(buffer)
            while view:
                count = connection.recv_into(view)
                if not count:
                    return
                view = view[count:]
            connection.sendall(buffer)


def mqtt(folder: Path, url: str, broker: int, size: int, devices: int, rounds: int) -> tuple[list[float], float]:
    """Seconds of each round of plain QoS 0 publishes, and the broker's processor seconds a round."""
    from device_runtime.edge.mqtt import Arrived, Event, Link

    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, Arrived):
            arrived.put(len(event.payload))

    def heard(count: int) -> None:
        while count > 0:
            count -= arrived.get(timeout=60)

    link = Link(url, "floor", on_event)
    link.subscribe("floor/up/+", qos=0)
    link.subscribe("floor/hello/+", qos=1)
    link.start()
    pieces = [os.urandom(min(PIECE, size - start)) for start in range(0, size, PIECE)]
    seconds = []
    with ExitStack() as stack:
        for index in range(devices):
            stack.enter_context(_process(folder, "mqtt-device", url, str(index), str(size)))
        heard(devices)  # a byte of each
        for _ in range(WARM_UP + rounds):
            if len(seconds) == WARM_UP:
                spent = meter.taken(broker).cpu_s
            began = time.perf_counter()
            for piece in pieces:
                link.send_bulk("floor/down", piece)
            heard(devices * size)
            seconds.append(time.perf_counter() - began)
        cpu = (meter.taken(broker).cpu_s - spent) / rounds
    link.stop()
    return seconds[WARM_UP:], cpu


def mqtt_device(url: str, name: str, size: int) -> None:
    """Take a payload in whole, then give it back in pieces, for ever."""
    from device_runtime.edge.mqtt import Arrived, Connected, Event, Link

    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, Arrived):
            told.put(len(event.payload))
        elif isinstance(event, Connected):
            link.publish(f"floor/hello/{name}", b"!")

    link = Link(url, f"floor-{name}", on_event)
    link.subscribe("floor/down", qos=0)
    link.start()
    pieces = [os.urandom(min(PIECE, size - start)) for start in range(0, size, PIECE)]
    while True:
        owed = size
        while owed > 0:
            owed -= told.get()
        for piece in pieces:
            link.send_bulk(f"floor/up/{name}", piece)


@contextmanager
def _process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "floor.log").open("a") as log:
        process = subprocess.Popen([sys.executable, __file__, *arguments], env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "tcp-device":
        tcp_device(*(int(number) for number in sys.argv[2:]))
    else:
        mqtt_device(sys.argv[2], sys.argv[3], int(sys.argv[4]))
