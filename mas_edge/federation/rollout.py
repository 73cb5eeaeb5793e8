"""A staged deployment as a state machine without I/O: who gets the new models when, and when that has to stop.

    running -> (a stage's devices are healthy for the soak time) next stage ... -> complete
            -> (more than ``halt_on`` of them fail) halted -> running, aborted
    paused <-> running;  any -> rolling_back -> rolled_back: every device returns to its last good models

A device's place in the fleet is a number from 0 to 1 made of the seed and its name. A stage takes those up to a cut:
the draws are the same on every run, each stage holds those before it, and a device that comes back after weeks belongs
to the stage it always belonged to. What is stored is enough to go on; a soak or a wait that a restart has interrupted
begins anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from mas_edge.federation.rounds import PLAN_REPEAT_MAX_S, PLAN_REPEAT_S
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.limits import one_line

# A device that refused a plan for a reason of its own (its owner's rules, a full disk) is asked again this much later.
ASK_AGAIN_S = 60.0
_UNITS = 2**53  # the numbers from 0 to 1 that a float holds evenly

Mode = Literal["running", "paused", "halted", "complete", "aborted", "rolling_back", "rolled_back"]
Verb = Literal["pause", "resume", "abort", "rollback"]
Stage = Literal["told", "healthy", "failed", "excused", "returned"]
Share = Annotated[float, Meta(gt=0, le=1)]
Number = Annotated[float, Meta(ge=0, le=1e9)]

_ALLOWED: dict[Verb, tuple[tuple[Mode, ...], Mode]] = {
    "pause": (("running",), "paused"),
    "resume": (("paused", "halted"), "running"),
    "abort": (("running", "paused", "halted", "rolling_back"), "aborted"),
    "rollback": (("running", "paused", "halted", "complete", "aborted"), "rolling_back"),
}


class RolloutSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator asks for."""

    shares: Annotated[list[Share], Meta(min_length=1, max_length=100)]  # of the devices, growing
    halt_on: Annotated[float, Meta(ge=0, lt=1)] = 0.05  # the share of a stage's devices that may fail
    soak_s: Number = 60.0  # how long a stage's devices are healthy before the next one begins
    answer_s: Number = 600.0  # a device that was told and is silent for so long has failed
    seed: Annotated[int, Meta(ge=-_UNITS, le=_UNITS)] = 0  # a whole number in every client
    max_latency_s: Number = 5.0  # the health check's bounds: see ``mas_edge.protocol.messages.HealthCheck``
    max_slowdown: Number = 0.0
    max_memory_bytes: Annotated[int, Meta(ge=0, le=_UNITS)] = 0
    max_regression: Number | None = None  # None: groups' models are not held against the model of all tasks


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout stands."""

    number: int
    spec: RolloutSpec
    mode: Mode = "running"
    stage: int = 0
    cut: float = 0.0  # the devices up to here belong to it
    opened: bool = False  # whether the cut is that of this stage, and not yet of the one before
    reason: str = ""  # why it was halted
    sent_bytes: int = 0  # of payload and topics: plans, models and what is checked with them, signing metadata


class Standing(msgspec.Struct, frozen=True):
    """How one group's model is doing on one device."""

    stage: Stage = "told"
    reason: str = ""
    model: str = ""  # the sha256 of what the device has in use
    latency_s: float = 0.0


Standings = dict[str, Standing]  # by group


class Order(NamedTuple):
    """A device is to be told: deploy the group's model, or (``undo``) go back to the one before."""

    device: str
    group: str
    undo: bool


class Count(NamedTuple):
    """The devices of a rollout so far."""

    told: int
    healthy: int
    failed: int


@dataclass
class _Clock:
    """When one device is told next, and since when it is waited for."""

    next_send: float
    repeat: float = PLAN_REPEAT_S
    since: float = math.inf


def place_of(seed: int, device: str) -> float:
    """A number from 0 to 1, the same for ever."""
    digest = hashlib.sha256(f"{seed}/{device}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _UNITS


def cut_of(seed: int, share: float, devices: Iterable[str]) -> float:
    """The place up to which devices belong to a stage: that many of those that are there, and at least one."""
    places = sorted(place_of(seed, device) for device in devices)
    if share >= 1 or not places:
        return 1.0
    return places[max(1, math.ceil(share * len(places) - 1e-9)) - 1]  # 10 % of 10 are one, also in binary


def check_spec(spec: RolloutSpec) -> None:
    """Raise ServerError if stages do not grow."""
    if any(later <= share for share, later in zip(spec.shares, spec.shares[1:], strict=False)):
        shares = ", ".join(f"{share:.4g}" for share in spec.shares)
        message = f"the stages of a rollout must grow: expected shares such as 0.01, 0.1, 1, got {shares}"
        raise ServerError(message)


@dataclass
class Rollout:
    """The machine. ``changed``: the devices whose standings are to be stored."""

    state: RolloutState
    standings: dict[str, Standings] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    _clocks: dict[tuple[str, str], _Clock] = field(default_factory=dict)
    _healthy_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nobody has to be told any more, but for devices that come back."""
        return self.state.mode in ("complete", "aborted", "rolled_back")

    @property
    def is_acting(self) -> bool:
        """Whether devices are told something in this mode."""
        return self.state.mode in ("running", "complete", "rolling_back", "rolled_back")

    @property
    def verbs(self) -> list[Verb]:
        """The words that it takes now."""
        return [verb for verb, (before, _) in _ALLOWED.items() if self.state.mode in before]

    def count(self, now: float) -> Count:
        """Who was told, who is healthy and who failed; those that an operator has excused are left out."""
        told = healthy = failed = 0
        for device, standings in self.standings.items():
            stages = {standing.stage for standing in standings.values()} - {"returned"}
            if not stages or "excused" in stages:
                continue
            told += 1
            healthy += stages == {"healthy"}
            failed += "failed" in stages or self._is_silent(device, now)
        return Count(told, healthy, failed)

    # ------------------------------------------------------------------ events

    def obey(self, verb: Verb) -> None:
        """An operator's word. Raises ServerError if it makes no sense now."""
        before, after = _ALLOWED[verb]
        if self.state.mode not in before:
            message = f"rollout {self.state.number} is {self.state.mode.replace('_', ' ')}: it cannot {verb}"
            raise ServerError(message)
        if self.state.mode == "halted" and verb == "resume":
            self._excuse()
        self._clocks.clear()
        self._healthy_since = None
        self.state = replace(self.state, mode=after, reason="")

    def on_report(self, device: str, group: str, standing: Standing, now: float) -> None:
        """A device has tried a model, or (``returned``) has gone back."""
        if group not in self.standings.get(device, {}):
            return
        undoing = self.state.mode in ("rolling_back", "rolled_back")
        if undoing is (standing.stage == "returned"):
            self._stand(device, group, standing)
            self._advance(now)

    def on_ack(self, device: str, group: str, now: float) -> None:
        """A device works on it: it need not be told so often."""
        if clock := self._clocks.get((device, group)):
            clock.next_send = max(clock.next_send, now + ASK_AGAIN_S)

    def on_back(self, device: str, now: float) -> None:
        """A device begins a new life: it has lost with its memory what it was told, and is told again."""
        for (name, _), clock in self._clocks.items():
            if name == device:
                clock.next_send, clock.repeat = now, PLAN_REPEAT_S

    def on_refused(self, device: str, group: str, reason: str, now: float) -> None:
        """A device did not try it, for a reason of its own: it is asked again."""
        if group in self.standings.get(device, {}) and (clock := self._clocks.get((device, group))):
            clock.next_send = now + ASK_AGAIN_S
            self._stand(device, group, replace(self.standings[device][group], reason=one_line(reason)))

    def on_models(self, device: str, models: Mapping[str, str], now: float) -> None:
        """A device says which models it has in use: one that was healthy may be gone."""
        if self.state.mode in ("rolling_back", "rolled_back"):
            return
        for group, standing in self.standings.get(device, {}).items():
            if standing.stage == "healthy" and models.get(group) != standing.model:
                gone = replace(standing, stage="failed", reason="it was healthy, and is not in use any more")
                self._stand(device, group, gone)
        self._advance(now)

    def poll(self, there: Mapping[str, Iterable[str]], now: float, expected: Iterable[str] = ()) -> list[Order]:
        """Whom to tell now.

        ``there``: the devices that can be told, with the groups whose models they can run; ``expected``: devices that
        will be back in a moment: before, no stage is opened, because it is a share of who is there.
        """
        if self.state.mode in ("rolling_back", "rolled_back"):
            return self._undo(there, now)
        if self.state.mode == "running":
            self._open_stage(there, expected)
        belonging = self._belonging(there) if self.is_acting and self.state.opened else []
        for device, group in belonging:
            if group not in self.standings.get(device, {}):
                self._stand(device, group, Standing())
        self._wait_for_those_told(now)
        self._advance(now)
        told = [each for each in belonging if self.standings[each[0]][each[1]].stage == "told" and self.is_acting]
        return [Order(*each, undo=False) for each in told if self._is_due(*each, now)]

    def take_changed(self) -> dict[str, Standings]:
        """What is to be stored since the last time."""
        found = {device: self.standings[device] for device in sorted(self.changed)}
        self.changed.clear()
        return found

    # ------------------------------------------------------------------ inside

    def _belonging(self, there: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
        """The (device, group) of those that belong to the stage."""
        seed, cut = self.state.spec.seed, self.state.cut
        drawn = [device for device in there if place_of(seed, device) <= cut]
        return [(device, group) for device in drawn for group in there[device]]

    def _open_stage(self, there: Mapping[str, Iterable[str]], expected: Iterable[str]) -> None:
        if there and not self.state.opened and all(device in there for device in expected):
            spec = self.state.spec
            cut = max(self.state.cut, cut_of(spec.seed, spec.shares[self.state.stage], there))
            self.state = replace(self.state, cut=cut, opened=True)

    def _advance(self, now: float) -> None:
        """Halt, wait, or go to the next stage."""
        if self.state.mode not in ("running", "paused") or not self.state.opened:
            return
        spec, count = self.state.spec, self.count(now)
        if count.failed > spec.halt_on * count.told:
            self._halt(count, now)
        elif self.standings and count.healthy >= (1 - spec.halt_on) * count.told and self.state.mode == "running":
            self._healthy_since = now if self._healthy_since is None else self._healthy_since
            if now - self._healthy_since >= spec.soak_s:
                self._next_stage()
        else:
            self._healthy_since = None

    def _next_stage(self) -> None:
        self._healthy_since = None
        if self.state.stage + 1 < len(self.state.spec.shares):
            self.state = replace(self.state, stage=self.state.stage + 1, opened=False)
        else:
            self.state = replace(self.state, mode="complete")

    def _halt(self, count: Count, now: float) -> None:
        device, why = next((device, why) for device in self.standings if (why := self._why_failed(device, now)))
        for silent in [each for each in self.standings if self._is_silent(each, now)]:
            self._give_up(silent, now)
        reason = (
            f"{count.failed} of {count.told} devices failed at stage {self.state.stage + 1}, such as {device}: {why}"
        )
        self.state = replace(self.state, mode="halted", reason=one_line(reason))
        self._healthy_since = None

    def _why_failed(self, device: str, now: float) -> str:
        failed = [s.reason for s in self.standings[device].values() if s.stage == "failed"]
        waits = next((s.reason for s in self.standings[device].values() if s.reason), "")
        silent = f"it did not answer{f' ({waits})' if waits else ''}" if self._is_silent(device, now) else ""
        return failed[0] if failed else silent

    def _is_silent(self, device: str, now: float) -> bool:
        """Whether it was told long ago, again and again, and has not answered."""
        if self.state.mode != "running":
            return False
        clocks = [self._clocks.get((device, g)) for g, s in self.standings[device].items() if s.stage == "told"]
        return any(clock is not None and now - clock.since >= self.state.spec.answer_s for clock in clocks)

    def _wait_for_those_told(self, now: float) -> None:
        """Who was told before a restart or a pause is waited for from now on, also if it has left for ever."""
        if self.state.mode != "running":
            return
        for device, standings in self.standings.items():
            for group in [group for group, standing in standings.items() if standing.stage == "told"]:
                clock = self._clocks.setdefault((device, group), _Clock(now))
                clock.since = min(clock.since, now)

    def _give_up(self, device: str, now: float) -> None:
        """Write down that a device is silent: whoever resumes goes on without it, and a rollback still reaches it."""
        why = self._why_failed(device, now)
        for group, standing in self.standings[device].items():
            if standing.stage == "told":
                self._stand(device, group, Standing("failed", one_line(why)))

    def _excuse(self) -> None:
        """An operator goes on in spite of those who failed."""
        for device, standings in self.standings.items():
            for group, standing in standings.items():
                if standing.stage == "failed":
                    self._stand(device, group, replace(standing, stage="excused"))

    def _undo(self, there: Mapping[str, Iterable[str]], now: float) -> list[Order]:
        """Everybody who may have the new model returns; a device that is away is told when it is back."""
        left = [
            Order(device, group, undo=True) for device, standings in self.standings.items()
            for group, standing in standings.items() if _may_hold_a_new_model(standing, self.state.spec)
        ]  # fmt: skip
        if not left:
            self.state = replace(self.state, mode="rolled_back")
        return [order for order in left if order.device in there and self._is_due(order.device, order.group, now)]

    def _is_due(self, device: str, group: str, now: float) -> bool:
        clock = self._clocks.setdefault((device, group), _Clock(now))
        if now < clock.next_send:
            return False
        clock.next_send, clock.repeat = now + clock.repeat, min(2 * clock.repeat, PLAN_REPEAT_MAX_S)
        return True

    def _stand(self, device: str, group: str, standing: Standing) -> None:
        self.standings[device] = {**self.standings.get(device, {}), group: standing}
        self.changed.add(device)


def _may_hold_a_new_model(standing: Standing, spec: RolloutSpec) -> bool:
    """Whether a rollback concerns it: the model is healthy there, or it was told and never said which is in use.

    With ``max_regression`` one on which the group's model failed may have taken that of all tasks, which is new, too.
    """
    if standing.stage in ("told", "healthy"):
        return True
    return standing.stage != "returned" and (not standing.model or spec.max_regression is not None)
