"""How a connection to a broker or an enrolment endpoint is encrypted, and who the two sides are to each other."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from device_runtime.edge.address import Address
from mas_edge.protocol.errors import BrokerError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails (the MQTT client library would forget it open), and keeps its last error.

    With TLS 1.3 a server refuses a certificate after the client believes the handshake to be over: as an error of the
    first read, which the client library takes for a lost connection.
    """

    problem: ssl.SSLError | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        with self._remembered():
            return super().recv(buflen, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        with self._remembered():
            return super().recv_into(buffer, nbytes, flags)

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self.problem = error
            raise


def problem_of(sock: object) -> ssl.SSLError | None:
    """Why TLS ended this connection, if it did."""
    return sock.problem if isinstance(sock, _Socket) else None


def client_context(ca: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """A context that checks the server's certificate and name; TLS 1.2 or later.

    Args:
        ca: file of the authorities to believe (PEM); "" = the system's.
        certificate: file of our own certificate (PEM), for a server that asks; "" = none.
        key: file of its private key; "" = in the same file.

    Raises:
        BrokerError: one of the files cannot be used.
    """
    if ca:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load(lambda: context.load_verify_locations(ca), ca, "certificates of authorities")
    else:
        context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    show(context, certificate, key)
    return context


def context_for(address: Address) -> ssl.SSLContext:
    """The context that a broker's URL asks for. Raises BrokerError as ``client_context`` does."""
    return client_context(address.ca, address.cert, address.key)


def show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Identify ourselves with what is in these files now, in connections that begin from now on.

    Raises:
        BrokerError: they cannot be used.
    """
    if certificate:
        _load(lambda: context.load_cert_chain(certificate, key or None), certificate, "a certificate and its key")


def fleet_context(ca: Path, certificate: Path | None = None) -> ssl.SSLContext:
    """The same for files of a fleet."""
    return client_context(str(ca), str(certificate or ""))


def _load(load: Callable[[], None], path: str, what: str) -> None:
    try:
        load()
    except FileNotFoundError:
        message = f"no such file: {path} (or its key); expected {what} in PEM"
        raise BrokerError(message) from None
    except PermissionError:
        message = f"{path} (or its key) may not be read; give the user that runs this the right to"
        raise BrokerError(message) from None
    except (OSError, ValueError):  # ssl.SSLError too: their texts name lines of OpenSSL's source
        message = f"{path} cannot be used; expected {what} in PEM"
        raise BrokerError(message) from None
