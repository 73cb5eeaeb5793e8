"""What HTTP promises of every address: heads, methods, marks of what is held; and connections that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.web import connection as module
from mas_edge.web.app import make_app
from mas_edge.web.connection import Connection
from mas_edge.web.problems import MEDIA_TYPE
from mas_edge.web.routes import LEAST_CODED
from mas_edge.web.server import Server
from tests.inbox import PATIENCE_S, until
from tests.web.conftest import Client, Run

JSON = {"content-type": "application/json"}
READ = ("/", "/openapi.json", "/reference", "/metrics", "/healthz", "/api/run", "/api/rounds", "/api/orders")


def test_every_operation_is_a_get_or_a_post(still: tuple[Run, Client]) -> None:
    _, client = still
    for path, item in client.json("/openapi.json")["paths"].items():
        assert set(item) <= {"get", "post"}, f"{path}: demands.py knows no other methods"


@pytest.mark.parametrize("path", [*READ, "/api/nothing", "/api/devices/pi-99"])
def test_a_head_is_the_get_without_its_body(still: tuple[Run, Client], path: str) -> None:
    _, client = still
    got, head = client.get(path), client.ask("HEAD", path)
    assert head.content == b""
    assert head.status_code == got.status_code
    for name in ("etag", "content-type", "content-length", "cache-control"):
        assert head.headers.get(name) == got.headers.get(name)


def test_the_head_of_the_live_stream_ends(still: tuple[Run, Client]) -> None:
    _, client = still
    head = client.ask("HEAD", "/api/live")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/run", "GET, HEAD, OPTIONS"),
        ("/api/rollouts", "GET, HEAD, OPTIONS, POST"),
        ("/api/job/orders", "OPTIONS, POST"),
        ("/api/devices/pi-1", "GET, HEAD, OPTIONS"),
    ],
)
def test_the_methods_of_an_address_are_told(still: tuple[Run, Client], path: str, methods: str) -> None:
    _, client = still
    asked = client.ask("OPTIONS", path)
    assert (asked.status_code, asked.headers["allow"]) == (204, methods)
    refused = client.ask("DELETE", path)
    assert (refused.status_code, refused.headers["content-type"]) == (405, MEDIA_TYPE)
    assert set(refused.headers["allow"].split(", ")) == set(methods.split(", "))
    assert "does not take DELETE" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/metrics", "/api/run", "/api/rounds", "/api/devices/pi-1"])
def test_who_holds_an_answer_is_told_so(still: tuple[Run, Client], path: str) -> None:
    _, client = still
    got = client.get(path)
    mark = got.headers["etag"]
    for held in (mark, f"W/{mark}", f'"other", {mark}', "*"):
        again = client.get(path, headers={"if-none-match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", mark)
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_who_holds_a_round_is_told_so(run: Run, client: Client) -> None:
    run.play("merged-0000")
    mark = client.get("/api/rounds/merged-0000").headers["etag"]
    assert client.get("/api/rounds/merged-0000", headers={"if-none-match": mark}).status_code == 304


class Far(Client):
    """A client on another machine."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        transport = httpx.ASGITransport(app, client=("192.0.2.9", 50000))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost:8880")


def test_long_answers_are_coded_for_other_machines_that_take_it(still: tuple[Run, Client]) -> None:
    run, client = still
    far = Far(make_app(run.directory))
    plain = far.get("/metrics", headers={"accept-encoding": "identity"})
    coded = far.get("/metrics", headers={"accept-encoding": "br, gzip;q=0.8"})
    assert (plain.headers.get("content-encoding"), coded.headers["content-encoding"]) == (None, "gzip")
    assert coded.content == plain.content
    assert int(coded.headers["content-length"]) < len(plain.content) / 2
    assert plain.headers["etag"] != coded.headers["etag"]
    assert plain.headers["vary"] == coded.headers["vary"] == "accept-encoding"
    held = {"accept-encoding": "gzip", "if-none-match": coded.headers["etag"]}
    assert far.get("/metrics", headers=held).status_code == 304
    for accepted in ("gzip;q=0", "deflate", ""):
        assert "content-encoding" not in far.get("/metrics", headers={"accept-encoding": accepted}).headers
    short = far.get("/api/orders", headers={"accept-encoding": "gzip"})
    assert len(short.content) < LEAST_CODED
    assert "content-encoding" not in short.headers
    assert "content-encoding" not in client.get("/metrics", headers={"accept-encoding": "gzip"}).headers
    far.close()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limt=5", "there is no parameter 'limt' here; expected after, limit"),
        ("limit=5&limit=6", "the parameter 'limit' is given 2 times"),
        ("limit=abc", "limit: Expected int, got str; see /reference"),
        ("limit=0", "limit: Expected int >= 1"),
        ("after=99999999999999999999999", "after: Expected int <= "),
        ("request=1", "there is no parameter 'request'"),
    ],
)
def test_a_parameter_that_cannot_be_is_not_passed_over(still: tuple[Run, Client], query: str, says: str) -> None:
    _, client = still
    found = client.get(f"/api/rounds?{query}")
    assert (found.status_code, found.headers["content-type"]) == (400, MEDIA_TYPE)
    assert says in found.json()["detail"]


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/api/job/orders", b'{"verb": "explode"}', "verb: Invalid enum value 'explode'; expected {\"verb\": abort |"),
        ("/api/job/orders", b"", "there is no body; expected {"),
        ("/api/job/orders", b"{", "the body is no JSON: Input data was truncated; expected {"),
        ("/api/job/orders", b"{}", "body: Object missing required field verb; expected {"),
        ("/api/rollouts", b'{"shares": [0.5, NaN]}', "the body is no JSON"),
        ("/api/rollouts", b'{"shares": [1.0], "seed": 99999999999999999999}', "seed: Expected int <= "),
        ("/api/rollouts", b'{"shares": [1.0], "typo": 1}', 'unknown field typo; expected {"shares": list of number, "'),
        ("/api/fleet/pi-1/revoke", b"[]", "body: Expected object, got array; expected {}"),
    ],
)
def test_a_body_that_cannot_be_is_told_what_was_expected(
    still: tuple[Run, Client], path: str, content: bytes, says: str
) -> None:
    _, client = still
    found = client.ask("POST", path, content=content, headers=JSON)
    assert found.status_code == 400
    assert says in found.json()["detail"]
    assert found.json()["detail"].endswith("; see /reference")


def test_a_coded_body_is_refused(still: tuple[Run, Client]) -> None:
    _, client = still
    body = gzip.compress(b'{"verb": "pause"}')
    found = client.ask("POST", "/api/job/orders", content=body, headers={**JSON, "content-encoding": "gzip"})
    assert (found.status_code, found.headers["content-type"]) == (415, MEDIA_TYPE)


def test_what_was_asked_for_stands_in_a_problem_as_an_address(still: tuple[Run, Client]) -> None:
    _, client = still
    assert client.get("/api/devices/a%0Ab%20c").json()["instance"] == "/api/devices/a%0Ab%20c"


# ---------------------------------------------------------------------- connections


@pytest.fixture
def port(still: tuple[Run, Client]) -> Iterator[int]:
    """Where the run is served with sockets, on a thread of this process."""
    run, _ = still
    chosen = free_port()
    config = uvicorn.Config(make_app(run.directory), http=Connection, log_config=None, ws="none")
    server = Server(config, None)
    listener = socket.create_server(("127.0.0.1", chosen))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    until(lambda: server.started)
    yield chosen
    server.should_exit = True
    thread.join(PATIENCE_S)


def said(connection: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    connection.settimeout(PATIENCE_S)
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("bytes_sent", [b"\x00\x01 no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_a_problem_too(port: int, bytes_sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(bytes_sent)
        head, _, body = said(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert MEDIA_TYPE.encode() in head
    assert "expected HTTP/1.1 with a Host" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /api/run HTTP/1.1\r\nhost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /",
        b"POST /api/job/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    ],
)
def test_who_does_not_go_on_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(begun)
        assert b"Traceback" not in said(client)  # it ends


def test_a_live_stream_is_not_taken_for_silence(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        client.settimeout(2.0)  # two looks of the server
        with pytest.raises(TimeoutError):
            while client.recv(65536):
                pass


def test_one_connection_too_many_is_told_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 0)
    found = httpx.get(f"http://127.0.0.1:{port}/healthz")
    assert (found.status_code, found.headers["content-type"]) == (503, MEDIA_TYPE)
    assert found.headers["retry-after"]
    monkeypatch.undo()
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
