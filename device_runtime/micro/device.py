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
import sys
import time

from . import wire
from .agent import Agent
from .flash import Models, State, Store, make_folder, size_of
from .mqtt import Client, Lost
from .wire import Refused, Topics

VERSION = "1"
FIRST_WAIT_MS, LAST_WAIT_MS = 500, 30000  # docs/protocol, Connection
UPDATE_CHUNK = 4096  # bytes: a chunk that is lost costs little, and a head has few of them
# Modules that are in memory in turns, by what they are for: with those that run a model there is no room to train.
TRAINING, TRIAL, RENEWAL = ("head", "network"), (
    "deploy", "int8", "steps", "tflite", "flatbuffer", "fixed", "ends", "dense", "dot", "dot_native", "layers", "moves",
    "pairs", "pointwise", "softmax",
), ("renewal",)  # fmt: skip


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
        self._renew_at = 0
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
                self._renew()
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
        else:
            self._renew()

    def _renew(self):
        """Look after the certificate, if it is time. The connection goes on with the one that it was made with."""
        if not self._config.get("enrolment") or self._clock.now() < self._renew_at:
            return
        _forget(TRIAL)
        from . import renewal

        gc.collect()
        self._renew_at = self._clock.now() + 1000 * renewal.look(self._config)
        _forget(RENEWAL)

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
            work.close()  # a model on trial is given up
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
            if isinstance(error, MemoryError):
                error = None  # it keeps what was at work
                gc.collect()
                reason = "this network does not fit: with %d bytes free, %s" % (gc.mem_free(), reason)
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
            try:
                refused = self._models.slots(plan["group"]).why_refused(plan["program"]["artifact"])
            except Refused as error:  # no name that a file may have
                return str(error)
            return "this model failed here before: %s" % refused if refused else ""
        if plan["weights"] is None or (plan["kind"] == "train" and plan["training"] is None):
            return "the plan lacks weights or training"
        return "" if self._data else "this board has no samples"

    # ---------------------------------------------------------------- work

    def _carry_out(self, plan):
        """A generator: yields between samples, returns (report, manifest of the update or None)."""
        began, report = self._clock.now(), {"samples": {}, "losses": {}, "engine": "micro", "seconds": {}}
        if plan["kind"] == "deploy":
            _forget(TRAINING)
            from . import deploy  # as what follows: loaded by the boards that need it

            slots = self._models.slots(plan["group"])
            if plan["undo"]:
                deploy.undo(slots, plan, report)
            else:
                trial = deploy.Trial(self._config, self._store, self._models, self._data)
                yield from trial.run(slots, plan, report)
            report["model"] = slots.digest
            return report, None
        _forget(TRIAL)
        from . import head  # a board that only answers spares the memory
        from .network import Network
        from .weights import Weights

        gc.collect()
        indices = head.labelled_samples(self._data, plan["tasks"]) if plan["kind"] == "train" else None
        weights = Weights(self._store.path(plan["weights"]["manifest"]["artifact"]), self._arena)
        network = Network(self._program(plan), weights)
        try:
            manifest = yield from self._run(head, network, plan, report, indices)
        finally:
            network.clear()
        seconds = (self._clock.now() - began) / 1000
        report["seconds"][plan["kind"]] = report["cpu_seconds"] = seconds
        return report, manifest

    def _run(self, head, network, plan, report, indices):
        if network.tasks != plan["tasks"] or network.input_shape != self._data.input_shape:
            raise Refused("the program is not for the tasks and samples of this board")
        report["batch_size"] = network.batch_size
        if plan["kind"] == "evaluate":
            yield from head.evaluate(network, self._data, plan, report)
            return None
        layers = yield from head.train(network, self._data, plan, report, indices)
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


def _forget(modules):
    """Let go of code; the next import reads it again."""
    package = __name__.rsplit(".", 1)[0]
    for name in modules:
        if sys.modules.pop(package + "." + name, None) is not None:
            delattr(sys.modules[package], name)
    gc.collect()


def run(config, arena):
    """Serve with this configuration; ``arena``: float32 memory for weights and features."""
    data = None
    if config.get("data") and size_of(config["data"] + "/x.npy") >= 0:
        from .data import Folder

        data = Folder(config["data"], config["tasks"], config["input_shape"])
    Device(config, data, arena).run()
