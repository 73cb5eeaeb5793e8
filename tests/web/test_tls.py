"""The API off loopback, in a process of its own, with a fleet's certificate: who gets in, and what is renewed."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mas_edge.fleet.authority import SERVER_LIFE
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.web.door import Certificate
from mas_edge.web.problems import MEDIA_TYPE
from mas_edge.web.tokens import TokenStore
from tests.fleet.members import Clock, make_fleet
from tests.inbox import PATIENCE_S, until
from tests.web.conftest import Run

JSON = {"Content-Type": "application/json"}


class Served(NamedTuple):
    """A process that shows a run to the network; its log is JSON, in ``log``."""

    run: Run
    fleet: Fleet
    clock: Clock
    port: int
    log: Path

    def ask(self, path: str, *, method: str = "GET", body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON, for a client that trusts the fleet."""
        context = ssl.create_default_context(cafile=self.fleet.file("ca.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_S, context=context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**(JSON if data else {}), **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def shown(self) -> bytes:
        """The certificate that a new connection gets to see (DER)."""
        context = ssl.create_default_context(cafile=self.fleet.file("ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""

    def lines(self) -> list[dict[str, str]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Its certificate is good, and due to be renewed."""
    folder = tmp_path_factory.mktemp("tls")
    clock = Clock(time.time() - 0.8 * SERVER_LIFE.total_seconds())
    fleet, run, port, log = make_fleet(folder / "fleet", clock), Run(folder / "state"), free_port(), folder / "web.log"
    words = ["web", str(run.directory), "--http", f"0.0.0.0:{port}", "--fleet", str(fleet.folder), "--log-json"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "mas_edge", *words], stdout=output, stderr=output)
        there = Served(run, fleet, clock, port, log)

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return there.ask("/healthz")[0] == 200
            except ConnectionRefusedError:
                return False

        try:
            until(is_up)
            yield there
        finally:
            process.terminate()
            code = process.wait(PATIENCE_S)
            fleet.close()
            run.close()
    assert code == 0  # it was asked to end, and has ended in order


def test_who_trusts_the_fleet_reads_with_a_token_and_not_without(served: Served) -> None:
    status, refused = served.ask("/api/run")
    assert (status, refused["status"]) == (401, 401)
    assert "a token is required" in refused["detail"]
    tokens = TokenStore(served.run.directory, create=True)
    reader = tokens.new("grafana", "read")
    tokens.close()
    assert served.ask("/api/run", Authorization="Bearer forged")[0] == 401
    status, run = served.ask("/api/run", Authorization=f"Bearer {reader}")
    assert (status, run["run"]) == (200, served.run.desk.state.run_id)


def test_who_does_not_trust_it_hears_nothing(served: Served) -> None:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", served.port, timeout=PATIENCE_S, context=ssl.create_default_context()
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/healthz")


def test_plain_http_is_told_to_use_https(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    connection.request("POST", "/api/job/orders", b"x" * 30_000, JSON)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (400, MEDIA_TYPE)
    assert "https:// instead of http://" in json.loads(answer.read())["detail"]
    connection.close()


def test_old_tls_and_silence_hold_up_nobody(served: Served) -> None:
    silent = [socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) for _ in range(20)]
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(served.fleet.file("ca.pem"))
    old.set_ciphers("AES256-SHA:@SECLEVEL=0")  # of TLS 1.0: no forward secrecy
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="127.0.0.1")
    assert served.ask("/healthz")[0] == 200
    for each in silent:
        each.close()


def test_an_order_is_in_the_log_with_who_placed_it(served: Served) -> None:
    tokens = TokenStore(served.run.directory, create=True)
    operator = tokens.new("anna", "operate")
    tokens.close()
    authorization = f"Bearer {operator}"
    status, order = served.ask(
        "/api/job/orders", method="POST", body={"verb": "pause"}, Authorization=authorization
    )  # fmt: skip
    assert status == 202
    [line] = [line for line in served.lines() if line["message"].startswith("order")]
    assert line["message"] == f"order {order['id']}: pause (anna, from 127.0.0.1)"
    assert (line["level"], line["job"]) == ("info", served.run.desk.state.run_id)
    assert set(line) == {"time", "level", "message", "job", "round", "device", "logger"}
    assert operator not in served.log.read_text()


def test_a_renewed_certificate_is_in_use_without_a_restart(served: Served) -> None:
    before = served.shown()
    served.clock.now = time.time()
    served.fleet.refresh()
    until(lambda: served.shown() != before)
    assert served.ask("/healthz")[0] == 200
    assert any("is in use from now on" in line["message"] for line in served.lines())


def test_a_key_that_comes_after_its_certificate_and_a_damaged_file_change_nothing(tmp_path: Path) -> None:
    fleets = [make_fleet(tmp_path / name, Clock(time.time())) for name in ("one", "other")]
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    pairs = [fleet.file("orchestrator.pem").read_text().partition("-----BEGIN PRIVATE") for fleet in fleets]
    certificates, keys = [pair[0] for pair in pairs], [pair[1] + pair[2] for pair in pairs]
    chain.write_text(certificates[0])
    key.write_text(keys[0])
    certificate = Certificate(chain, key)
    first = certificate.context
    for broken in (certificates[1], "no certificate", ""):
        chain.write_text(broken)
        certificate.look()
        assert certificate.context is first
    chain.unlink()
    certificate.look()
    assert certificate.context is first
    chain.write_text(certificates[1])
    key.write_text(keys[1])
    certificate.look()
    assert certificate.context is not first
    for fleet in fleets:
        fleet.close()
