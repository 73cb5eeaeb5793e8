# mypy: ignore-errors
"""The next certificate: asked for over HTTPS with the present one, and kept beside it, a whole one at every moment.

The key stays the one that was made when the board joined, and so does the signing request (``request`` of the
configuration): a board makes no keys. Beside the file ``certificate`` lie ``certificate.a`` and ``.b``: a certificate
and its sha256. Of all three that are whole and of the same key the one that is good longest counts. The next one goes
into the place of the other, which is removed before: FAT renames over nothing.
"""

import hashlib
import json
import os
import socket
import time

from . import secure
from .flash import remove, sync
from .wire import MAX_CONTROL, Refused
from .x509 import Certificate, seconds

PATH = "/v1/renew"  # docs/protocol, Renewal
PATIENCE_S = 10  # for the handshake and each read
RENEWED_WITH = 3  # a third of its life left: ten days of thirty, for a board or a server that is away
CLOCKS_DIFFER_S = 24 * 3600  # certificates are dated back by so much
AGAIN_S = 3600  # between two looks, and after a renewal that failed
SOON_S = 1


def look(config):
    """Renew if it is time; in how many seconds to look again. What goes wrong is said, and the present one stays."""
    try:
        present = Certificate(secure.newest(config))
        if due(present) <= 0:
            answer = asked(config)
            keep(config, checked(answer, present, authority(config)))
            present = Certificate(secure.newest(config))
            print("mas-edge: the certificate is renewed; it is good for %d hours" % (left(present) // 3600))
        return max(SOON_S, min(due(present), AGAIN_S))
    except (Refused, OSError, ValueError, IndexError, KeyError, TypeError, MemoryError) as error:
        print("mas-edge: the certificate is not renewed: %s" % (str(error) or type(error).__name__))
        return AGAIN_S


def left(certificate):
    """Seconds until it has expired."""
    return certificate.ends - seconds(time.gmtime())


def due(certificate):
    """Seconds until it is time to renew it."""
    life = certificate.ends - certificate.begins - CLOCKS_DIFFER_S
    return left(certificate) - life // RENEWED_WITH


def authority(config):
    """The fleet's authority."""
    return Certificate(secure.blocks(config["ca"], secure.CERTIFICATE)[0])


def asked(config):
    """The endpoint's answer to our signing request: a certificate's DER. Raises Refused, OSError."""
    with open(config["request"]) as file:
        body = json.dumps({"csr": file.read()})
    host, _, port = config["enrolment"].rpartition(":")
    host = host.strip("[]")
    head = "POST %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    stream = socket.socket()
    try:
        stream.settimeout(PATIENCE_S)
        stream.connect(socket.getaddrinfo(host, int(port), 0, socket.SOCK_STREAM)[0][-1])
        try:
            stream = secure.context(config).wrap_socket(stream, server_hostname=host)
        except (OSError, ValueError) as error:
            raise Refused(secure.why(error))
        stream.write((head % (PATH, config["enrolment"], len(body))).encode() + body.encode())
        return answered(stream)
    finally:
        stream.close()


def answered(stream):
    """The certificate out of an HTTP answer. Raises Refused."""
    said = b""
    while True:
        piece = stream.read(1024)
        if not piece:
            break
        said += piece
        if len(said) > MAX_CONTROL:
            raise Refused("the answer is larger than a board takes")
    head, _, body = said.partition(b"\r\n\r\n")
    words = head.split(b" ")
    try:
        told = json.loads(str(body, "utf-8"))
    except (ValueError, UnicodeError):
        told = None
    if len(words) < 2 or not isinstance(told, dict):
        raise Refused("what listens at this address is no enrolment endpoint")
    if words[1] != b"200":
        raise Refused("the fleet refuses: %s" % told.get("reason", ""))
    return secure.decoded(told["certificate"].split("\n"), secure.CERTIFICATE)[0]


def checked(der, present, authority):
    """``der`` if it may take the place of ``present``. Raises Refused."""
    made, now = Certificate(der), seconds(time.gmtime())
    good = (
        ("is not of this board's key", made.key == present.key),
        ("is not of this board's name", made.subject == present.subject),
        ("is not good now: check the clock", made.begins <= now < made.ends),
        ("is not good for longer than the present one", made.ends > present.ends),
        ("is not signed by the fleet's authority", made.is_signed_by(authority)),
    )
    for what, holds in good:
        if not holds:
            raise Refused("the certificate that came %s" % what)
    return der


def keep(config, der):
    """Put ``der`` beside the present certificate; the power may go at any step."""
    path = config["certificate"]
    present = secure.newest(config)
    place = path + (".b" if secure.stored(path + ".a") == present else ".a")
    with open(path + ".new", "wb") as file:
        file.write(der + hashlib.sha256(der).digest())
    sync()
    remove(place)
    os.rename(path + ".new", place)
    sync()
