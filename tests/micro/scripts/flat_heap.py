# mypy: ignore-errors
"""On the board: 1000 messages of all kinds leave nothing behind. ``flat_heap.py FOLDER``"""

import binascii
import gc
import hashlib
import json
import sys

from device_runtime.micro import flash
from device_runtime.micro.agent import Agent
from device_runtime.micro.flash import Models, State, Store
from device_runtime.micro.wire import frame_header

MESSAGES, SETTLED = 1000, 200
flash.sync = lambda: None  # a computer syncs its whole disk each time
folder = sys.argv[1]
said = [0]


def say(message, topic):
    said[0] += 1


agent = Agent(
    "esp", "life", dict, Store(folder + "/a", Models(folder, State(folder))), folder + "/o", say, None, lambda plan: ""
)


def head(kind, number):
    return {"type": kind, "sender": "orchestrator", "boot_id": "b%d" % number, "seq": number, "job": "j",
            "round_id": "r%d" % number}  # fmt: skip


def plan(number):
    data = hashlib.sha256(b"%d" % number).digest() * 32
    digest = hashlib.sha256(data).digest()
    manifest = {"artifact": str(binascii.hexlify(digest), "ascii"), "size": 1024, "chunk_size": 1024}
    manifest["chunk_digests"] = str(binascii.b2a_base64(digest), "ascii").strip()
    told = head("plan", number)
    told.update({"kind": "evaluate", "group": "g", "tasks": ["a"], "deadline_s": 9, "program": manifest})
    return told, data, manifest["artifact"]


def exchange(number):
    now = number * 100
    told, data, artifact = plan(number)
    agent.on_message(json.dumps(told).encode(), now)
    frame = frame_header(artifact, 0, len(data)) + data
    place = [0]

    def reader(view):
        view[:] = frame[place[0] : place[0] + len(view)]
        place[0] += len(view)

    agent.on_frame(len(frame), reader, now)
    errand = agent.work()
    agent.on_finished(errand, {"samples": {}, "losses": {}, "seconds": {}}, None, now)
    receipt = head("receipt", number)
    receipt["verdict"] = "accepted"
    agent.on_message(json.dumps(receipt).encode(), now)
    agent.on_message(b'{"type": "plan", "broken%d"' % number, now)


levels = []
for number in range(MESSAGES // 4):
    exchange(number)
    if number * 4 in (SETTLED, MESSAGES - 4):
        gc.collect()
        levels.append(gc.mem_alloc())
print(said[0], levels[0], levels[1])
