"""Killing each process of a job at random moments, and starting it again, until the job is done.

A kill waits for a number of messages to pass, then a moment longer: most of a job is waiting, and what is worth being
killed in is around the messages. What is drawn from a seed is who is killed after how many messages; when exactly the
signal hits an instruction is up to the machine, so that a seed repeats a kind of run and not every nanosecond of it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from device_runtime.edge.backoff import LAST_DELAY_S
from mas_edge.chaos import bounds
from mas_edge.chaos.fleet import ORCHESTRATOR, Ground, MortalFleet
from mas_edge.chaos.invariants import Verdict, check_run
from mas_edge.chaos.nursery import Nursery
from mas_edge.chaos.proxy import KINDS, CutOff, Faults, Proxy
from mas_edge.chaos.witness import Witness
from mas_edge.job import Job
from mas_edge.orchestrator.broker import ManagedBroker

BROKER = "broker"
# Without a report that is accepted, a round that is done or a step of the job, and beside the deadline of a round: an
# export takes seconds, on a machine that does ten other things a minute.
PATIENCE_S = 150.0
LOOK_S = 2.0  # between two looks at how far the job is
REPORTS = 12  # that the small job of the tests trains: kills come at its pace, and slower where there are more
TICK_S = 0.05
NO_BROKER = (
    5  # the exit code of an orchestrator that was started while the broker was down: its service unit tries again
)


@dataclass(frozen=True)
class Kill:
    """SIGKILL for ``victim`` when ``messages`` have passed since the last kill, and ``delay_s`` later.

    A phase without messages (an export) is cut after ``at_most_s``. ``down_s`` later the victim is started again.
    """

    victim: str
    messages: int
    delay_s: float
    at_most_s: float
    down_s: float


def pace_of(job: Job) -> float:
    """How many times as long as the small job of the tests a job takes, in reports; at least 1."""
    rounds, merged = job.federation.rounds, job.federation.most_merge_rounds
    groups = job.federation.groups if isinstance(job.federation.groups, int) else len(job.tasks)
    return max(1.0, (merged + (rounds - merged) * groups) * job.federation.devices_per_round / REPORTS)


def draw_kills(seed: int, names: Sequence[str], count: int, pace: float = 1.0) -> list[Kill]:
    """The kills of one run: half of them the orchestrator's or the broker's, which are there only once.

    ``pace``: how many times as long as a small job this one takes, see ``pace_of``.
    """
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    weights = [2.0 if name in (ORCHESTRATOR, BROKER) else 1.0 for name in names]
    return [
        Kill(
            draw.choices(names, weights)[0],
            messages=int(pace * draw.randrange(40)),  # of the some 150 that a small job takes
            delay_s=draw.choice((0.0, 0.003, 0.03, 0.3)) * draw.random(),  # from the same instant to another step
            at_most_s=pace * (0.3 + 3 * draw.random()),
            down_s=draw.random(),
        )
        for _ in range(count)
    ]


class Recovery(NamedTuple):
    """Seconds from a fault (of a process: from being started again) until its victim was heard of again.

    ``bound_s``: the most that it should have been, see ``mas_edge.chaos.bounds``.
    """

    kind: str
    seconds: float
    bound_s: float


@dataclass
class Run:
    """One job that was done with, and what was found."""

    seed: int
    verdict: Verdict
    seconds: float
    kills: list[str] = field(default_factory=list)  # those that hit, in order
    faults: dict[str, int] = field(default_factory=dict)  # of the proxy, by kind
    recoveries: list[Recovery] = field(default_factory=list)

    @property
    def line(self) -> str:
        """One line for people."""
        found = self.verdict
        text = f"seed {self.seed}: {len(self.kills)} kills ({', '.join(self.kills)}) in {self.seconds:.1f} s; "
        if self.faults:
            text += f"packets: {', '.join(f'{count} {kind}' for kind, count in sorted(self.faults.items()))}; "
        text += f"{found.updates} updates, {found.refolded} rounds folded again, {found.retrained} trainings repeated"
        return text + "".join(f"\n  PROBLEM: {problem}" for problem in found.problems)


def kill_anywhere(
    ground: Ground, nursery: Nursery, directory: Path, seed: int, count: int = 6, faults: Faults | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Run:  # fmt: skip
    """Run the job below ``directory`` with ``count`` kills drawn from ``seed``, and hold it to the invariants.

    With ``faults`` every process reaches the broker through a proxy that spoils packets, by the same seed. ``told``
    hears of each kill.
    """
    directory.mkdir(parents=True)
    began = time.monotonic()
    with (
        ManagedBroker(directory) as broker,
        Proxy(broker.url, faults or Faults(), seed) as proxy,
        MortalFleet(ground, nursery, directory, {"": proxy.url if faults else broker.url}) as fleet,
        Witness(broker.url, ground.job.fleet) as witness,
    ):
        ground.furnish(directory)
        fleet.start_all()
        reaper = Reaper(fleet, broker, witness, told)
        kills = draw_kills(seed, (BROKER, *fleet.names), count, pace_of(ground.job))
        problems = reaper.work(kills, PATIENCE_S + ground.job.federation.deadline_s)
        fleet.kill_all()
        verdict = check_run(fleet, witness)
    verdict.problems[:0] = problems
    recoveries = [*reaper.recoveries(), *(_of_cut(cut) for cut in proxy.recoveries)]
    spoilt = {kind: proxy.counts[kind] for kind in KINDS if proxy.counts[kind]}
    return Run(seed, verdict, time.monotonic() - began, reaper.hit, spoilt, recoveries)


def _of_cut(cut: CutOff) -> Recovery:
    """A client that finds the broker away waits for other reasons, one re-connect interval at most when it is back."""
    if cut.broker_away:
        return Recovery("connection cut, broker away", cut.seconds, bounds.after_cut(cut.longest_s + LAST_DELAY_S))
    return Recovery("connection cut", cut.seconds, bounds.after_cut(cut.longest_s))


class Mortal(Protocol):
    """A broker that is started again when it dies."""

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        ...


class Reaper:
    """Kills and starts again, until the orchestrator has ended with a finished job."""

    def __init__(
        self, fleet: MortalFleet, broker: Mortal, witness: Witness, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self.hit: list[str] = []
        self._fleet = fleet
        self._broker = broker
        self._witness = witness
        self._told = told
        self._back: dict[str, float] = {}  # by victim, when it is started again
        self._returned: list[tuple[str, float]] = []  # who was started again, and when; the broker when it was killed

    def work(self, kills: Sequence[Kill], patience_s: float = PATIENCE_S) -> list[str]:
        """Carry out the kills, then wait for the end of the job; returns what went wrong, in words.

        A job that gets no further for ``patience_s`` is given up.
        """
        for kill in kills:
            heard, until = self._witness.count, time.monotonic() + kill.at_most_s
            self._pass(partial(self._heard, heard + kill.messages), until)
            self._pass(lambda: False, time.monotonic() + kill.delay_s)
            if self._done():
                return []
            self._kill(kill)
        reached, since = self._reached(), time.monotonic()
        while time.monotonic() < since + patience_s:
            self._pass(self._done, time.monotonic() + LOOK_S)
            if self._done():
                return []
            if (now_at := self._reached()) != reached:
                reached, since = now_at, time.monotonic()
        words = "; ".join(f"{name}: {self._fleet.last_line(name)}" for name in self._fleet.names)
        phase = f"it stands at {reached[0]}" if reached[0] else "it has not begun"
        return [f"no further for {patience_s:g} s, {phase}; {words}"]

    def _reached(self) -> tuple[str, int, int]:
        """How far the job is; rounds that were abandoned are not further."""
        snapshot = self._fleet.snapshot()
        done = sum(record.outcome == "complete" for record in snapshot.rounds) if snapshot else 0
        return snapshot.phase if snapshot else "", done, len(self._witness.accepted)

    def recoveries(self) -> list[Recovery]:
        """How long each victim was not heard of after it had been started again."""
        found, deaths = [], 0
        for victim, since in self._returned:
            deaths += victim == BROKER
            first = self._first_word(victim, since)
            if first is not None:
                kind = victim if victim in (BROKER, ORCHESTRATOR) else "device"
                bound = bounds.after_broker(deaths) if victim == BROKER else self._bound(victim, since, first)
                found.append(Recovery(f"{kind} killed", first - since, bound))
        return found

    def _first_word(self, victim: str, since: float) -> float | None:
        """When it was heard; the broker is when it carries anybody's message."""
        return self._witness.first_word({BROKER: None, ORCHESTRATOR: ""}.get(victim, victim), since)

    def _bound(self, victim: str, since: float, heard: float) -> float:
        """As long as its first start took, and one interval; a broker that was killed at that time comes on top."""
        began = self._fleet.first_started[victim]
        first = self._first_word(victim, began)
        bound = bounds.after_start(0.0 if first is None else first - began)
        killed = [at for name, at in self._returned if name == BROKER]
        overlapping = [n for n, at in enumerate(killed, 1) if at < heard and at + bounds.after_broker(n) > since]
        return bound + sum(bounds.after_broker(n) for n in overlapping)

    def _heard(self, count: int) -> bool:
        return self._witness.count >= count

    def _done(self) -> bool:
        return ORCHESTRATOR not in self._back and self._fleet.code(ORCHESTRATOR) == 0

    def _kill(self, kill: Kill) -> None:
        if kill.victim == BROKER:
            if (pid := self._broker.pid) is not None:
                os.kill(pid, signal.SIGKILL)  # its supervisor starts it again
                self._returned.append((BROKER, time.monotonic()))
                self._note(BROKER)
        elif self._fleet.alive(kill.victim):
            self._fleet.kill(kill.victim)
            self._back[kill.victim] = time.monotonic() + kill.down_s
            self._note(kill.victim)

    def _note(self, victim: str) -> None:
        self.hit.append(victim)
        self._told(f"killed {victim}")

    def _pass(self, condition: Callable[[], bool], until: float) -> None:
        """Let time pass until a condition holds, start again who is due, and see that nobody ended by himself."""
        while not condition() and not self._done() and (now := time.monotonic()) < until:
            for name in [name for name, due in self._back.items() if now >= due]:
                del self._back[name]
                self._returned.append((name, now))
                self._fleet.start(name)
            if ORCHESTRATOR not in self._back and self._fleet.code(ORCHESTRATOR) == NO_BROKER:
                self._back[ORCHESTRATOR] = now + 1.0  # as a service unit does
            self._fleet.check(set(self._back))
            self._witness.wait(condition, min(TICK_S, until - now))
