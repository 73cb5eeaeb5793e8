# mypy: ignore-errors
"""One board: its configuration, its loop, and what carries out a plan.

``run`` never returns; docs/devices/microboard.md explains the configuration. The connection is looked after between any
two samples, so that a long training neither loses it nor misses a cancel.
"""

import binascii
import gc
import json
import os
import random
import struct
import sys
import time
from array import array

from . import wire
from .agent import Agent
from .flash import Models, State, Store, make_folder, size_of
from .mqtt import Client, Lost
from .wire import Refused, Topics

VERSION = "1"
FIRST_WAIT_MS, LAST_WAIT_MS = 500, 30000  # docs/protocol, Connection
UPDATE_CHUNK = 4096  # bytes: a chunk that is lost costs little, and a head has few of them
LATENCY_RUNS = 5  # docs/protocol, deploy


class Clock:
    """Milliseconds since the start: MicroPython's own counter begins anew every few days."""

    def __init__(self):
        self._last, self._total = time.ticks_ms(), 0

    def now(self):
        """Milliseconds, growing."""
        ticks = time.ticks_ms()
        self._total += time.ticks_diff(ticks, self._last)
        self._last = ticks
        return self._total


class Weights:
    """A weight file in the flash: tensors by name, kept in ``arena`` (float32) as far as it reaches, else read anew."""

    def __init__(self, path, arena):
        self._path, self._free, self._kept = path, memoryview(arena), {}
        with open(path, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > wire.MAX_CONTROL:
                raise Refused("the weights name more tensors than a board reads")
            told = json.loads(str(file.read(size), "utf-8"))
        told.pop("__metadata__", None)
        start = 8 + size
        self._places = {}
        for name, each in told.items():
            first, last = each["data_offsets"]
            self._places[name] = (start + first, (last - first) // 4)
            each.clear()
        told.clear()  # see Network: a pointer that is left on the stack must not keep it
        gc.collect()

    def rest(self):
        """What is left of the arena; from now on it is the caller's."""
        rest, self._free = self._free, self._free[:0]
        return rest

    def tensor(self, name):
        """The float32 numbers of a tensor. Raises Refused where there is none."""
        if name in self._kept:
            return self._kept[name]
        if name not in self._places:
            message = "the weights lack the tensor %s" % name
            raise Refused(message)
        place, count = self._places[name]
        if count <= len(self._free):
            found, self._free = self._free[:count], self._free[count:]
            self._kept[name] = found
        else:
            found = array("f", range(count))
        with open(self._path, "rb") as file:
            file.seek(place)
            if file.readinto(found) != 4 * count:
                raise Refused("the weights end before the tensor %s" % name)
        return found


class Device:
    """A board with its data, flash and connection. ``data``: an object as ``data.Folder``, None for no samples."""

    def __init__(self, config, data, arena):
        self._config, self._data, self._clock = config, data, Clock()
        self._arena = arena
        config.setdefault("max_control", wire.MAX_CONTROL)
        self._topics = Topics(config["fleet"], config["name"])
        folder = config["state"]
        make_folder(folder)
        self._state = State(folder)
        self._models = Models(folder, self._state)
        self._store = Store(folder + "/artifacts", self._models)
        boot_id = str(binascii.hexlify(os.urandom(8)), "ascii")
        self.agent = Agent(
            config["name"], boot_id, self._birth, self._store, folder + "/offers", self._say, self._send_chunk,
            self._why_not,
        )  # fmt: skip
        will = wire.encode(self.agent.status(False, "connection lost"))
        self._client = Client(config, config["name"], self._topics.status, will, self._on_message, self._on_stream)
        self._client.streams.add(self._topics.chunk)
        self._work = None  # (errand, generator)
        self._connected = False

    # ---------------------------------------------------------------- the loop

    def run(self):
        """Serve until the board is switched off."""
        wait = FIRST_WAIT_MS
        while True:
            try:
                self._connect()
                wait = FIRST_WAIT_MS
                while True:
                    self.turn()
            except (Lost, MemoryError) as error:
                self._connected = False
                self._client.close()
                gc.collect()
                print("mas-edge: %s; next try in %d ms" % (error or "out of memory", wait))
                self._bridge(wait // 2 + random.getrandbits(20) % (wait // 2))
                wait = min(2 * wait, LAST_WAIT_MS)

    def _bridge(self, wait_ms):
        """Let time pass without a broker: what is to be computed needs none."""
        until = self._clock.now() + wait_ms
        while True:
            self.agent.poll(self._clock.now())
            if self._begin() or self._work:
                self._go_on()
            else:
                time.sleep_ms(max(0, until - self._clock.now()))
            if self._clock.now() >= until:
                return

    def _connect(self):
        self._client.connect()
        for topic, qos in ((self._topics.command, 1), (self._topics.command_all, 1), (self._topics.orchestrator, 1)):
            self._client.subscribe(topic, qos)
        self._client.subscribe(self._topics.chunk, 0)
        self._connected = True
        self.agent.on_connected(self._clock.now())

    def turn(self):
        """One look at the connection, and one sample of the work."""
        self._begin()
        now = self._clock.now()
        wait = 0 if self._work else max(0, min(self.agent.next_poll(now) - now, 1000))
        while self._client.poll(wait):
            wait = 0
        self.agent.poll(self._clock.now())
        if self._work:
            self._go_on()

    def _begin(self):
        """Take up the next plan that has all it needs; whether there was one."""
        errand = self.agent.work() if self._work is None else None
        if errand is None:
            return False
        gc.collect()
        self._work = errand, self._carry_out(errand.plan)
        return True

    def _go_on(self):
        errand, work = self._work
        if errand not in self.agent.errands:  # cancelled, or too late
            self._work = None
            return
        try:
            next(work)
            gc.collect()  # before the memory is in pieces
            return
        except StopIteration as end:
            self._work = None
            report, manifest = end.value
            gc.collect()
            try:
                self.agent.on_finished(errand, report, manifest, self._clock.now())
            except OSError as error:
                self.agent.on_flash_failed(error, self._clock.now())
            if "healthy" in report:
                self.agent.introduce()  # with the models that are in use now
        except (Refused, OSError, MemoryError, ValueError, KeyError, TypeError, IndexError) as error:
            self._work = None
            reason = str(error) if isinstance(error, Refused) else "%s: %s" % (type(error).__name__, error)
            self.agent.on_failed(errand, reason)
        gc.collect()

    # ---------------------------------------------------------------- what the agent asks for

    def _say(self, message, topic):
        if self._connected:
            payload = wire.encode(message)
            self._client.publish(getattr(self._topics, topic), payload, 1, topic in ("birth", "status"))

    def _send_chunk(self, manifest, index):
        length = wire.chunk_length(manifest, index)
        header = wire.frame_header(manifest["artifact"], index, length)
        with open(self._store.path(manifest["artifact"]), "rb") as file:
            file.seek(index * manifest["chunk_size"])
            self._client.publish_from(self._topics.upload, header, length, file.readinto)

    def _on_message(self, topic, payload):
        gc.collect()  # what stays of a message lies behind what is left of a computation, unless that is gone
        try:
            self.agent.on_message(payload, self._clock.now())
        except OSError as error:
            self.agent.on_flash_failed(error, self._clock.now())

    def _on_stream(self, topic, length, reader):
        try:
            self.agent.on_frame(length, reader, self._clock.now())
        except Refused as error:
            print("mas-edge: %s" % error)
        except OSError as error:
            self.agent.on_flash_failed(error, self._clock.now())

    def _birth(self):
        data, tasks = self._data, {}
        for task in self._config["tasks"] if data else ():
            tasks[task] = {"train": data.count(task, 0), "test": data.count(task, 1)}
        return {
            "runtime": VERSION, "python": "MicroPython %d.%d.%d" % sys.implementation[1][:3],
            "machine": getattr(sys.implementation, "_machine", sys.platform)[:200], "cores": 1,
            "memory_bytes": gc.mem_free() + gc.mem_alloc(),
            "engine": "micro" if self._config.get("train", True) else "", "engines": ["micro"],
            "input_shape": self._config["input_shape"],
            "tasks": {task: count for task, count in tasks.items() if count["train"] + count["test"]},
            "checks_in": True, "models": self._models.in_use(),
        }  # fmt: skip

    def _why_not(self, plan):
        if plan["kind"] == "deploy":
            if plan["undo"]:
                return ""
            if plan["health"] is None or plan["format"] != "int8":
                return "this board takes models of format int8, with a health check"
            refused = self._models.slots(plan["group"]).why_refused(plan["program"]["artifact"])
            return "this model failed here before: %s" % refused if refused else ""
        if plan["weights"] is None or (plan["kind"] == "train" and plan["training"] is None):
            return "the plan lacks weights or training"
        return "" if self._data else "this board has no samples"

    # ---------------------------------------------------------------- work

    def _carry_out(self, plan):
        """A generator: yields between samples, returns (report, manifest of the update or None)."""
        began, report = self._clock.now(), {"samples": {}, "losses": {}, "engine": "micro", "seconds": {}}
        if plan["kind"] == "deploy":
            slots = self._models.slots(plan["group"])
            if plan["undo"]:
                _undo(slots, plan, report)
            else:
                yield from self._deploy(slots, plan, report)
            report["model"] = slots.digest
            return report, None
        from . import head  # a board that only answers spares the memory
        from .network import Network

        gc.collect()
        network = Network(self._program(plan))
        gc.collect()
        try:
            manifest = yield from self._run(head, network, plan, report)
        finally:
            network.clear()
        seconds = (self._clock.now() - began) / 1000
        report["seconds"][plan["kind"]] = report["cpu_seconds"] = seconds
        return report, manifest

    def _run(self, head, network, plan, report):
        if network.tasks != plan["tasks"] or network.input_shape != self._data.input_shape:
            raise Refused("the program is not for the tasks and samples of this board")
        weights = Weights(self._store.path(plan["weights"]["manifest"]["artifact"]), self._arena)
        network.tensors, network.scratch = weights.tensor, weights.rest
        report["batch_size"] = network.batch_size
        if plan["kind"] == "evaluate":
            yield from head.evaluate(network, self._data, plan, report)
            return None
        layers = yield from head.train(network, self._data, plan, report)
        gc.collect()
        return self._store.put(head.update_pieces(network, layers), UPDATE_CHUNK)

    def _program(self, plan):
        import deflate

        with open(self._store.path(plan["program"]["artifact"]), "rb") as file:
            if file.read(8) != b"MASEDGE1":
                raise Refused("the program is none")
            try:
                program = json.load(deflate.DeflateIO(file, deflate.ZLIB))
            except (ValueError, OSError, EOFError):
                raise Refused("the program is damaged")
        if program["format"] != 1 or program["engine"] != "micro":
            raise Refused("the program is of another version or engine")
        return program

    def _deploy(self, slots, plan, report):
        """Try the model in its slot; it is the one in use only when it does what its golden samples say."""
        digest = plan["program"]["artifact"]
        known = slots.digest == digest
        if not known:
            self._models.bring(digest, self._store.path(digest))
        path = slots.active() if known else slots.put_on_trial(self._store.path(digest), digest)
        try:
            model = self._hook().load(path, plan["tasks"])
            yield from self._check(model, plan, report)
            report["healthy"] = True
            if not known:
                slots.commit()
        except (Refused, MemoryError, ValueError, IndexError, KeyError, TypeError) as error:
            report["healthy"], report["health_reason"] = False, str(error) or type(error).__name__
            if not known:
                slots.refuse(report["health_reason"])

    def _check(self, model, plan, report):
        health = plan["health"]
        golden = Weights(self._store.path(health["golden"]["artifact"]), b"")
        inputs, times = golden.tensor("x"), []
        width = 1
        for size in self._config["input_shape"]:
            width *= size
        for sample in range(len(inputs) // width):
            x = inputs[sample * width : (sample + 1) * width]
            began = time.ticks_us()
            answers = model.run(x)
            times.append(time.ticks_diff(time.ticks_us(), began) / 1e6)
            for task in plan["tasks"]:
                expected = golden.tensor("out." + task)
                count = len(expected) // (len(inputs) // width)
                _compare(answers[task], expected[sample * count : (sample + 1) * count], health["tolerance"], task)
            yield
        times = sorted(times[:LATENCY_RUNS])
        report["latency_s"] = times[len(times) // 2]
        if report["latency_s"] > health["max_latency_s"]:
            message = "one sample takes %.3f s; %.3f are allowed" % (report["latency_s"], health["max_latency_s"])
            raise Refused(message)
        if self._data:
            yield from self._measure(model, plan, report)

    def _measure(self, model, plan, report):
        """How the model does on the board's own test samples."""
        right, samples = {}, {}
        for index in self._data.indices(1):
            answers = None
            for task in plan["tasks"]:
                target = self._data.target(task, index)
                if target is None:
                    continue
                answers = answers or model.run(self._data.x(index))
                if any([value - value != 0 for value in answers[task]]):
                    raise Refused("an answer to an own sample is not finite")
                if self._config["tasks"][task]["kind"] == "class":
                    best = answers[task].index(max(answers[task]))
                    right[task] = right.get(task, 0) + (best == target)
                    samples[task] = samples.get(task, 0) + 1
                yield
        report["samples"] = samples
        report["metrics"] = {task: right[task] / count for task, count in samples.items()}

    def _hook(self):
        name = self._config.get("infer")
        if not name:
            from . import int8

            return int8
        return __import__(name, None, None, ["load"])


def _undo(slots, plan, report):
    """Leave the plan's model, if it is in use, for the one before it."""
    report["healthy"] = slots.digest != plan["program"]["artifact"] or slots.roll_back()
    report["health_reason"] = "" if report["healthy"] else "there is no model before this one to go back to"


def _compare(answer, expected, tolerance, task):
    size = max([1.0] + [abs(value) for value in expected])
    if len(answer) != len(expected):
        message = "%s: %d numbers, %d were expected" % (task, len(answer), len(expected))
        raise Refused(message)
    for got, wanted in zip(answer, expected):
        if not abs(got - wanted) <= tolerance * size:
            message = "%s: %.4g instead of %.4g" % (task, got, wanted)
            raise Refused(message)


def run(config, arena):
    """Serve with this configuration; ``arena``: float32 memory for weights and features."""
    data = None
    if config.get("data") and size_of(config["data"] + "/x.npy") >= 0:
        from .data import Folder

        data = Folder(config["data"], config["tasks"], config["input_shape"])
    Device(config, data, arena).run()
