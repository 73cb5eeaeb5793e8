"""What it costs a device to connect: plain, and over TLS with a certificate on both sides.

    python tools/bench_handshake.py --times 200

One mosquitto for each, on this machine; the connections are interleaved, each from TCP to CONNACK. Says the median
milliseconds, the processor time of client and broker, and the bytes that cross, and the ratios to a plain connection:
those hold on other machines better than the milliseconds. Needs mosquitto and the package cryptography.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from device_runtime import identity, keys
from device_runtime.edge.address import parse_url
from device_runtime.edge.tls import context_for
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.settings import FleetSettings
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.broker.supervisor import free_port

# Section 3.1 of MQTT 5: version 5, clean start, keep-alive 20 s, no properties, the client identifier.
_CLIENT = b"bench"
_BODY = b"\0\4MQTT\5\2\0\x14\0" + struct.pack("!H", len(_CLIENT)) + _CLIENT
CONNECT = bytes([0x10, len(_BODY)]) + _BODY
DISCONNECT = b"\xe0\0"


class Plain:
    """A connection whose bytes are counted."""

    def __init__(self, port: int) -> None:
        self.sent = self.received = 0
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sent += len(data)
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """What has come; ends the program if nothing more will."""
        data = self.sock.recv(65536)
        if not data:
            message = "the broker hung up"
            raise SystemExit(message)
        self.received += len(data)
        return data


class Secured(Plain):
    """The same through TLS, whose records are counted too."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._until(self._tls.do_handshake)

    def _until(self, step: Callable[[], object]) -> object:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(super().receive())
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            super().send(self._out.read())

    def send(self, data: bytes) -> None:
        """Send all of it, encrypted."""
        self._tls.write(data)
        self._flush()

    def receive(self) -> bytes:
        """What has come, decrypted."""
        data = self._until(lambda: self._tls.read(65536))
        assert isinstance(data, bytes)
        return data


def once(connect: Callable[[], Plain]) -> tuple[float, float, int, int]:
    """(milliseconds, milliseconds of our processor, bytes sent, bytes received) until the CONNACK."""
    began, used = time.perf_counter(), time.process_time()
    connection = connect()
    connection.send(CONNECT)
    if connection.receive()[0] != 0x20:
        message = "the broker does not let us in"
        raise SystemExit(message)
    cost = (time.perf_counter() - began) * 1e3, (time.process_time() - used) * 1e3
    counted = connection.sent, connection.received
    connection.send(DISCONNECT)
    connection.sock.close()
    return *cost, *counted


def cpu_ms(pid: int | None) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def per_second(work: Callable[[], object], seconds: float = 1.0) -> float:
    """How often a step can be done in a second."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - began)


def main() -> None:
    """Make a fleet, join it, and connect again and again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=200)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fleet = Fleet.create(folder / "fleet", FleetSettings("bench", ["127.0.0.1"], free_port(), free_port()))
        rules = Enrolment(fleet)
        with Endpoint(fleet, "127.0.0.1"):
            began = time.perf_counter()
            joined = identity.join(folder / "device", rules.invite("bench"), print)
            print(f"joining, from key to certificate: {(time.perf_counter() - began) * 1e3:.0f} ms")
        measure(folder, fleet, joined.url, times)
        print(f"new P-256 keys: {per_second(keys.new_key):.0f} a second")


def measure(folder: Path, fleet: Fleet, url: str, times: int) -> None:
    """Connect in turns and print the table."""
    new, old = context_for(parse_url(url)), context_for(parse_url(url))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    port = fleet.settings.port
    with (
        ManagedBroker(folder / "plain") as plain,
        ManagedBroker(folder / "secured", port=port, fleet=fleet) as secured,
        ManagedBroker(folder / "older", port=free_port(), fleet=fleet) as older,
    ):
        plain_port, old_port = (parse_url(broker.url).port for broker in (plain, older))
        ways: dict[str, tuple[Callable[[], Plain], ManagedBroker]] = {
            "plain": (lambda: Plain(plain_port), plain),
            "TLS 1.3, both certificates": (lambda: Secured(port, new), secured),
            "TLS 1.2, both certificates": (lambda: Secured(old_port, old), older),
        }
        before = {way: cpu_ms(broker.pid) for way, (_, broker) in ways.items()}
        costs: dict[str, list[tuple[float, float, int, int]]] = {way: [] for way in ways}
        for _ in range(times):
            for way, (connect, _) in ways.items():
                costs[way].append(once(connect))
        print(
            "| way | ms | x plain | our CPU ms | broker CPU ms | bytes up | bytes down |\n|---|---|---|---|---|---|---|"
        )
        usual = statistics.median(cost[0] for cost in costs["plain"])
        for way, (_, broker) in ways.items():
            ms, cpu, up, down = (statistics.median(column) for column in zip(*costs[way], strict=True))
            theirs = (cpu_ms(broker.pid) - before[way]) / times
            print(f"| {way} | {ms:.2f} | {ms / usual:.1f} | {cpu:.2f} | {theirs:.2f} | {up:.0f} | {down:.0f} |")


if __name__ == "__main__":
    main()
