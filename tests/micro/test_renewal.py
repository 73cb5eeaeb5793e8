"""A board's certificate: what it believes of one, how it renews it at a real endpoint, and where the power may go."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509 as certificates
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import keys
from device_runtime.cli import main
from device_runtime.micro import renewal as _renewal
from device_runtime.micro import x509 as _x509
from device_runtime.micro.wire import Refused
from mas_edge.fleet.authority import Authority, key_of_request
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.enrolment import write_token
from tests.e2e.fleet import until
from tests.fleet.members import DAY, Clock, make_fleet
from tests.micro.board import Board, configure, needs_micropython
from tests.micro.desk import NAME

renewal: Any = _renewal  # written for MicroPython, which has no types
x509: Any = _x509
KEY, OTHER_KEY = keys.new_key(), keys.new_key()


class Shop:
    """An authority, and what it may answer."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.authority, self.other = (Authority.new("watch", self.now) for _ in range(2))
        self.der = self.made()

    def made(
        self, *, key: bytes = KEY, name: str = NAME, days: float = 30, by: Authority | None = None, ago: float = 0
    ) -> bytes:
        """The DER of a certificate that was issued ``ago`` days ago."""
        public, life = key_of_request(keys.signing_request(key)), timedelta(days=days)
        issued = (by or self.authority).issue(public, name, "client", self.now - timedelta(days=ago), life)
        return issued.public_bytes(Encoding.DER)

    @property
    def root(self) -> Any:
        """The authority as a board reads it."""
        return x509.Certificate(self.authority.certificate.public_bytes(Encoding.DER))


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def test_a_board_reads_of_a_certificate_what_cryptography_reads(shop: Shop) -> None:
    der = shop.made()
    told, read = certificates.load_der_x509_certificate(der), x509.Certificate(der)
    public = told.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    numbers = public.public_numbers()
    assert read.key == (numbers.x, numbers.y)
    assert read.body == told.tbs_certificate_bytes
    assert read.ends - read.begins == (told.not_valid_after_utc - told.not_valid_before_utc).total_seconds()
    assert read.ends == x509.seconds(told.not_valid_after_utc.timetuple())
    assert read.is_signed_by(shop.root)
    assert not read.is_signed_by(x509.Certificate(shop.other.certificate.public_bytes(Encoding.DER)))


@given(st.datetimes(), st.timedeltas(timedelta(0), timedelta(days=4000)))
def test_dates_are_as_far_apart_as_they_are(date: Any, later: timedelta) -> None:
    date = date.replace(microsecond=0)
    later -= timedelta(microseconds=later.microseconds)
    try:
        then = date + later
    except OverflowError:
        return
    assert x509.seconds(then.timetuple()) - x509.seconds(date.timetuple()) == later.total_seconds()


@settings(max_examples=20)  # each is nine verifications in Python
@given(st.binary(min_size=1, max_size=40), st.integers(0, 2**256 - 1))
def test_a_signature_holds_for_what_was_signed_and_for_nothing_else(data: bytes, other: int) -> None:
    key = ec.derive_private_key(int.from_bytes(b"a key of the tests") + 1, ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    numbers = key.public_key().public_numbers()
    point, digest = (numbers.x, numbers.y), hashes.Hash(hashes.SHA256())
    digest.update(data)
    signed = int.from_bytes(digest.finalize())
    assert x509.verified(signed, (r, s), point)
    for forged in ((other, (r, s), point), (signed, (r, other), point), (signed, (other, s), point)):
        assert x509.verified(*forged) is (forged == (signed, (r, s), point))
    assert not x509.verified(signed, (r, s), (numbers.x, other))  # hardly ever on the curve
    assert not x509.verified(signed, (0, s), point)


@given(st.integers(0, 4000), st.integers(1, 255), st.booleans())
def test_a_damaged_certificate_is_none_or_not_signed(shop: Shop, place: int, change: int, cut: bool) -> None:
    der = bytearray(shop.der)
    place %= len(der)
    der[place] ^= change
    with contextlib.suppress(ValueError, IndexError):
        assert not x509.Certificate(bytes(der[:place] if cut else der)).is_signed_by(shop.root)


WRONG: dict[str, tuple[Callable[[Shop], bytes], str]] = {
    "another key": (lambda shop: shop.made(key=OTHER_KEY), "not of this board's key"),
    "another name": (lambda shop: shop.made(name="pi-1"), "not of this board's name"),
    "another authority": (lambda shop: shop.made(by=shop.other), "not signed by the fleet's authority"),
    "expired": (lambda shop: shop.made(days=20, ago=25), "not good now"),
    "no longer": (lambda shop: shop.made(days=5), "not good for longer"),
    "from the future": (lambda shop: shop.made(ago=-9), "not good now: check the clock"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_comes_takes_no_place_unless_it_is_better(shop: Shop, case: str) -> None:
    make, text = WRONG[case]
    present = x509.Certificate(shop.made(ago=20))
    with pytest.raises(Refused, match=text):
        renewal.checked(make(shop), present, shop.root)
    good = shop.made()
    assert renewal.checked(good, present, shop.root) == good


ANSWERS = {
    b"": "no enrolment endpoint",
    b"HTTP/1.0 200 OK\r\n\r\nhello": "no enrolment endpoint",
    b"HTTP/1.0 403 No\r\n\r\n" + json.dumps({"reason": "it is revoked"}).encode(): "the fleet refuses: it is revoked",
    b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 20000: "larger than a board takes",
}


@pytest.mark.parametrize("said", ANSWERS, ids=["nothing", "a page", "a no", "too much"])
def test_an_answer_that_is_none_is_told_in_words(said: bytes) -> None:
    pieces = [said[at : at + 1024] for at in range(0, len(said), 1024)]
    stream = SimpleNamespace(read=lambda _: pieces.pop(0) if pieces else b"")
    with pytest.raises(Refused, match=ANSWERS[said]):
        renewal.answered(stream)


class PowerCut(BaseException):
    """The power went."""


def files(shop: Shop, folder: Path) -> dict[str, Any]:
    """A board's configuration with its files."""
    given = certificates.load_der_x509_certificate(shop.made(ago=25)).public_bytes(Encoding.PEM)
    (folder / "device.pem").write_bytes(given + KEY)
    return {"certificate": str(folder / "device.pem")}


def test_wherever_the_power_goes_a_whole_certificate_is_there(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = [shop.made(ago=ago) for ago in (20, 15, 10)]  # each is good for longer than the one before
    for cut in range(8):
        folder = tmp_path / str(cut)
        folder.mkdir()
        config = files(shop, folder)
        before = renewal.secure.newest(config)
        for made in chain:
            left = [cut]

            def step(real: Callable[..., None], *arguments: Any, left: list[int] = left) -> None:
                if left[0] == 0:
                    raise PowerCut
                left[0] -= 1
                real(*arguments)

            with monkeypatch.context() as power:
                for name in ("remove", "sync"):
                    real = getattr(renewal, name)
                    power.setattr(renewal, name, lambda *a, real=real: step(real, *a))
                renaming = SimpleNamespace(rename=lambda *a: step(os.rename, *a))
                power.setattr(renewal, "os", renaming)
                with contextlib.suppress(PowerCut):
                    renewal.keep(config, made)
            assert renewal.secure.newest(config) in (before, made)
            (folder / "device.pem.new").write_bytes(b"half of")
            assert renewal.secure.newest(config) in (before, made)
            renewal.keep(config, made)
            before = renewal.secure.newest(config)
            assert before == made
        for slot in (".a", ".b"):
            path = folder / f"device.pem{slot}"
            path.write_bytes(path.read_bytes()[:-40])  # both rotten: the owner's own is there
        assert x509.Certificate(renewal.secure.newest(config)).ends < x509.Certificate(before).ends


def test_what_an_earlier_key_left_behind_does_not_count(shop: Shop, tmp_path: Path) -> None:
    config = files(shop, tmp_path)
    renewal.keep(config, shop.made(key=OTHER_KEY))
    assert x509.Certificate(renewal.secure.newest(config)).key == x509.Certificate(shop.made()).key


# ---------------------------------------------------------------------- on a board, at a real endpoint


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One whose certificates were made 17 hours ago, and are good for a day."""
    clock = Clock(time.time() - 0.7 * DAY)
    made = make_fleet(tmp_path_factory.mktemp("short") / "fleet", clock, days=1)
    with Endpoint(made, "127.0.0.1"):
        yield made


def board_of(fleet: Fleet, folder: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    """A board with what ``join --board`` says."""
    token = write_token(Enrolment(fleet).invite(NAME, again=True))
    assert main(["join", token, "--state", str(folder / "joined"), "--board"]) == 0
    said = capsys.readouterr().out
    assert "copy ca.pem, device.pem, device.csr of " in said
    told = json.loads(said[said.index("{") :].replace("/flash", str(folder / "joined" / "identity")))
    url = f"mqtt://{told.pop('broker')}:{told.pop('port')}"
    tasks = {"a": {"kind": "class", "classes": 3}}
    name, own = told.pop("name"), told.pop("fleet")
    return Board(configure(folder, url, name, own, None, tasks=tasks, input_shape=[6, 4], **told))


@pytest.mark.e2e
@needs_micropython
def test_a_board_renews_its_certificate_and_shows_the_new_one(
    fleet: Fleet, mosquitto_is_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = board_of(fleet, tmp_path, capsys)
    clock = fleet.clock
    assert isinstance(clock, Clock)
    clock.now = time.time()
    own = tmp_path / "joined" / "identity" / "device.pem"
    given = own.read_bytes()
    with ManagedBroker(tmp_path / "broker", port=fleet.settings.port, fleet=fleet), board:
        until(lambda: "the certificate is renewed; it is good for 2" in board.console, "the renewal", 60)
        assert board.on
    kept = renewal.secure.stored(f"{own}.a")
    assert own.read_bytes() == given
    assert certificates.load_der_x509_certificate(kept).not_valid_after_utc.timestamp() > time.time() + 0.9 * DAY
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(fleet.file("broker.pem"))
    served.load_verify_locations(fleet.file("ca.pem"))
    served.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", fleet.settings.port)) as listener, ThreadPoolExecutor(1) as pool:
        shown = pool.submit(_shown, listener, served)
        with board:
            assert shown.result(60) == kept


def _shown(listener: socket.socket, context: ssl.SSLContext) -> bytes | None:
    connection, _ = listener.accept()
    with context.wrap_socket(connection, server_side=True) as secure:
        return secure.getpeercert(binary_form=True)


@pytest.mark.e2e
@needs_micropython
def test_a_board_that_was_shut_out_says_so_and_goes_on_trying(
    fleet: Fleet, mosquitto_is_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = fleet.clock
    assert isinstance(clock, Clock)
    clock.now = time.time() - 0.7 * DAY
    board = board_of(fleet, tmp_path, capsys)
    clock.now = time.time()
    Enrolment(fleet).revoke(NAME)
    with board:  # and no broker
        until(lambda: "not renewed: the fleet refuses: this certificate is revoked" in board.console, "the no", 60)
        assert board.on
