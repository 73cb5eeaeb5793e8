"""Metadata from web servers: sound ones, and those that break off, are slow to begin, or send something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mas_edge.protocol.errors import EdgeError
from tests.fleet.signing.world import DAY, World


class _Server(ThreadingHTTPServer):
    """Serves ``folder``. The first ``cut`` answers to each request end after half of what they announce."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.cut = 0
        self.status = 0
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/metadata"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        name, asked = self.path.rpartition("/")[2], self.headers.get("Range", "")
        self.server.asked.append((name, asked))
        path = self.server.folder / name
        if self.server.status or not path.is_file():
            self.send_error(self.server.status or 404)
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        data = path.read_bytes()[begin:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        times = sum(each == name for each, _ in self.server.asked)
        self.wfile.write(data[: len(data) // 2] if times <= self.server.cut else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish()
    return made


@pytest.fixture
def server(world: World) -> Iterator[_Server]:
    with _Server(world.repository.folder / "metadata") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_device_learns_from_a_web_server_what_the_broker_withholds(world: World, server: _Server) -> None:
    world.device.learn_from(server.url)
    assert world.device.open(world.seal()) is not None
    world.rotate()
    world.publish()
    world.device.learn_from(server.url)
    assert world.device.open(world.seal()) is not None
    world.wake()
    assert world.device.open(world.seal()) is not None


def test_a_connection_that_breaks_off_is_gone_on_with_where_it_ended(world: World, server: _Server) -> None:
    server.cut = 2
    world.device.learn_from(server.url)
    begins = [int(asked[6:-1]) if asked else 0 for name, asked in server.asked if name == "timestamp.json"]
    assert len(begins) == 3
    assert begins == sorted(set(begins))
    assert world.device.open(world.seal()) is not None


BROKEN = {
    "one that always breaks off": ("cut", 99, "ended early"),
    "one that is out of order": ("status", 500, "500"),
    "one that has nothing": ("folder", Path("/nowhere"), "404"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_server_is_said_and_changes_nothing(world: World, server: _Server, case: str) -> None:
    world.tell()
    name, value, words = BROKEN[case]
    setattr(server, name, value)
    with pytest.raises(EdgeError, match=words):
        world.device.learn_from(server.url)
    assert world.device.open(world.seal()) is not None


@pytest.mark.parametrize("url", ["ftp://localhost/", "http:///x", "file:///etc", "http://127.0.0.1:1/metadata"])
def test_an_address_that_leads_nowhere_is_said(world: World, url: str) -> None:
    with pytest.raises(EdgeError, match="refused"):
        world.device.learn_from(url)


def test_an_attackers_server_is_not_believed(world: World, server: _Server) -> None:
    server.folder = world.another().folder / "metadata"
    with pytest.raises(EdgeError, match="signed by"):
        world.device.learn_from(server.url)


def test_a_server_that_is_behind_does_not_turn_a_device_back(world: World, server: _Server) -> None:
    frozen = world.directory / "frozen"
    frozen.mkdir()
    for path in server.folder.iterdir():
        (frozen / path.name).write_bytes(path.read_bytes())
    world.now += DAY
    world.tell()
    server.folder = frozen
    with pytest.raises(EdgeError, match="version"):
        world.device.learn_from(server.url)
    assert world.device.open(world.seal()) is not None


def test_the_thread_that_asks_goes_on_after_an_error_and_ends_when_told(world: World, server: _Server) -> None:
    stop = threading.Event()
    asking = threading.Thread(target=world.device.keep_fresh, args=(server.url, stop))
    asking.start()
    for _ in range(500):
        if any(name.endswith("models.json") for name, _ in server.asked):
            break
        stop.wait(0.02)
    stop.set()
    asking.join(30)
    assert not asking.is_alive()
    assert world.device.open(world.seal()) is not None
