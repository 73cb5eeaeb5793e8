"""Whole jobs on one seeded scheduler that owns the network, the clock and every death.

    python -m tests.faults.schedules --count 1000            # seeds 0 to 999
    python -m tests.faults.schedules --seed 17 --trace       # one of them, told step by step
    python -m tests.faults.schedules --seed 17 --shrink      # which of its faults it takes to fail

A schedule draws its fleet, its job and its faults from its seed: messages and pieces that are lost, late, doubled,
damaged or overtaken; connections that end with and without a last will; a broker that forgets sessions; processes that
die before or after anything becomes durable. At some moment the faults end, and the job has to end as well. What must
hold then is in ``schedule_rules``. The same seed gives the same schedule on every machine.
"""

from __future__ import annotations

import argparse
import heapq
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mas_edge.job import Job
from mas_edge.protocol.messages import Plan
from tests.faults.schedule_nodes import TOPICS, Crash, Device, Server, job
from tests.faults.schedule_rules import check

LIMIT_S = 3600.0  # seconds of the schedule's clock in which a job without faults has ended a hundred times
LIMIT_EVENTS = 300_000  # a schedule has some thousands; more is a machine that talks to itself
LEAST_PAUSE_S = 0.001  # between two looks at the clock of one machine
NEVER = 1e9  # seconds or steps: longer than any schedule
SERVER = Server.NAME


class ScheduleError(AssertionError):
    """A schedule broke a rule; the message tells how to see it again."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong until ``until``; the shares are of messages, the pauses in seconds."""

    until: float
    drop: float
    double: float
    damage: float  # of pieces
    slow: float  # messages that take up to ``late`` seconds, and are overtaken
    late: float
    cut_every: float  # a connection ends
    will: float  # of the ends of connections: those whose last will arrives
    keeps_session: bool
    steps_to_death: float  # durable steps of a device, in the mean
    server_steps_to_death: float
    fails: float  # of the plans that a device works on
    work_s: float

    @classmethod
    def draw(cls, dice: random.Random) -> Faults:
        """Most schedules have most faults in a small dose, and some have none of a kind."""

        def some(least: float, most: float, never: float) -> float:
            return never if dice.random() < 0.3 else dice.uniform(least, most)

        return cls(
            until=dice.uniform(10.0, 90.0), drop=some(0.0, 0.2, 0.0), double=some(0.0, 0.2, 0.0),
            damage=some(0.0, 0.05, 0.0), slow=some(0.0, 0.3, 0.0), late=dice.choice([0.2, 2.0, 20.0]),
            cut_every=some(3.0, 60.0, NEVER), will=dice.choice([0.0, 0.5, 1.0]), keeps_session=dice.random() < 0.5,
            steps_to_death=some(20.0, 400.0, NEVER), server_steps_to_death=some(20.0, 400.0, NEVER),
            fails=some(0.0, 0.1, 0.0), work_s=dice.choice([0.1, 1.0, 10.0]),
        )  # fmt: skip


# Of each kind of fault: what stands for none of it.
NO_FAULTS: dict[str, dict[str, Any]] = {
    "drop": {"drop": 0.0}, "double": {"double": 0.0}, "damage": {"damage": 0.0}, "slow": {"slow": 0.0},
    "cut": {"cut_every": NEVER}, "will": {"will": 0.0}, "device deaths": {"steps_to_death": NEVER},
    "server deaths": {"server_steps_to_death": NEVER}, "fails": {"fails": 0.0},
}  # fmt: skip


@dataclass
class _Node:
    machine: Server | Device | None = None
    life: int = 0
    connected: bool = False
    connection: int = 0  # a number for each, so that the end of an old one does not end a new one
    wakes_at: float = float("inf")
    steps_left: float = float("inf")
    waiting: list[tuple[str, bytes]] = field(default_factory=list)  # what the broker keeps for its session
    unsent: list[tuple[str, bytes, bool]] = field(default_factory=list)  # what it says while it is not connected


@dataclass
class Story:
    """What came of a schedule."""

    seed: int
    events: int
    seconds: float  # of the schedule's clock
    deaths: int
    cuts: int
    rounds: int


class Schedule:
    """One schedule in ``directory``, which is empty."""

    def __init__(
        self, seed: int, directory: Path, trace: Callable[[str], None] | None = None, without: Collection[str] = ()
    ) -> None:
        self.seed, self.now, self.deaths, self.cuts = seed, 0.0, 0, 0
        self.accepted: set[tuple[str, str]] = set()  # (device, round) of every receipt that was said
        self.artifacts: list[bytes] = []
        self._dice = random.Random(seed)
        self._directory, self._trace = directory, trace
        self.job, names = self._draw_job()
        self._faults = Faults.draw(self._dice)
        for kind in without:
            self._faults = replace(self._faults, **NO_FAULTS[kind])
        self._cache = self._dice.choice([8_000, 1_000_000])  # bytes that a device keeps: two networks, or everything
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._nodes = {name: _Node() for name in [SERVER, *names]}
        self._retained: dict[str, bytes] = {}
        self._listeners: dict[str, set[str]] = defaultdict(set)
        self._say(f"{self.job.federation} {self._faults}")

    def run(self) -> Story:
        """Play it to the end of its job. Raises ScheduleError if a rule is broken."""
        for name in self._nodes:
            self._at(self._dice.uniform(0.0, 2.0), lambda name=name: self._start(name))  # type: ignore[misc]
        events = 0
        try:
            while not self._done():
                events += 1
                if not self._events or self.now > LIMIT_S or events > LIMIT_EVENTS:
                    message = f"the job has not ended after {self.now:.0f} s and {events} events"
                    raise ScheduleError(message)
                self.now, _, act = heapq.heappop(self._events)
                act()
            rounds = check(self._directory / SERVER, self.accepted, self.artifacts)
        finally:
            for node in self._nodes.values():
                if isinstance(node.machine, Server):
                    node.machine.close()
        return Story(self.seed, events, self.now, self.deaths, self.cuts, rounds)

    def _draw_job(self) -> tuple[Job, list[str]]:
        dice = self._dice
        names = [f"pi-{number}" for number in range(dice.randint(3, 5))]
        made = job(dice.randint(2, 4), dice.randint(1, 2), dice.randint(2, len(names)), dice.randint(1, 2))
        return made, names

    def _done(self) -> bool:
        server = self._nodes[SERVER].machine
        if not isinstance(server, Server) or not server.done:
            return False
        server.close()
        self._nodes[SERVER].machine = None
        return True

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, act))

    def _say(self, text: str) -> None:
        if self._trace:
            self._trace(f"{self.now:9.3f} {text}")

    @property
    def _faulty(self) -> bool:
        return self.now < self._faults.until

    # ------------------------------------------------------------------ lives

    def _start(self, name: str) -> None:
        node, faults = self._nodes[name], self._faults
        node.life += 1
        mean = faults.server_steps_to_death if name == SERVER else faults.steps_to_death
        node.steps_left = self._dice.expovariate(1.0 / mean) if self._faulty else float("inf")
        self._say(f"{name} starts, life {node.life}")
        try:
            if name == SERVER:
                node.machine = Server(self._directory / name, self.job, self, node.life)
            else:
                node.machine = Device(name, self._directory / name, self, node.life, self._cache)
        except Crash:
            self._end(name)
            return
        self._connect(name, node.life)

    def _end(self, name: str) -> None:
        """The process is gone, with everything in its memory."""
        node = self._nodes[name]
        self.deaths += 1
        if isinstance(node.machine, Server):
            node.machine.close()
        self._cut(name)
        node.machine, node.wakes_at = None, float("inf")
        node.unsent.clear()
        self._at(self.now + self._dice.uniform(0.1, 8.0), lambda: self._start(name))

    def _do(self, name: str, act: Callable[[Server | Device], None]) -> None:
        """Let something happen to a machine that may die of it, and wake it when it wants to be."""
        node = self._nodes[name]
        if node.machine is None:
            return
        try:
            act(node.machine)
        except Crash:
            self._end(name)
            return
        when = max(node.machine.next_step, self.now + LEAST_PAUSE_S)
        if when < node.wakes_at:
            node.wakes_at = when
            self._at(when, lambda: self._wake(name, when))

    def _wake(self, name: str, when: float) -> None:
        if self._nodes[name].wakes_at == when:
            self._nodes[name].wakes_at = float("inf")
            self._do(name, lambda machine: machine.step())

    # ------------------------------------------------------------------ the broker

    def _connect(self, name: str, life: int) -> None:
        node = self._nodes[name]
        if node.machine is None or node.life != life or node.connected:
            return
        node.connected = True
        node.connection += 1
        self._say(f"{name} is connected")
        waiting, node.waiting = node.waiting, []
        unsent, node.unsent = node.unsent, []
        if self._faulty and self._faults.cut_every < NEVER:
            connection = node.connection
            self._at(
                self.now + self._dice.expovariate(1.0 / self._faults.cut_every), lambda: self._lose(name, connection)
            )
        self._do(name, lambda machine: machine.on_connected())
        for topic, payload, retain in unsent:
            self.publish(name, topic, payload, retain=retain)
        if name == SERVER:
            for topic, payload in list(self._retained.items()):
                self._deliver(name, topic, payload, retained=True)
        for topic, payload in waiting if self._faults.keeps_session else ():
            self._deliver(name, topic, payload)

    def _lose(self, name: str, connection: int) -> None:
        """A connection ends; the machine goes on, and tries again."""
        node = self._nodes[name]
        if node.connected and node.connection == connection and self._faulty:
            self.cuts += 1
            self._cut(name)
            life = node.life
            self._at(self.now + self._dice.uniform(0.1, 15.0), lambda: self._connect(name, life))

    def _cut(self, name: str) -> None:
        node = self._nodes[name]
        if not node.connected:
            return
        node.connected = False
        self._say(f"{name} is cut off")
        if isinstance(node.machine, Device) and self._dice.random() < self._faults.will:
            will, topic = node.machine.last_will, TOPICS.status(name)
            self._at(self.now + self._dice.uniform(0.0, 10.0), lambda: self._publish_will(topic, will))
        for listeners in self._listeners.values():
            listeners.discard(name)

    def _publish_will(self, topic: str, will: bytes) -> None:
        self._retained[topic] = will
        self._send(SERVER, topic, will, chunk=False)

    def publish(self, sender: str, topic: str, payload: bytes, *, retain: bool = False, chunk: bool = False) -> None:
        """Hand a message to the broker; without a connection a control message waits for the next one."""
        node = self._nodes[sender]
        if sender == SERVER and b'"verdict":"accepted"' in payload and not chunk:
            self.accepted.add((topic.split("/")[-2], _round_of(payload)))
        if not node.connected:
            if not chunk:
                node.unsent.append((topic, payload, retain))
            return
        if retain:
            self._retained[topic] = payload
        for receiver in self._receivers(topic):
            self._send(receiver, topic, payload, chunk=chunk)

    def listen(self, device: str, topic: str, on: bool) -> None:
        """Subscribe to a broadcast topic, or leave it."""
        (self._listeners[topic].add if on else self._listeners[topic].discard)(device)

    def _receivers(self, topic: str) -> list[str]:
        if topic in self._listeners:
            return sorted(self._listeners[topic])
        if topic == TOPICS.command_all:
            return [name for name in self._nodes if name != SERVER]
        *_, device, leaf = topic.split("/")
        return [device] if leaf in ("cmd", "chunk") else [SERVER] if leaf in ("rsp", "up", "birth", "status") else []

    def _send(self, receiver: str, topic: str, payload: bytes, *, chunk: bool) -> None:
        dice, faults = self._dice, self._faults
        copies = 1
        if self._faulty:
            copies = 0 if dice.random() < faults.drop else 2 if dice.random() < faults.double else 1
            if chunk and dice.random() < faults.damage:
                payload = _damaged(payload, dice)
        for _ in range(copies):
            delay = dice.uniform(0.001, 0.02)
            if self._faulty and dice.random() < faults.slow:
                delay = dice.uniform(0.0, faults.late)
            self._at(self.now + delay, lambda: self._arrive(receiver, topic, payload, chunk=chunk))

    def _arrive(self, receiver: str, topic: str, payload: bytes, *, chunk: bool) -> None:
        node = self._nodes[receiver]
        if node.connected:
            self._deliver(receiver, topic, payload)
        elif not chunk:
            node.waiting.append((topic, payload))

    def _deliver(self, receiver: str, topic: str, payload: bytes, *, retained: bool = False) -> None:
        if self._trace:
            shown = payload[:160] if payload[:1] == b"{" else f"piece {payload[16:24].hex()} of {payload[:4].hex()}"
            self._say(f"{receiver} < {topic[len(TOPICS.root) :]} {shown!r}")

        def hear(machine: Server | Device) -> None:
            if isinstance(machine, Server):
                machine.on_arrived(topic, payload, retained=retained)
            else:
                machine.on_arrived(topic, payload)

        self._do(receiver, hear)

    # ------------------------------------------------------------------ what the nodes call

    def may_die(self, node: str, where: str) -> None:
        """Raise Crash if the dice said so when this life began."""
        there = self._nodes[node]
        there.steps_left -= 1.0
        if there.steps_left <= 0.0 and self._faulty:
            self._say(f"{node} dies {where}")
            raise Crash

    def made(self, data: bytes) -> None:
        """Keep what the orchestrator made."""
        self.artifacts.append(data)

    def work(self, device: str, number: int, plan: Plan) -> None:
        """Let a device's background thread begin."""
        node, dice, faults = self._nodes[device], self._dice, self._faults
        life = node.life
        reason = "the battery is empty" if self._faulty and dice.random() < faults.fails else ""
        seconds = dice.uniform(0.0, faults.work_s if self._faulty else 1.0)

        def finish(machine: Server | Device) -> None:
            assert isinstance(machine, Device)
            machine.on_worked(number, plan, reason)

        self._at(self.now + seconds, lambda: self._do(device, finish) if node.life == life else None)


def _round_of(payload: bytes) -> str:
    return payload.partition(b'"round_id":"')[2].partition(b'"')[0].decode()


def _damaged(payload: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(payload))
    return payload[:place] + bytes([payload[place] ^ 1 << dice.randrange(8)]) + payload[place + 1 :]


@contextmanager
def _memory_directory() -> Iterator[Path]:
    """An empty directory in memory where there is one: nothing here is about a power cut."""
    shm = Path("/dev/shm")
    root = tempfile.mkdtemp(prefix="schedule-", dir=shm if os.access(shm, os.W_OK) else None)
    try:
        yield Path(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def play(seed: int, trace: Callable[[str], None] | None = None, without: Collection[str] = ()) -> Story:
    """Play one schedule, without some of its faults. Raises ScheduleError, with the seed, if a rule is broken."""
    with _memory_directory() as directory:
        try:
            return Schedule(seed, directory, trace, without).run()
        except Exception as error:
            message = (
                f"schedule {seed} failed: {type(error).__name__}: {error}\n"
                f"see it again, step by step: python -m tests.faults.schedules --seed {seed} --trace"
            )
            raise ScheduleError(message) from error


def shrink(seed: int) -> list[str]:
    """The kinds of faults that a failing schedule needs to fail; it passes without any one of them."""
    needed = list(NO_FAULTS)
    for kind in NO_FAULTS:
        fewer = [each for each in needed if each != kind]
        try:
            play(seed, without=[each for each in NO_FAULTS if each not in fewer])
        except ScheduleError:
            needed = fewer
    return needed


def main() -> int:
    """Play schedules and tell how fast."""
    parser = argparse.ArgumentParser(description="Whole jobs on one seeded scheduler.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="tell every step")
    parser.add_argument("--shrink", action="store_true", help="tell which faults the seed needs to fail")
    args = parser.parse_args()
    if args.shrink:
        print(f"schedule {args.seed} fails with: {', '.join(shrink(args.seed))}")
        return 0
    logging.disable(logging.CRITICAL)
    failed, events, deaths, cuts, rounds = [], 0, 0, 0, 0
    began, cpu = time.perf_counter(), time.process_time()
    for seed in range(args.seed, args.seed + args.count):
        try:
            story = play(seed, print if args.trace else None)
        except ScheduleError as error:
            failed.append(seed)
            print(error, file=sys.stderr)
            continue
        events, deaths, cuts = events + story.events, deaths + story.deaths, cuts + story.cuts
        rounds += story.rounds
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{args.count} schedules, {rounds} rounds, {events} events, {deaths} deaths, {cuts} cut connections: "
        f"{60 * args.count / wall:.0f} a minute, {60 * args.count / cpu:.0f} a minute of processor time"
    )
    if failed:
        print(f"FAILED: {' '.join(map(str, failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
