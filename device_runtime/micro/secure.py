# mypy: ignore-errors
"""TLS on a board: whom to believe, and the certificate that says who we are, out of PEM or DER files.

MicroPython takes DER alone. A connection takes 32 KB while it is made and 26 KB while it stands (measured, Mbed TLS
3.6 on Linux, P-256): there and on an ESP32 beside the heap, of which it takes 4 KB; elsewhere out of it.
"""

import binascii
import hashlib
import time

from .wire import Refused

CERTIFICATE, KEY = "CERTIFICATE", "KEY"  # how the first line of a PEM block ends


def context(config):
    """What wraps sockets: believes ``ca``; ``certificate`` and ``key`` may be one file. Raises Refused."""
    import tls

    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    made.verify_mode = tls.CERT_REQUIRED
    name = "ca"
    try:
        for each in blocks(config["ca"], CERTIFICATE):
            made.load_verify_locations(each)
        if config.get("certificate"):
            name = "certificate or key"
            key = blocks(config.get("key") or config["certificate"], KEY)
            made.load_cert_chain(newest(config), key[0])
    except (ValueError, IndexError, OSError) as error:
        message = "%s cannot be used (%s): expected PEM or DER files, a key without a password" % (name, error)
        raise Refused(message)
    return made


def blocks(path, kind):
    """The DER of every block of a PEM file whose title ends in ``kind``; of a DER file the whole."""
    with open(path, "rb") as file:
        if file.read(1) == b"\x30":  # an ASN.1 sequence: DER
            return [b"\x30" + file.read()]
    with open(path) as file:
        return decoded(file, kind)


def decoded(lines, kind):
    """The DER of every block of PEM whose title ends in ``kind``."""
    found, inside = [], None
    for line in lines:
        line = line.strip()
        if line.startswith("-----BEGIN "):
            inside = b"" if line.strip("-").endswith(kind) else None
        elif line.startswith("-----END "):
            if inside is not None:
                found.append(binascii.a2b_base64(inside))
            inside = None
        elif inside is not None:
            inside += line.encode()
    return found


def newest(config):
    """The DER of the certificate that is good longest, of that which the owner gave and those that followed it.

    See ``renewal``. Raises ValueError, IndexError, OSError where the owner's cannot be used.
    """
    path = config["certificate"]
    given = blocks(path, CERTIFICATE)[0]
    others = [each for each in (stored(path + ".a"), stored(path + ".b")) if each]
    if not others:
        return given
    from .x509 import Certificate

    best = Certificate(given)
    for other in others:
        made = Certificate(other)
        if made.key == best.key and made.ends > best.ends:
            given, best = other, made
    return given


def stored(path):
    """What ``renewal`` has written there; empty if it is not whole."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return b""
    return data[:-32] if len(data) > 32 and hashlib.sha256(data[:-32]).digest() == data[-32:] else b""


def why(error):
    """A handshake's error in words; a board that lost its clock believes nobody."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):  # what MicroPython raises about a certificate
        today = "%d-%02d-%02d" % time.gmtime()[:3]
        text = "%s; check ca, the broker's name, and the clock: it says %s" % (text, today)
    return text
