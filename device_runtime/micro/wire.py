# mypy: ignore-errors
"""Messages, topics, manifests and frames of the wire contract, version 1: bytes to words and back.

What does not fit raises Refused with the reason; nothing else leaves this module.
"""

import binascii
import json
import struct

MAX_CONTROL = (
    16 * 1024
)  # bytes of a message: a plan with 100 chunk digests is 6 KB, and read it takes several times that
MAX_FIELDS = 64  # numbers of a list of ranges, tasks, engines: far more than a board is ever told
MIN_CHUNK, MAX_CHUNK, MAX_CHUNKS = 1024, 524288, 4096  # docs/protocol, Artifacts
HEADER = 24  # bytes of a frame before its data
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
VERDICTS = (
    "accepted", "duplicate", "stale_round", "bad_digest", "too_large", "not_selected", "invalid", "round_closed"
)  # fmt: skip
KINDS = ("train", "evaluate", "deploy")


class Refused(Exception):
    """What came is not what the contract says; the text says what."""


def check_name(name, what):
    """``name`` if it may stand in a topic and in a file name."""
    good = 1 <= len(name) <= 64 and name[0] in LETTERS and all(letter in LETTERS or letter in "_.-" for letter in name)
    if not good:
        message = "%s %r is not a valid name" % (what, name[:80])
        raise Refused(message)
    return name


class Topics:
    """The topics of one device."""

    def __init__(self, fleet, device):
        root = "fl/v1/" + check_name(fleet, "fleet")
        mine = root + "/dev/" + check_name(device, "device") + "/"
        self.birth, self.status = mine + "birth", mine + "status"
        self.command, self.response = mine + "cmd", mine + "rsp"
        self.chunk, self.upload = mine + "chunk", mine + "up"
        self.command_all, self.orchestrator = root + "/all/cmd", root + "/agg/state"
        self._broadcast = root + "/all/chunk/"

    def broadcast(self, artifact):
        """Where the pieces of ``artifact`` go to all."""
        return self._broadcast + artifact[:32]


# Fields by name: what they must be, and the default; REQUIRED has none. A tuple of words is one of them.
REQUIRED = object()
TEXT, COUNT, NUMBER, FLAG, ANY = "text", "count", "number", "flag", "any"
_ROUND = {"job": (TEXT, REQUIRED), "round_id": ("name", REQUIRED)}
_MANIFEST = {
    "artifact": ("digest", REQUIRED), "size": (COUNT, REQUIRED), "chunk_size": (COUNT, REQUIRED),
    "chunk_digests": ("base64", REQUIRED),
}  # fmt: skip
_TRAINING = {
    "learning_rate": (NUMBER, REQUIRED), "momentum": (NUMBER, REQUIRED), "weight_decay": (NUMBER, REQUIRED),
    "local_epochs": (COUNT, REQUIRED), "seed": (COUNT, REQUIRED), "task_weights": ("numbers", REQUIRED),
    "proximal_mu": (NUMBER, 0.0), "balance": (ANY, None),
}  # fmt: skip
_WEIGHTS = {"manifest": ("manifest", REQUIRED), "derive_from": (TEXT, "")}
_HEALTH = {"golden": ("manifest", REQUIRED), "tolerance": (NUMBER, REQUIRED), "max_latency_s": (NUMBER, REQUIRED)}
_PARTS = {"manifest": _MANIFEST, "training": _TRAINING, "weights": _WEIGHTS, "health": _HEALTH}
_PLAN = {
    "kind": (KINDS, REQUIRED), "group": (TEXT, REQUIRED), "tasks": ("texts", REQUIRED),
    "deadline_s": (NUMBER, REQUIRED), "program": ("manifest", REQUIRED), "weights": ("weights", None),
    "training": ("training", None), "health": ("health", None), "format": (TEXT, "onnx"), "undo": (FLAG, False),
}  # fmt: skip
_PLAN.update(_ROUND)
_CHECKIN = {"next_checkin_s": (NUMBER, 0.0)}
MESSAGES = {
    "plan": _PLAN,
    "signed_plan": {"receiver": (TEXT, REQUIRED), "life": (COUNT, REQUIRED), "plan": (ANY, REQUIRED)},
    "want": {"artifact": ("digest", REQUIRED), "ranges": ("ranges", REQUIRED)},
    "receipt": {"verdict": (VERDICTS, REQUIRED), "reason": (TEXT, "")},
    "cancel": {"reason": (TEXT, REQUIRED)},
    "rebirth": {},
    "orchestrator": {"online": (FLAG, REQUIRED)},
}
for _each in ("receipt", "cancel"):
    MESSAGES[_each].update(_ROUND)
for _each in ("receipt", "cancel", "orchestrator"):
    MESSAGES[_each].update(_CHECKIN)


def decode(data):
    """A message of the orchestrator as a dict: its ``type`` and fields, defaults filled in, what is unknown left out.

    Digests become bytes. A signed plan is taken out and its signature not looked at: this agent holds no root to trust.
    """
    if len(data) > MAX_CONTROL:
        message = "message of %d bytes; a board takes %d" % (len(data), MAX_CONTROL)
        raise Refused(message)
    try:
        said = json.loads(str(data, "utf-8"))
    except (ValueError, UnicodeError, MemoryError, RuntimeError):
        message = "message does not decode"
        raise Refused(message)
    return _message(said)


def _message(said):
    if not isinstance(said, dict):
        message = "message is no object"
        raise Refused(message)
    kind = said.get("type")
    if not isinstance(kind, str) or kind not in MESSAGES:
        message = "message of unknown type %r" % (kind,)
        raise Refused(message)
    found = _fields(MESSAGES[kind], said, kind)
    found["type"] = kind
    found["boot_id"], found["seq"] = (
        _checked(TEXT, said.get("boot_id"), "boot_id"),
        _checked(COUNT, said.get("seq"), "seq"),
    )
    _checked(TEXT, said.get("sender"), "sender")
    if kind == "signed_plan":
        return _message(found["plan"])
    return found


def _fields(known, said, where):
    if not isinstance(said, dict):
        message = "%s is no object" % where
        raise Refused(message)
    found = {}
    for name, (kind, default) in known.items():
        value = said.get(name, REQUIRED)
        if value is REQUIRED or (value is None and default is None):
            if default is REQUIRED:
                message = "%s lacks %s" % (where, name)
                raise Refused(message)
            found[name] = default
        else:
            found[name] = _checked(kind, value, name)
    return found


def _checked(kind, value, name):
    if kind in _PARTS:
        found = _fields(_PARTS[kind], value, name)
        return check_manifest(found) if kind == "manifest" else found
    good, value = _CHECKS[kind](value) if isinstance(kind, str) else (value in kind, value)
    if not good:
        message = "%s is %s" % (name, str(value)[:40])
        raise Refused(message)
    return value


def _is_number(value):
    return type(value) in (int, float) and value - value == 0  # neither NaN nor infinite


def _digest(value):
    try:
        return len(value) == 64 and value == value.lower() and len(binascii.unhexlify(value)) == 32, value
    except (ValueError, TypeError, AttributeError):
        return False, value


def _base64(value):
    try:
        return True, binascii.a2b_base64(value)
    except (ValueError, TypeError):
        return False, value


def _list(value, good):
    return isinstance(value, list) and len(value) <= MAX_FIELDS and all(good(each) for each in value), value


def _is_range(value):
    return isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value)


def _is_name(value):
    try:
        return isinstance(value, str) and bool(check_name(value, "round")), value
    except Refused:
        return False, value


_CHECKS = {
    TEXT: lambda value: (isinstance(value, str), value),
    COUNT: lambda value: (type(value) is int and 0 <= value <= 1 << 53, value),
    NUMBER: lambda value: (_is_number(value), value),
    FLAG: lambda value: (value is True or value is False, value),
    ANY: lambda value: (True, value),
    "name": _is_name,
    "digest": _digest,
    "base64": _base64,
    "texts": lambda value: _list(value, lambda each: isinstance(each, str)),
    "ranges": lambda value: _list(value, _is_range),
    "numbers": lambda value: (isinstance(value, dict) and all(_is_number(each) for each in value.values()), value),
}


def check_manifest(manifest):
    """``manifest`` if its numbers fit each other."""
    size, chunk = manifest["size"], manifest["chunk_size"]
    fits = MIN_CHUNK <= chunk <= MAX_CHUNK and size <= MAX_CHUNKS * chunk
    if not fits or len(manifest["chunk_digests"]) != 32 * -(-size // chunk):
        message = "manifest of %s contradicts itself" % manifest["artifact"][:12]
        raise Refused(message)
    return manifest


def chunks(manifest):
    """How many chunks an artifact has."""
    return len(manifest["chunk_digests"]) // 32


def chunk_length(manifest, index):
    """How many bytes chunk ``index`` has."""
    return min(manifest["chunk_size"], manifest["size"] - index * manifest["chunk_size"])


def frame_header(artifact, index, length):
    """What stands before the data of a chunk."""
    return binascii.unhexlify(artifact[:32]) + struct.pack(">II", index, length)


def read_frame_header(header):
    """(the first 32 hex digits of the artifact, index, length of the data)."""
    index, length = struct.unpack(">II", header[16:24])
    if not 0 < length <= MAX_CHUNK or index >= MAX_CHUNKS:
        message = "frame of chunk %d with %d bytes" % (index, length)
        raise Refused(message)
    return str(binascii.hexlify(header[:16]), "ascii"), index, length


def to_ranges(indices):
    """Ascending ``indices`` as half-open ranges."""
    ranges = []
    for index in indices:
        if ranges and index == ranges[-1][1]:
            ranges[-1][1] = index + 1
        else:
            ranges.append([index, index + 1])
    return ranges


def check_ranges(ranges, count):
    """``ranges`` if they ascend, do not overlap and lie within 0 to ``count``."""
    previous = 0
    for start, stop in ranges:
        if not previous <= start < stop <= count:
            message = "range %d to %d of %d chunks" % (start, stop, count)
            raise Refused(message)
        previous = stop
    return ranges


def manifest_json(manifest):
    """A manifest as it stands in a message."""
    digests = str(binascii.b2a_base64(manifest["chunk_digests"]), "ascii").strip()
    return {
        "artifact": manifest["artifact"], "size": manifest["size"], "chunk_size": manifest["chunk_size"],
        "chunk_digests": digests,
    }  # fmt: skip


def encode(message):
    """The bytes of a message. A number that JSON cannot hold must not be in it."""
    return json.dumps(message).encode()
