"""Joules of a plan's work, by activity, above what the machine takes when idle.

A background thread asks each sensor every now and then; the energy between two readings is shared out over the
activities by the seconds that each ran between them. While no plan is worked on, the readings give the idle power: the
median of the last ones, which a burst of something else does not move. Work too short for a sensor, or during which it
failed, is estimated from the processor's seconds and marked so; the reason is told.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median

from device_runtime.host import SensorError
from device_runtime.power.estimate import Estimate
from device_runtime.power.sensor import Sensor, believable
from mas_edge.protocol.messages import Energy

log = logging.getLogger(__name__)

OTHER = "other"  # loading a program, packing an update: work between the activities
# Idle readings that the baseline is the median of, and the fewest that give one.
IDLE_KEPT, IDLE_LEAST = 31, 3
# While nothing is done: often at first, so that a baseline is there when the first plan has been fetched; then rarely.
IDLE_FIRST_S, IDLE_PERIOD_S = 0.4, 15.0
# A sensor that is asked more rarely than this takes seconds to answer: plans do not wait for it, its last word holds.
SLOW_S = 10.0
# A share of the work's seconds without readings that is filled in from the rest; beyond it the work is estimated.
MISSING_SHARE = 0.05
# What a counter can mean at most: eight processors of 500 W, sixteen graphics processors of 1 kW. Beyond it, it was
# set back (RAPL's is by a suspend, which looks like a wrap worth 262 kJ), or counts in another unit.
MOST_WATTS = {"board": 1000.0, "processor": 4000.0, "graphics": 16_000.0}
# Readings of a power sensor in a row that are the same to the last digit. The noise of a live one moves it: a chip in
# a Jetson steps by 8 mA, so that even a few equal ones are rare.
FROZEN = 60
# Characters of a report's source and problem; the orchestrator takes no more.
MAX_TEXT = 500


class _Track:
    """One sensor's readings: the joules between them, and what is idle."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self.problem = ""
        self._idle: deque[float] = deque(maxlen=IDLE_KEPT)
        self._last: tuple[float, float] | None = None  # when, and what was read
        self._asked, self._said = float("-inf"), ""  # when it was asked last, and what was wrong then
        self._held: float | None = None  # the last word of a slow sensor
        self._same: tuple[float, int] = (float("nan"), 0)  # what was read last, and how often in a row
        self.begin()

    def begin(self) -> None:
        """A plan's work begins."""
        self.joules: dict[str, float] = defaultdict(float)
        self.missing = 0.0  # seconds of the work without a reading
        self.problem = ""
        if self.sensor.kind == "watts":  # the reading before was of an idle machine
            self._last = None

    @property
    def idle_watts(self) -> float | None:
        """The median of the idle readings; None before there are enough."""
        return median(self._idle) if len(self._idle) >= IDLE_LEAST else None

    def watts(self, now: float) -> float | None:
        """The mean power since the reading before; None if it cannot be told."""
        if self.sensor.period_s > SLOW_S and now - self._asked < self.sensor.period_s / 2:
            self.problem = self._said
            return self._held
        self._asked, self._held = now, None
        try:
            self._held = self._ask(now)
        except SensorError as error:
            self.problem, self._last = str(error), None
        if self.problem != self._said and self.problem:
            log.warning("power: %s", self.problem)
        self._said = self.problem
        return self._held

    def _ask(self, now: float) -> float | None:
        value = self.sensor.read()
        last, self._last = self._last, (now, value)
        if self.sensor.kind == "watts":
            self._same = (value, self._same[1] + 1 if value == self._same[0] else 1)
            if self._same[1] > FROZEN:
                message = f"{self.sensor.source} stands still: {value:.6g} W for more than {FROZEN} readings in a row"
                raise SensorError(message)
            return value if last is None else (value + last[1]) / 2
        if last is None or now <= last[0]:
            return None
        if value < last[1] or (value == last[1] and now - last[0] >= self.sensor.needs_s):
            how = "stands still" if value == last[1] else "counts backwards"
            message = f"{self.sensor.source} {how}: {last[1]:.6g} J, and {value:.6g} J {now - last[0]:.2g} s later"
            raise SensorError(message)
        watts = (value - last[1]) / (now - last[0])
        return believable(watts, MOST_WATTS[self.sensor.covers], self.sensor.source) if watts else watts

    def rest(self, watts: float | None, seconds: float) -> None:
        """A reading of the machine after it was idle for ``seconds``; right after some work it is still busy."""
        if watts is not None and seconds >= IDLE_FIRST_S:
            self._idle.append(watts)

    def work(self, watts: float | None, shares: dict[str, float]) -> None:
        """A reading of the working machine; ``shares``: the seconds of each activity since the reading before."""
        if watts is None:
            self.missing += sum(shares.values())
            return
        above = watts - (self.idle_watts or 0.0)
        for activity, seconds in shares.items():
            self.joules[activity] += above * seconds


def cpu_seconds() -> float:
    """Of this process, and of those that it has started and that have ended: a new model is tried in one of its own."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


class Meter:
    """The energy of this process's work; ``during`` is called by the one thread that works.

    ``clock`` in seconds; ``cpu``: the CPU seconds that were taken. Without ``start``, ``tick`` is to be called.
    """

    def __init__(
        self, sensors: list[Sensor], estimate: Estimate | None, *,
        clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = cpu_seconds,
    ) -> None:  # fmt: skip
        self._tracks = [_Track(sensor) for sensor in sensors]
        self._estimate = estimate
        self._clock, self._cpu = clock, cpu
        self._lock = threading.Lock()
        self._working = False
        self._ticked = clock()
        self._since: dict[str, float] = defaultdict(float)  # seconds by activity since the last tick
        self._open: tuple[str, float, float] | None = None  # the activity that runs: since when, and its CPU begin
        self._cpu_seconds: dict[str, float] = defaultdict(float)
        self._began = self._cpu_began = 0.0
        self._wake = threading.Event()
        self._rested = 0

    def start(self) -> None:
        """Read the sensors in the background for as long as the process lives."""
        if self._tracks:
            threading.Thread(target=self._watch, name="power", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._wake.wait(self.period_s)
            self._wake.clear()
            self.tick()

    @property
    def period_s(self) -> float:
        """How long to wait until the next tick."""
        own = min((track.sensor.period_s for track in self._tracks), default=IDLE_PERIOD_S)
        if self._working:
            return own
        return max(own, IDLE_FIRST_S if self._rested <= IDLE_LEAST else IDLE_PERIOD_S)

    def tick(self) -> None:
        """Read every sensor, and count what has flowed since the last time."""
        with self._lock:
            now = self._clock()
            shares = self._shares(now)
            for track in self._tracks:
                watts = track.watts(now)
                if self._working:
                    track.work(watts, shares)
                else:
                    track.rest(watts, now - self._ticked)
            self._rested = 0 if self._working else self._rested + 1
            self._ticked = now

    def _shares(self, now: float) -> dict[str, float]:
        """The seconds of each activity since the last tick; they add up to the time between."""
        shares, self._since = self._since, defaultdict(float)
        if self._open is not None:
            shares[self._open[0]] += now - max(self._open[1], self._ticked)
        shares[OTHER] += max(0.0, now - self._ticked - sum(shares.values()))
        return dict(shares)

    def begin(self) -> None:
        """A plan's work begins."""
        self.tick()  # the energy until now was not the work's
        with self._lock:
            self._working = True
            self._began, self._cpu_began = self._ticked, self._cpu()
            self._cpu_seconds = defaultdict(float)
            for track in self._tracks:
                track.begin()
        self._wake.set()

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """What runs inside counts for ``activity``. Not to be nested."""
        with self._lock:
            self._open = (activity, self._clock(), self._cpu())
        try:
            yield
        finally:
            with self._lock:
                if self._open is not None:
                    self._since[activity] += self._clock() - max(self._open[1], self._ticked)
                    self._cpu_seconds[activity] += self._cpu() - self._open[2]
                self._open = None

    def end(self) -> Energy | None:
        """The work is done: what it took since ``begin``. None if nothing measures and nothing may be estimated."""
        self.tick()
        with self._lock:
            self._working = False
            return self._taken()

    def spent(self) -> float:
        """Joules of the work that goes on, as of the last tick; 0 while there is none."""
        with self._lock:
            taken = self._taken() if self._working else None
        return sum(taken.joules.values()) if taken else 0.0

    def _taken(self) -> Energy | None:
        cpu = self._cpu() - self._cpu_began
        spent = {**self._cpu_seconds, OTHER: max(0.0, cpu - sum(self._cpu_seconds.values()))}
        return _energy(self._tracks, self._estimate, self._ticked - self._began, spent)


def _energy(tracks: list[_Track], estimate: Estimate | None, seconds: float, cpu: dict[str, float]) -> Energy | None:
    problems = [problem for track in tracks if (problem := _why_not(track, seconds))]
    told = [track.problem for track in tracks if track.problem]  # also of those that could be used all the same
    used = [track for track in tracks if not _why_not(track, seconds)]
    joules: dict[str, float] = defaultdict(float)
    for track in used:
        whole = seconds / (seconds - track.missing)  # the few seconds without a reading were like the rest
        for activity, value in track.joules.items():
            joules[activity] += max(0.0, value * whole)
    sources = [track.sensor.source for track in used]
    idle = [track.idle_watts for track in used]
    quality, error = "measured", 0.0
    if not any(track.sensor.covers in ("board", "processor") for track in used) and estimate is not None:
        guessed = {activity: estimate.watts_per_core * spent for activity, spent in cpu.items()}
        for activity, value in guessed.items():
            joules[activity] += value
        error = estimate.error * sum(guessed.values()) / (sum(joules.values()) or 1.0)
        quality, sources = "estimated", [*sources, estimate.source]
    if not sources:
        return Energy(quality="none", problem=_told(problems)) if problems else None
    known = [watts for watts in idle if watts is not None]
    return Energy(
        joules=dict(joules), quality="estimated" if quality == "estimated" else "measured",
        source=_told(sources, " + "), error=error,
        idle_watts=sum(known) if known and len(known) == len(idle) else None,
        problem=_told(problems + told),
    )  # fmt: skip


def _why_not(track: _Track, seconds: float) -> str:
    """Why a sensor's readings of some work do not count; empty if they do."""
    sensor = track.sensor
    if seconds < sensor.needs_s:
        return f"{sensor.source}: {seconds:.2g} s of work is too short for it, it needs {sensor.needs_s:g} s"
    if track.missing > MISSING_SHARE * seconds:
        return track.problem or f"{sensor.source} gave no reading for {track.missing:.2g} of {seconds:.2g} s"
    if not any(track.joules.values()):
        return f"{sensor.source} stands still: it shows nothing of the work"
    return ""


def _told(texts: Iterable[str], by: str = "; ") -> str:
    """Each of them once, in one line that a report may hold; what drivers say may be anything."""
    line = by.join(dict.fromkeys(texts))
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:MAX_TEXT]
