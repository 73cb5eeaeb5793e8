"""The way beside the broker: what the endpoint hands out by HTTPS, to whom, and what a malicious one achieves."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime import errands
from device_runtime.edge import web
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.events import Arrived
from device_runtime.edge.web import Site, WebError, pieces
from device_runtime.elsewhere import frames
from device_runtime.runtime import Runtime, Settings
from device_runtime.slots import models_in_use
from device_runtime.trust import anchor
from device_runtime.trust.fetchers import HttpFetcher
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.shelf import Shelf
from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.publisher import Publisher
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.artifact import decode_chunk, digest_of
from mas_edge.protocol.enrolment import ARTIFACTS_PATH, METADATA_PATH
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import Ack, HealthCheck, Manifest, Offer, Plan, SignedPlan, decode_from_device, encode
from mas_edge.protocol.signed import MAX_METADATA_BYTES, targets_of
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data
from tests.fleet.members import Clock, make_fleet
from tests.inbox import Inbox, until
from tests.security.ground import TOPICS, Ground
from tests.security.small_model import small_model

SECRET = b"the update of another device"


class Server:
    """The orchestrator's side: a signing repository, a run's artifacts, and the endpoint of ``ground``'s fleet."""

    def __init__(self, folder: Path, ground: Ground) -> None:
        self.ground = ground
        self.artifacts = ArtifactStore(folder / "run" / "artifacts")
        self.signing = ceremony.create(folder / "signing", folder / "offline", 3, 2).folder
        self.publisher = Publisher(self.signing)
        self.secret = self.artifacts.put(SECRET)
        made = small_model(seed=1, padding=8000)
        self.model, golden = self.artifacts.put(made.model, 1024), self.artifacts.put(made.golden, 1024)
        self.plan = Plan(
            **ORCHESTRATOR, job="j", round_id="deploy-1", kind="deploy", group="group-0", tasks=TASKS, deadline_s=60.0,
            program=self.model, health=HealthCheck(golden=golden, tolerance=1e-3, max_latency_s=1e6),
        )  # fmt: skip
        self.publisher.list_targets(targets_of(self.plan))

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.signing, self.artifacts.directory)

    def sealed(self, device: str) -> SignedPlan:
        """The next plan for a device; where its metadata are is said, and they are never sent."""
        self.plan = replace(self.plan, seq=self.plan.seq + 1)
        bundle = self.artifacts.put(self.publisher.bundle)
        return replace(self.publisher.sign("watch", device, self.plan), metadata=bundle)

    def site(self, device: str = "a", port: int = 0) -> Site:
        """How a device with the file of ``device`` reaches the endpoint, or another server at ``port``."""
        fleet = self.ground.fleet
        file = str(self.ground.folder / f"{device}.pem") if device else ""
        return Site(f"https://127.0.0.1:{port or fleet.settings.enrolment_port}", str(fleet.file("ca.pem")), file)


@pytest.fixture(scope="module")
def ground(mosquitto_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.fixture(scope="module")
def server(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), ground)
    with Endpoint(ground.fleet, "127.0.0.1", shelf=made.shelf):
        yield made


def fetched(site: Site, path: str, begin: int = 0, end: int | None = None) -> bytes:
    return b"".join(pieces(f"{site.address}{path}", site.context(), begin, end))


def taken(site: Site, manifest: Manifest) -> bytes:
    """An artifact as a device gets it."""
    every = tuple(range(-(-manifest.size // manifest.chunk_size)))
    return b"".join(bytes(decode_chunk(frame).data) for frame in frames(site, manifest, every))


# ---------------------------------------------------------------------- to whom, and what


def test_a_member_gets_metadata_and_what_they_list_whole_or_in_part(server: Server) -> None:
    whole = server.artifacts.read(server.model.artifact)
    assert taken(server.site(), server.model) == whole
    assert fetched(server.site(), f"{ARTIFACTS_PATH}{server.model.artifact}", 1000, 1010) == whole[1000:1010]
    assert (
        fetched(server.site(), f"{METADATA_PATH}1.root.json") == (server.signing / "metadata/1.root.json").read_bytes()
    )


NOT_FOR_YOU = {
    "no certificate": ("", "1.root.json", 403),
    "an orchestrator's certificate, which is no device's": ("orchestrator", "1.root.json", 403),
    "a revoked certificate": ("gone", "1.root.json", 403),
    "a file that is no metadata": ("a", "fleet.json", 404),
    "a way out of the folder": ("a", "../online/models.pem", 404),
    "metadata that are not there": ("a", "7.root.json", 404),
}


@pytest.mark.parametrize("case", NOT_FOR_YOU)
def test_who_is_no_member_gets_nothing_and_a_member_only_what_is_for_all(server: Server, case: str) -> None:
    who, name, status = NOT_FOR_YOU[case]
    ground = server.ground
    if who == "gone":
        ground.enrol("gone")
        ground.rules.revoke("gone")
    if who == "orchestrator":
        ground.keep(who, ground.fleet.file("orchestrator.pem").read_bytes())
    with pytest.raises(WebError) as refused:
        fetched(server.site(who), f"{METADATA_PATH}{name}")
    assert refused.value.status == status


def test_an_update_of_another_device_is_not_handed_out(server: Server) -> None:
    with pytest.raises(WebError, match="404"):
        taken(server.site(), server.secret)


def test_what_is_listed_later_is_handed_out_then(server: Server) -> None:
    later = server.artifacts.put(b"a program that is listed later" * 100)
    with pytest.raises(WebError, match="404"):
        taken(server.site(), later)
    server.publisher.list_targets({"models/j/group-0/program.later": (later.artifact, later.size)})
    assert digest_of(taken(server.site(), later)) == later.artifact


# ---------------------------------------------------------------------- a broker that withholds, or is gone


@contextmanager
def device(server: Server, state: Path) -> Iterator[Runtime]:
    """A device that trusts the fleet's root, at work."""
    anchor.install(state, (server.signing / "metadata/1.root.json").read_bytes())
    data = tiny_data(state / "data", train=2, test=2)
    runtime = Runtime(Settings("a", "watch", server.ground.url("a"), state, "onnxruntime", site=server.site()), data)
    stop = threading.Event()
    thread = threading.Thread(target=runtime.run, args=(stop,))
    thread.start()
    try:
        yield runtime
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def heard(inbox: Inbox, kind: type[Ack | Offer]) -> list[Ack | Offer]:
    said = [decode_from_device(arrived.payload, "a") for arrived in inbox.of(Arrived) if arrived.payload]
    return [message for message in said if isinstance(message, kind)]


def test_a_device_takes_a_model_of_which_the_broker_brings_the_plan_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the signing metadata nor the model nor its golden samples come through the broker."""
    monkeypatch.setattr(errands, "STALLED_S", 0.3)
    topics = (TOPICS.birth("a"), TOPICS.response("a"))
    with server.ground.orchestrator(*topics) as (link, inbox), device(server, tmp_path):
        until(lambda: any(arrived.topic == TOPICS.birth("a") for arrived in inbox.of(Arrived)))
        link.publish(TOPICS.command("a"), encode(server.sealed("a")))
        until(lambda: bool(heard(inbox, Offer)))
    [offer, *_] = heard(inbox, Offer)
    assert isinstance(offer, Offer)
    assert (offer.report.healthy, offer.report.health_reason) == (True, "")
    assert models_in_use(tmp_path / "deployed") == {"group-0": server.model.artifact}


def test_a_device_that_has_lost_its_broker_ends_what_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "STALLED_S", 0.3)
    (tmp_path / "ground").mkdir()
    with Ground(tmp_path / "ground") as ground:
        server = Server(tmp_path, ground)
        with device(server, tmp_path / "state") as runtime:
            with ground.orchestrator(TOPICS.birth("a"), TOPICS.response("a")) as (link, inbox):
                until(lambda: any(arrived.topic == TOPICS.birth("a") for arrived in inbox.of(Arrived)))
                assert runtime.verifier is not None
                runtime.verifier.learn(digest_of(server.publisher.bundle), server.publisher.bundle)
                link.publish(TOPICS.command("a"), encode(replace(server.sealed("a"), metadata=None)))
                until(lambda: bool(heard(inbox, Ack)))
            ground.broker.stop()
            active = tmp_path / "state" / "deployed" / "group-0" / "active.onnx"
            assert not active.exists()
            with Endpoint(ground.fleet, "127.0.0.1", shelf=server.shelf):
                until(active.exists)
    assert models_in_use(tmp_path / "state" / "deployed") == {"group-0": server.model.artifact}


# ---------------------------------------------------------------------- a malicious server


Behaviour = Callable[[BaseHTTPRequestHandler], None]


def announce(handler: BaseHTTPRequestHandler, size: int = 0) -> None:
    handler.send_response(206 if "Range" in handler.headers else 200)
    if size:
        handler.send_header("Content-Length", str(size))
    handler.end_headers()


def endless(handler: BaseHTTPRequestHandler) -> None:
    announce(handler)
    while True:
        handler.wfile.write(b" " * 65536)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    announce(handler, 10_000)
    for _ in range(10_000):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def another_file(handler: BaseHTTPRequestHandler) -> None:
    announce(handler, MAX_METADATA_BYTES)
    handler.wfile.write(bytes(MAX_METADATA_BYTES))


def breaking_off(handler: BaseHTTPRequestHandler) -> None:
    announce(handler, 10_000)
    handler.wfile.write(b" " * 10)


def no_such_protocol(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")


def the_whole_from_the_beginning(handler: BaseHTTPRequestHandler) -> None:
    """Whatever part was asked for."""
    handler.send_response(200)
    handler.end_headers()


@contextmanager
def evil(behave: Behaviour, certificate: Path) -> Iterator[int]:
    """A server that has stolen a certificate, and its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behave(self)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever was attacked has hung up."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Quiet(("127.0.0.1", free_port()), Handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


def of_another_fleet(server: Server, folder: Path) -> Path:
    other: Fleet = make_fleet(folder / "other", Clock(time.time()))
    return other.file("orchestrator.pem")


def of_a_device(server: Server, _: Path) -> Path:
    return server.ground.folder / "b.pem"


def true_one(server: Server, _: Path) -> Path:
    return server.ground.fleet.file("orchestrator.pem")


# What it does, with whose certificate, and what the device says of it as metadata, and as an artifact.
ATTACKS: dict[str, tuple[Behaviour, Callable[[Server, Path], Path], str, str]] = {
    "another fleet's certificate": (endless, of_another_fleet, "not trusted", "not trusted"),
    "a device's certificate": (endless, of_a_device, "not trusted", "not trusted"),
    "endless data": (endless, true_one, "maximum allowed length", "corrupt"),
    "a trickle": (trickling, true_one, "takes longer", "takes longer"),
    "other bytes": (another_file, true_one, "maximum allowed length", "corrupt"),
    "always breaking off": (breaking_off, true_one, "ended early", "ended early"),
    "another protocol": (no_such_protocol, true_one, "web server", "web server"),
    "more than was asked for": (the_whole_from_the_beginning, true_one, "refused", "answers 200"),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_a_malicious_server_gets_nothing_taken_and_holds_nobody_up(
    server: Server, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE_S", 1.0)
    behave, whose, of_metadata, of_artifact = ATTACKS[case]
    anchor.install(tmp_path, (server.signing / "metadata/1.root.json").read_bytes())
    verifier = anchor.open_verifier(tmp_path, "watch", "a")
    assert verifier is not None
    with evil(behave, whose(server, tmp_path)) as port:
        site = server.site(port=port)
        with pytest.raises(EdgeError, match=of_metadata):
            verifier.learn_from(f"{site.address}{METADATA_PATH}", HttpFetcher(site.context()))
        with pytest.raises(EdgeError, match=of_artifact):
            taken(site, server.model)
    true = server.site()
    verifier.learn_from(f"{true.address}{METADATA_PATH}", HttpFetcher(true.context()))
    assert verifier.open(server.sealed("a")) is not None


def test_old_metadata_from_a_server_with_the_true_certificate_are_refused(server: Server, tmp_path: Path) -> None:
    old = {path.name: path.read_bytes() for path in (server.signing / "metadata").iterdir()}
    server.publisher.list_targets({"models/j/group-0/program.newer": ("0" * 64, 7)})
    anchor.install(tmp_path, (server.signing / "metadata/1.root.json").read_bytes())
    verifier = anchor.open_verifier(tmp_path, "watch", "a")
    assert verifier is not None
    verifier.learn(digest_of(server.publisher.bundle), server.publisher.bundle)

    def as_it_was(handler: BaseHTTPRequestHandler) -> None:
        data = old.get(handler.path.rpartition("/")[2])
        if data is None:
            handler.send_error(404)
            return
        announce(handler, len(data))
        handler.wfile.write(data)

    with evil(as_it_was, true_one(server, tmp_path)) as port:
        site = server.site(port=port)
        with pytest.raises(EdgeError, match="version"):
            verifier.learn_from(f"{site.address}{METADATA_PATH}", HttpFetcher(site.context()))
    assert verifier.open(server.sealed("a")) is not None


def test_a_download_goes_on_where_its_connection_ended(server: Server, tmp_path: Path) -> None:
    whole, begins = server.artifacts.read(server.model.artifact), list[int]()

    def half_of_the_rest(handler: BaseHTTPRequestHandler) -> None:
        begin, last = (int(number) for number in handler.headers["Range"].removeprefix("bytes=").split("-"))
        begins.append(begin)
        rest = whole[begin : last + 1]
        announce(handler, len(rest))
        handler.wfile.write(rest if len(begins) > 3 else rest[: len(rest) // 2])

    with evil(half_of_the_rest, true_one(server, tmp_path)) as port:
        assert taken(server.site(port=port), server.model) == whole
    assert len(begins) == 4
    assert begins == sorted(set(begins))
