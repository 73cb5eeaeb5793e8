"""The HTTPS endpoint where devices join and renew: the only port, beside the broker's, that a fleet opens.

It is reachable before anybody is known, so everything is bounded: connections at a time, seconds for each, bytes of a
request. A private key never comes here, and neither tokens nor requests are logged. Members that show their certificate
get here what the broker does not bring them: signing metadata and listed artifacts (``shelf``).
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509

from mas_edge.fleet.enrolment import Enrolment, RefusedError, WaitsError
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.shelf import Shelf
from mas_edge.protocol.enrolment import (
    CA_PATH,
    JOIN_PATH,
    MAX_BODY_BYTES,
    RENEW_PATH,
    Issued,
    JoinRequest,
    Refusal,
    RenewRequest,
    decode,
)
from mas_edge.protocol.errors import MessageError, ServerError

log = logging.getLogger(__name__)

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - it is made for strangers
MAX_CONNECTIONS = 32  # each is a thread; joining takes milliseconds, and whoever finds no place tries again
_DROPPED_BYTES = 4 * MAX_BODY_BYTES  # of a request that is too large; whoever sends more is cut off
LINGER_S = 2.0  # after a refusal: enough for what was on its way
PATIENCE_S = 10.0  # for the whole handshake, and for each read: a board on a bad link needs seconds
# Of the connections, at most so many hand out files: the rest is left for those who join and renew.
MAX_DOWNLOADS = 16
# Then a download gives up its place. Who has come less far by then goes on with a Range request, behind the others.
DOWNLOAD_S = 60.0
_BLOCK_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


class Endpoint:
    """Serves ``fleet`` on ``host`` from ``start`` to ``stop``; ``root``: see ``Enrolment``; ``shelf``: its files.

    Raises:
        ServerError: from ``start``: the port cannot be listened on.
    """

    def __init__(
        self, fleet: Fleet, host: str, root: Callable[[], bytes] = lambda: b"", shelf: Shelf | None = None
    ) -> None:
        self._fleet = fleet
        self._host = host
        self._root = root
        self._shelf = shelf
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and return."""
        port = self._fleet.settings.enrolment_port
        try:
            self._server = _Server(self._host, port, self._fleet, self._root, self._shelf)
        except OSError as error:
            message = (
                f"cannot listen on {self._host}:{port} for devices that join: {error.strerror}; stop what listens "
                "there, or choose another enrolment_port in fleet.json"
            )
            raise ServerError(message) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="enrolment", daemon=True)
        self._thread.start()
        log.info("devices join at %s", self._fleet.enrolment_address)

    def renew_certificate(self) -> None:
        """Show the present orchestrator.pem to who connects from now on."""
        if self._server is not None:
            self._server.load_certificate()

    def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a site's devices start at once; beyond the system's default of 5 they wait a second
    block_on_close = False  # a device that hangs must not hold up the end; its thread ends with its patience

    def __init__(self, host: str, port: int, fleet: Fleet, root: Callable[[], bytes], shelf: Shelf | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.fleet = fleet
        self.rules = Enrolment(fleet, root)
        self.shelf = shelf
        self.downloads = threading.BoundedSemaphore(MAX_DOWNLOADS)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.verify_mode = ssl.CERT_OPTIONAL  # who joins has none yet; who renews must show one
        self._context.load_verify_locations(fleet.file("ca.pem"))
        self.load_certificate()
        super().__init__((host, port), _Handler)

    def load_certificate(self) -> None:
        self._context.load_cert_chain(self.fleet.file("orchestrator.pem"))

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The handshake is made here, on the connection's own thread: nobody can hold up the others with it."""
        secured = None
        try:
            request.settimeout(PATIENCE_S)
            secured = self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            _shake_hands(secured)
            self.finish_request(secured, client_address)
        except (OSError, ValueError) as error:  # the other side's doing
            log.info("enrolment: a connection from %s failed: %s", client_address[0], error)
        except Exception:  # ours: the others are served all the same
            log.exception("enrolment: a connection from %s failed", client_address[0])
        finally:
            self.shutdown_request(secured or request)
            self._places.release()


def _shake_hands(sock: ssl.SSLSocket) -> None:
    """Let in or refuse; who is refused gets to read why before the connection ends.

    In TLS 1.3 the other side sends its request before it hears of the refusal. Closing with that unread would reset
    the connection, and the refusal would be lost.
    """
    try:
        sock.do_handshake()
    except ssl.SSLError:
        socket.socket.shutdown(sock, socket.SHUT_WR)  # not the TLS layer's: that one is at its end
        sock.settimeout(LINGER_S)
        left = MAX_BODY_BYTES
        while left > 0 and (got := len(socket.socket.recv(sock, left))):
            left -= got
        raise


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    protocol_version = "HTTP/1.0"
    server: _Server
    connection: ssl.SSLSocket
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        if self.path == CA_PATH:
            self._send(200, self.server.fleet.file("ca.pem").read_bytes(), "application/x-pem-file")
        elif (shelf := self.server.shelf) is not None:
            self._answer(lambda: self._hand_out(shelf))
        else:
            self._refuse(404, "there is nothing here")

    def do_POST(self) -> None:
        answer = {JOIN_PATH: self._join, RENEW_PATH: self._renew}.get(self.path)
        if answer is None:
            self._refuse(404, "there is nothing here")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.rfile.read(min(_DROPPED_BYTES, int(length) if length.isdecimal() else 0))  # else it reads no answer
            self._refuse(413, f"expected a request of at most {MAX_BODY_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        self._answer(lambda: self._give(answer(body)))

    def _answer(self, do: Callable[[], None]) -> None:
        """Do what was asked for, or say why not."""
        try:
            do()
        except WaitsError as error:
            self._refuse(202, str(error))
        except RefusedError as error:
            log.warning("enrolment: refused %s: %s", self.client_address[0], error)
            self._refuse(403, str(error))
        except MessageError as error:
            self._refuse(400, str(error))
        except ServerError as error:
            log.error("enrolment: %s", error)
            self._refuse(500, "the server cannot serve this now; its log says why")

    def _give(self, issued: Issued) -> None:
        log.info("enrolment: a certificate for %s", issued.name)
        self._send(200, msgspec.json.encode(issued), "application/json")

    def _join(self, body: bytes) -> Issued:
        return self.server.rules.join(decode(body, JoinRequest))

    def _renew(self, body: bytes) -> Issued:
        return self.server.rules.renew(self._shown(), decode(body, RenewRequest).csr)

    def _shown(self) -> x509.Certificate:
        """The certificate of the other side. Raises RefusedError if it shows none."""
        shown = self.connection.getpeercert(binary_form=True)
        if shown is None:
            message = "this needs the device's present certificate; join with a token"
            raise RefusedError(message)
        return x509.load_der_x509_certificate(shown)

    def _hand_out(self, shelf: Shelf) -> None:
        """A file, or the part of it that is asked for, to a member."""
        self.server.rules.require_member(self._shown())
        path = shelf.find(self.path)
        if path is None:
            self._refuse(404, "there is nothing here")
        elif not self.server.downloads.acquire(blocking=False):
            self._refuse(503, "too many download at this moment; ask again later")
        else:
            try:
                self._send_file(path)
            finally:
                self.server.downloads.release()

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            size = path.stat().st_size
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            begin = int(asked[1]) if asked else 0
            end = min(size, int(asked[2]) + 1) if asked and asked[2] else size
            if asked and begin >= end:
                self._refuse(416, f"there are {size} bytes")
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - begin))
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.end_headers()
            file.seek(begin)
            until = time.monotonic() + DOWNLOAD_S
            while begin < end and time.monotonic() < until and (block := file.read(min(_BLOCK_BYTES, end - begin))):
                self.wfile.write(block)
                begin += len(block)

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, msgspec.json.encode(Refusal(reason)), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Who is not known yet needs no version numbers."""
        return "mas-edge"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
        """What matters is logged where it is decided."""
