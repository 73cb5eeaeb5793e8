# mypy: ignore-errors
"""A certificate on P-256 out of its DER: whose it is, how long it is good, and whether another one has signed it.

What MicroPython's TLS knows of certificates it tells nobody. Signatures are verified only, with no secret at hand:
nothing here has to take the same time for all numbers.
"""

import hashlib

SEQUENCE, INTEGER, BITS, UTC, GENERALIZED = 0x30, 0x02, 0x03, 0x17, 0x18
# DER of a public key on P-256 up to its point, and of "ECDSA with SHA-256"
POINT = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
SIGNED_WITH = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
# NIST P-256 (FIPS 186-4, D.1.2.3): y^2 = x^3 - 3x + b over P, and a point of order N
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)  # fmt: skip
DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)  # before a month of a year that is none of leaps


class Certificate:
    """``body``: what is signed; ``issuer``, ``subject``: their DER; ``begins``, ``ends``: as ``seconds``; ``key``.

    Raises ValueError where it is none, or on another curve.
    """

    def __init__(self, der):
        fields = parts(content(der, SEQUENCE))
        signature = content(fields[2], BITS)
        self.body = fields[0]
        self._signature = [number(each) for each in parts(content(signature[1:], SEQUENCE))]
        if len(fields) != 3 or signature[0] or fields[1] != SIGNED_WITH or len(self._signature) != 2:
            raise ValueError
        fields = parts(content(self.body, SEQUENCE))
        # version, serial number, algorithm, issuer, validity, subject, public key, ..
        self.issuer, self.subject = fields[3], fields[5]
        self.begins, self.ends = [moment(each) for each in parts(content(fields[4], SEQUENCE))]
        point = fields[6]
        if not point.startswith(POINT) or len(point) != len(POINT) + 64:
            raise ValueError
        point = point[len(POINT) :]
        self.key = int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")

    def is_signed_by(self, other):
        """Whether ``other`` has signed this one. 17 ms on Linux (measured); on a board far longer."""
        digest = int.from_bytes(hashlib.sha256(self.body).digest(), "big")
        return self.issuer == other.subject and verified(digest, self._signature, other.key)


# ---------------------------------------------------------------------- DER


def taken(data, place):
    """(tag, start, end) of what stands at ``place``."""
    tag, length, start = data[place], data[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count < 4:
            raise ValueError
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    if start + length > len(data):
        raise ValueError
    return tag, start, start + length


def content(data, kind):
    """What is in ``data``, which is one thing of this kind and nothing behind it."""
    try:
        tag, start, end = taken(data, 0)
    except IndexError:
        raise ValueError
    if tag != kind or end != len(data):
        raise ValueError
    return data[start:end]


def parts(data):
    """The things that stand one behind the other, each with its frame."""
    found, place = [], 0
    while place < len(data):
        try:
            end = taken(data, place)[2]
        except IndexError:
            raise ValueError
        found.append(data[place:end])
        place = end
    return found


def number(data):
    """A positive integer."""
    data = content(data, INTEGER)
    if not data or data[0] & 0x80:
        raise ValueError
    return int.from_bytes(data, "big")


def moment(data):
    """A UTCTime or GeneralizedTime, as ``seconds``."""
    if not data:
        raise ValueError
    text = str(content(data, data[0]), "ascii")
    if data[0] == UTC:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280, 4.1.2.5.1
    elif data[0] != GENERALIZED:
        raise ValueError
    if len(text) != 15 or text[14] != "Z":
        raise ValueError
    return seconds((int(text[:4]),) + tuple([int(text[at : at + 2]) for at in range(4, 14, 2)]))


def seconds(date):
    """Seconds from the year 0 to (year, month, day, hour, minute, second): boards begin to count in different years."""
    year, month, day, hour, minute, second = date[:6]
    past = year - (month < 3)  # the last year whose 29th of February is over
    days = 365 * year + past // 4 - past // 100 + past // 400 + DAYS[month - 1] + day
    return ((days * 24 + hour) * 60 + minute) * 60 + second


# ---------------------------------------------------------------------- ECDSA (SEC 1, 4.1.4)


def verified(digest, signature, key):
    """Whether the owner of the point ``key`` has signed ``digest``."""
    r, s = signature
    x, y = key
    if not (0 < r < N and 0 < s < N and x < P and y < P and (y * y - x * x * x + 3 * x - B) % P == 0):
        return False
    inverse = pow(s, N - 2, N)
    one, other = digest * inverse % N, r * inverse % N
    both = added(G + (1,), key + (1,))
    found, bit = None, 1 << 255
    while bit:
        found = doubled(found)
        step = both if one & bit and other & bit else G + (1,) if one & bit else key + (1,) if other & bit else None
        found = added(found, step)
        bit >>= 1
    return found is not None and found[0] * pow(found[2], 2 * P - 4, P) % P % N == r


def doubled(point):
    """Twice a point (x/z^2, y/z^3); None is the one at infinity."""
    if point is None or not point[1]:
        return None
    x, y, z = point
    square, flat = y * y % P, z * z % P
    four, slope = 4 * x * square % P, 3 * (x - flat) * (x + flat) % P
    across = (slope * slope - 2 * four) % P
    return across, (slope * (four - across) - 8 * square * square) % P, 2 * y * z % P


def added(one, other):
    """The sum of two points."""
    if one is None or other is None:
        return one or other
    (x, y, z), (u, v, w) = one, other
    zz, ww = z * z % P, w * w % P
    here, there, low, top = x * ww % P, u * zz % P, y * ww * w % P, v * zz * z % P
    if here == there:
        return doubled(one) if low == top else None
    gap, slope = there - here, top - low
    square = gap * gap % P
    cube, base = square * gap % P, here * square % P
    across = (slope * slope - cube - 2 * base) % P
    return across, (slope * (base - across) - low * cube) % P, gap * z * w % P
