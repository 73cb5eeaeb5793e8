# mypy: ignore-errors
"""On the board: the codec against docs/protocol/vectors. ``read_vectors.py FOLDER``"""

import binascii
import gc
import io
import json
import os
import sys

import deflate

from device_runtime.micro import wire
from device_runtime.micro.flash import Store
from device_runtime.micro.head import header_of
from device_runtime.micro.wire import Refused

folder, scratch = sys.argv[1], sys.argv[2]


def section(name):
    gc.collect()
    with open(folder + "/" + name + ".json") as file:
        return json.load(file)


def refuses(what, call):
    try:
        call()
    except Refused:
        return
    raise AssertionError("was not refused: " + str(what))


def reader(data):
    place = [0]

    def fill(view):
        view[:] = data[place[0] : place[0] + len(view)]
        place[0] += len(view)

    return fill


told = section("topics")
topics = wire.Topics(told["fleet"], told["device"])
for leaf, topic in told["of_device"].items():
    assert getattr(topics, leaf) == topic
assert topics.command_all == told["command_all"]
assert topics.orchestrator == told["orchestrator"]
assert topics.broadcast(told["artifact"]) == told["broadcast"]
for name in told["names"]["good"]:
    assert wire.check_name(name, "device") == name
for name in told["names"]["bad"]:
    refuses(name, lambda name=name: wire.check_name(name, "device"))

read = 0
for name, text in section("messages").items():
    direction, kind, _ = name.split("/")
    if direction == "from_orchestrator":
        found = wire.decode(text.encode())
        said = json.loads(text)
        if kind == "signed_plan":
            said, kind = said["plan"], "plan"
        assert found["type"] == kind and found["seq"] == said["seq"], name
        for field, value in said.items():
            if field in found and not isinstance(value, (dict, list)) and field not in ("type",):
                assert found[field] == value, (name, field)
        read += 1
assert read == 14

for why, case in section("refused").items():
    if case["direction"] == "from_orchestrator":
        refuses(
            why, lambda case=case: wire.check_ranges(wire.decode(binascii.unhexlify(case["hex"])).get("ranges", []), 9)
        )

told = section("frames")
manifest = dict(told["manifest"])
digests = binascii.unhexlify(manifest["chunk_digests"])
manifest["chunk_digests"] = str(binascii.b2a_base64(digests), "ascii").strip()
manifest = wire._fields(wire._MANIFEST, manifest, "manifest")
assert wire.manifest_json(manifest)["chunk_digests"] == str(binascii.b2a_base64(digests), "ascii").strip()
store = Store(scratch)
part = store.begin(manifest)


def take(frame):
    prefix, index, length = wire.read_frame_header(frame[:24])
    if not manifest["artifact"].startswith(prefix) or length != len(frame) - 24:
        raise Refused("another frame")
    if not part.write(index, length, reader(frame[24:])):
        raise Refused("corrupt")


for why, frame in told["refused"].items():
    frame = binascii.unhexlify(frame)
    if len(frame) <= 24:  # not even a header: the agent does not look at it
        continue
    refuses(why, lambda frame=frame: take(frame))
for index, frame in enumerate(told["frames"]):
    frame = binascii.unhexlify(frame)
    assert wire.frame_header(manifest["artifact"], index, len(frame) - 24) == frame[:24]
    take(frame)
assert part.finish() and store.has(manifest["artifact"])
with open(store.path(manifest["artifact"]), "rb") as file:
    assert file.read() == binascii.unhexlify(told["whole"])

told = section("ranges")
for case in told["good"]:
    assert wire.to_ranges(case["indices"]) == case["ranges"]
    assert wire.check_ranges(case["ranges"], told["count"]) == case["ranges"]
for ranges in told["refused"]:
    refuses(ranges, lambda ranges=ranges: wire.check_ranges(ranges, told["count"]))

told = section("weights")
file = binascii.unhexlify(told["file"])
header = b"".join(list(header_of(told["layout"])))
assert header == file[: len(header)]
described = store.put([header, file[len(header) :]], 1024)
assert described["artifact"] == told["artifact"]
told = section("programs")


described = header = file = part = manifest = digests = None
gc.collect()  # a window of 32 KB in one piece
stored = binascii.unhexlify(told["stored"])
assert deflate.DeflateIO(io.BytesIO(stored[8:]), deflate.ZLIB).read() == told["text"].encode()
print("read", read, os.uname()[0] if hasattr(os, "uname") else "")
