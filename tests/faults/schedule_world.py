"""One schedule: the scheduler that owns the network, the clocks, the disks and every death (see ``schedules``)."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from mas_edge.job import Federation, Job
from mas_edge.orchestrator.filing import Work
from mas_edge.protocol.messages import Plan
from tests.faults.schedule_broker import Broker
from tests.faults.schedule_disk import Home
from tests.faults.schedule_faults import NEVER, YEAR_S, Faults
from tests.faults.schedule_nodes import SERVER, TOPICS, Crash, Device, Server, job
from tests.faults.schedule_rules import check

LIMIT_S = 3600.0  # seconds of the schedule's clock in which a job without faults has ended a hundred times
LIMIT_EVENTS = 300_000  # a schedule has some thousands; more is a machine that talks to itself
LEAST_PAUSE_S = 0.001  # between two looks at the clock of one machine
EPOCH = 1_700_000_000.0  # what the clocks on the wall show when a schedule begins
INFINITY = float("inf")
NOWHERE = Path("/nowhere")  # what a simulated disk is called: whoever goes round it finds nothing


class ScheduleError(AssertionError):
    """A schedule broke a rule; the message tells how to see it again."""


@dataclass
class _Node:
    home: Home
    machine: Server | Device | None = None
    life: int = 0
    connection: int = 0  # a number for each, so that the end of an old one does not end a new one
    wakes_at: float = INFINITY
    filed_at: float = 0.0  # when the orchestrator's clerk will have done what it was handed
    steps_left: float = INFINITY
    wall: float = EPOCH  # what its clock on the wall showed at the beginning
    unsent: list[tuple[str, bytes, bool]] | None = None  # what it says while it is not connected
    removed: bool = False


KINDS = (
    "rounds",
    "late",  # reports that counted in a later round
    "filings",  # by the clerk
    "events", "deaths", "power cuts", "cuts", "takeovers", "broker restarts", "clock jumps",
)  # fmt: skip


@dataclass
class Story:
    """What came of a schedule."""

    seed: int
    seconds: float  # of the schedule's clock
    counts: Counter[str]  # by KINDS


class Schedule:
    """One schedule. With a ``directory``, which is empty, its disks are real."""

    def __init__(
        self, seed: int, directory: Path | None = None, trace: Callable[[str], None] | None = None,
        without: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.seed, self.now, self.counts = seed, 0.0, Counter[str]()
        self.accepted: dict[tuple[str, str], int] = {}  # (device, round) of every receipt, and the rounds there were
        self.artifacts: list[bytes] = []
        self.dice = random.Random(seed)
        self._trace, self._acting = trace, SERVER
        self.job, devices = self._draw_job()
        self.faults = Faults.draw(self.dice)
        for kind in without:
            self.faults = self.faults.without(kind)
        self._names = {SERVER: SERVER, **{name: name for name in devices}}
        if self.faults.twin:
            self._names[f"{devices[0]}-twin"] = devices[0]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._nodes = {key: _Node(self._home(key, directory)) for key in self._names}
        self._broker = Broker(self, self._names, self._deliver)
        if trace:
            self.say(f"{self.job.federation} {self.faults}")

    def run(self) -> Story:
        """Play it to the end of its job. Raises AssertionError if a rule is broken."""
        for key in self._nodes:
            self.at(self.dice.uniform(0.0, 2.0), lambda key=key: self._start(key))  # type: ignore[misc]
        self._again(self.faults.restart_every, self._restart_broker)
        self._again(self.faults.deaf_every, self._deafen)
        self._again(self.faults.jump_every, self._jump)
        self._again(self.faults.kill_every, self._kill)
        if self.faults.twin:
            self.at(self.faults.until, lambda: self._remove(list(self._names)[-1]))
        events = 0
        try:
            while not self._done():
                events += 1
                if not self._events or self.now > LIMIT_S or events > LIMIT_EVENTS:
                    message = f"the job has not ended after {self.now:.0f} s and {events} events"
                    raise ScheduleError(message)
                self.now, _, act = heapq.heappop(self._events)
                act()
        finally:
            for node in self._nodes.values():
                if isinstance(node.machine, Server):
                    node.machine.close()
        checked = check(self.home, self.accepted, self.artifacts)
        self.counts.update(events=events, rounds=checked.rounds, late=checked.late)
        return Story(self.seed, self.now, self.counts)

    @property
    def home(self) -> Home:
        """The orchestrator's."""
        return self._nodes[SERVER].home

    def _home(self, key: str, directory: Path | None) -> Home:
        if directory is None:
            return Home.simulated(NOWHERE / key, lambda: self._wall_of(key), database=key == SERVER)
        return Home.real(directory / key)

    def _draw_job(self) -> tuple[Job, list[str]]:
        dice = self.dice
        names = [f"pi-{number}" for number in range(dice.choice([2, 3, 3, 4]))]
        kind = dice.choice(["refuse", "refuse", "fold", "buffered"])
        rounds = 2 if kind == "refuse" else dice.randint(3, 4)  # an update that is late needs a next round
        groups, goal, least = dice.choice([1, 1, 2]), dice.randint(1, len(names)), dice.randint(1, 2)
        federation = Federation(
            rounds=rounds, merge_rounds=max(1, rounds // 2), groups=groups, devices_per_round=goal,
            min_reports=min(least, goal), min_devices=least, deadline_s=30.0,
            late_updates="refuse" if kind == "refuse" else "fold",
            mode="buffered" if kind == "buffered" else "synchronous",
            over_selection=dice.choice([1.0, 1.3, 2.0]),
            max_staleness=dice.randint(2, 3), staleness_power=dice.choice([0.0, 0.5, 1.0]),
        )  # fmt: skip
        return job(federation), names

    def _done(self) -> bool:
        server = self._nodes[SERVER].machine
        if not isinstance(server, Server) or not server.done:
            return False
        server.close()
        self._nodes[SERVER].machine = None
        return True

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, act))

    def say(self, text: str) -> None:
        """Tell a step."""
        if self._trace:
            self._trace(f"{self.now:9.3f} {text}")

    @property
    def faulty(self) -> bool:
        """Whether things still go wrong."""
        return self.now < self.faults.until

    # ------------------------------------------------------------------ lives

    def _start(self, key: str) -> None:
        node, faults = self._nodes[key], self.faults
        if node.removed:
            return
        node.life += 1
        mean = faults.server_steps_to_death if key == SERVER else faults.steps_to_death
        node.steps_left = self.dice.expovariate(1.0 / mean) if self.faulty and mean < NEVER else INFINITY
        node.unsent, node.filed_at = [], 0.0
        self.say(f"{key} starts, life {node.life}")
        self._acting = key
        try:
            if key == SERVER:
                node.machine = Server(node.home, self.job, self, node.life)
            else:
                node.machine = Device(key, self._names[key], node.home, self, node.life, faults.room)
        except Crash:
            self._end(key)
            return
        self._connect(key, node.life)

    def _end(self, key: str) -> None:
        """The process is gone, with everything in its memory; and if its power was cut, with what was not synced."""
        node = self._nodes[key]
        self.counts["deaths"] += 1
        if isinstance(node.machine, Server):
            node.machine.close()
        self._cut(key)
        self._broker.leave(key)
        node.machine, node.wakes_at, node.unsent = None, INFINITY, None
        if self.dice.random() < self.faults.power and node.home.disk:
            self.counts["power cuts"] += 1
            self.say(f"{key} has no power")
            node.home.disk.cut_power(self.dice)
        self.at(self.now + self.dice.uniform(0.1, 8.0), lambda: self._start(key))

    def _remove(self, key: str) -> None:
        """Somebody noticed the second device of a name, and took it away for good."""
        self._cut(key)
        self._broker.leave(key)
        self._nodes[key] = _Node(self._nodes[key].home, removed=True)

    def _do(self, key: str, act: Callable[[Server | Device], None]) -> None:
        """Let something happen to a machine that may die of it, and wake it when it wants to be."""
        node = self._nodes[key]
        if node.machine is None:
            return
        self._acting = key
        try:
            act(node.machine)
        except Crash:
            self._end(key)
            return
        pause = self.faults.look_s if key == SERVER else LEAST_PAUSE_S
        when = max(node.machine.next_step, self.now + pause)
        if when < node.wakes_at:
            node.wakes_at = when
            self.at(when, lambda: self._wake(key, when))

    def _wake(self, key: str, when: float) -> None:
        node = self._nodes[key]
        if node.wakes_at == when:
            node.wakes_at = INFINITY
            self._do(key, _step)

    # ------------------------------------------------------------------ connections

    def _connect(self, key: str, life: int) -> None:
        node = self._nodes[key]
        if node.machine is None or node.life != life or self._broker.is_connected(key):
            return
        if other := self._broker.holder(key):  # two clients of one name: the later one takes the connection
            self.counts["takeovers"] += 1
            self._lose(other, self._nodes[other].connection)
        hand_over = self._broker.connect(key)
        node.connection += 1
        self.say(f"{key} is connected")
        unsent, node.unsent = node.unsent or [], []
        if self.faulty and self.faults.cut_every < NEVER:
            connection = node.connection
            self.at(self.now + self.dice.expovariate(1.0 / self.faults.cut_every), lambda: self._lose(key, connection))
        self._do(key, _hear_of_the_connection)
        for topic, payload, retain in unsent:
            self.publish(key, topic, payload, retain=retain)
        hand_over()

    def _lose(self, key: str, connection: int) -> None:
        """A connection ends; the machine goes on, and tries again."""
        node = self._nodes[key]
        if self._broker.is_connected(key) and node.connection == connection and self.faulty:
            self.counts["cuts"] += 1
            self._cut(key)
            life = node.life
            self.at(self.now + self.dice.uniform(0.1, 15.0), lambda: self._connect(key, life))

    def _cut(self, key: str, *, will: bool = True) -> None:
        if not self._broker.is_connected(key):
            return
        self._broker.disconnect(key)
        self.say(f"{key} is cut off")
        machine = self._nodes[key].machine
        if will and isinstance(machine, Device) and self.dice.random() < self.faults.will:
            last, topic = machine.last_will, TOPICS.status(self._names[key])
            self.at(
                self.now + self.dice.uniform(0.0, 10.0),
                lambda: self._broker.publish(topic, last, retain=True, chunk=False),
            )

    # ------------------------------------------------------------------ what goes wrong by the clock

    def _again(self, every: float, act: Callable[[], None]) -> None:
        """Let something go wrong again and again."""
        if every >= NEVER:
            return

        def happen() -> None:
            if self.faulty:
                act()
                self._again(every, act)

        self.at(self.now + self.dice.expovariate(1.0 / every), happen)

    def _restart_broker(self) -> None:
        self.counts["broker restarts"] += 1
        self.say("the broker begins anew")
        for key in self._broker.connected():
            self._lose(key, self._nodes[key].connection)
        if self.dice.random() < self.faults.forgets:
            self.say("the broker has lost what it kept")
            self._broker.forget()

    def _deafen(self) -> None:
        name = self.dice.choice(list(self._names.values()))
        self.say(f"nothing reaches {name} for {self.faults.deaf_s} s")
        self._broker.deafen(name, self.now + self.faults.deaf_s)

    def _jump(self) -> None:
        key = self.dice.choice(list(self._names))
        self.counts["clock jumps"] += 1
        self._nodes[key].wall = EPOCH + self.dice.choice([-YEAR_S, -3600.0, 3600.0, YEAR_S])
        self.say(f"the clock of {key} is set")

    def _kill(self) -> None:
        key = self.dice.choice(list(self._names))
        if self._nodes[key].machine is not None:
            self.say(f"{key} is killed")
            self._end(key)

    def _wall_of(self, key: str) -> float:
        return self._nodes[key].wall + self.now

    def wall(self) -> float:
        """The clock on the wall of the machine that is acting."""
        return self._wall_of(self._acting)

    # ------------------------------------------------------------------ messages

    def publish(self, key: str, topic: str, payload: bytes, *, retain: bool = False, chunk: bool = False) -> None:
        """Hand a message to the broker; without a connection a control message waits for the next one."""
        if key == SERVER and not chunk and b'"verdict":"accepted"' in payload:
            self._note_receipt(topic.split("/")[-2], _round_of(payload))
        if self._broker.is_connected(key):
            self._broker.publish(topic, payload, retain=retain, chunk=chunk)
        elif not chunk and (unsent := self._nodes[key].unsent) is not None:
            unsent.append((topic, payload, retain))

    def _note_receipt(self, device: str, round_id: str) -> None:
        server = self._nodes[SERVER].machine
        assert isinstance(server, Server)
        self.accepted.setdefault((device, round_id), server.rounds)

    def _deliver(self, key: str, topic: str, payload: bytes, retained: bool) -> None:
        if self._trace:
            shown = payload[:160] if payload[:1] == b"{" else f"piece {payload[16:24].hex()} of {payload[:4].hex()}"
            self.say(f"{key} < {topic[len(TOPICS.root) :]} {shown!r}")

        def hear(machine: Server | Device) -> None:
            if isinstance(machine, Server):
                machine.on_arrived(topic, payload, retained=retained)
            else:
                machine.on_arrived(topic, payload)

        self._do(key, hear)

    # ------------------------------------------------------------------ what the nodes call

    def may_die(self, key: str, where: str) -> None:
        """Raise Crash if the dice said so when this life began."""
        there = self._nodes[key]
        there.steps_left -= 1.0
        if there.steps_left <= 0.0 and self.faulty:
            self.say(f"{key} dies {where}")
            raise Crash

    def made(self, data: bytes) -> None:
        """Keep what the orchestrator made."""
        self.artifacts.append(data)

    def listen(self, key: str, topic: str, on: bool) -> None:
        """Subscribe to a broadcast topic, or leave it."""
        self._broker.listen(key, topic, on)

    def file(self, work: Work) -> None:
        """Let the orchestrator's clerk do this: beside its loop, so between any two events, and one after the other."""
        node = self._nodes[SERVER]
        life, slowest = node.life, self.faults.file_s if self.faulty else 0.0
        node.filed_at = max(node.filed_at, self.now) + self.dice.uniform(0.0, slowest)

        def do(_: Server | Device) -> None:
            self.may_die(SERVER, "before the clerk does its work")
            self.counts["filings"] += 1
            work()
            self.may_die(SERVER, "after the clerk has done its work")

        self.at(node.filed_at, lambda: self._do(SERVER, do) if node.life == life else None)

    def filed(self) -> None:
        """Let the orchestrator's loop hear of it in its turn."""
        life, busy = self._nodes[SERVER].life, self.dice.uniform(0.0, self.faults.look_s)

        def hear(machine: Server | Device) -> None:
            assert isinstance(machine, Server)
            machine.on_filed()

        self.at(self.now + busy, lambda: self._do(SERVER, hear) if self._nodes[SERVER].life == life else None)

    def work(self, key: str, number: int, plan: Plan) -> None:
        """Let a device's background thread begin."""
        node, dice, faults = self._nodes[key], self.dice, self.faults
        life = node.life
        reason = "the battery is empty" if self.faulty and dice.random() < faults.fails else ""
        seconds = dice.uniform(0.0, faults.work_s if self.faulty else 1.0)

        def finish(machine: Server | Device) -> None:
            assert isinstance(machine, Device)
            machine.on_worked(number, plan, reason)

        self.at(self.now + seconds, lambda: self._do(key, finish) if self._nodes[key].life == life else None)


def _step(machine: Server | Device) -> None:
    machine.step()


def _hear_of_the_connection(machine: Server | Device) -> None:
    machine.on_connected()


def _round_of(payload: bytes) -> str:
    return payload.partition(b'"round_id":"')[2].partition(b'"')[0].decode()
