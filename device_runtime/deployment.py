"""Deploying a model: a trial beside the model in use, its health check, and then one rename or none.

    on trial -> started (counted before the model is used) -> healthy: in use, and the one before is the last good one
                                                           -> not healthy: refused for ever, unless it is not to blame

A process that is killed in between has said nothing. The plan comes again, and after two starts without an answer the
model is refused without being used. A group's model that is worse for this device's own data than the model of all
tasks gives way to that one. Every end is a report: it names the model that is in use now.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from device_runtime.data import DataFolder
from device_runtime.deployed import Bounds, Health
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.slots import Slots
from device_runtime.trial import Answer, Check, Compare, Examiner, Here, Question, Time
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import AllInOne, HealthCheck, Manifest, Plan, Report
from mas_edge.protocol.models import ENGINE_OF
from mas_edge.protocol.topics import check_name

log = logging.getLogger(__name__)


def deploy(
    plan: Plan, store: ArtifactStore, deployed: Path, data: DataFolder, examiner: Examiner | None = None
) -> Report:
    """Carry out a plan to deploy a model of a group below ``deployed``, or to undo that; ``examiner``: tries models.

    Raises:
        DeviceError: the plan is not one, or the disk refuses.
    """
    if plan.format not in ENGINE_OF:
        known = ", ".join(ENGINE_OF)
        message = f"plan {plan.round_id} deploys a model of format {plan.format[:40]!r}; known here: {known}"
        raise DeviceError(message)
    slots = Slots(deployed / check_name(plan.group, "group"))
    slots.recover()
    began, cpu = time.monotonic(), time.thread_time()
    if plan.undo:
        return _report(_undone(slots, plan), slots, began, cpu)
    if plan.health is None:
        message = f"plan {plan.round_id} deploys without a health check"
        raise DeviceError(message)
    trying = _Trying(plan, plan.health, store, slots, data, examiner or Here())
    health = trying.group()
    return _report(health, slots, began, cpu - trying.cpu_seconds, trying.regression)


def _report(health: Health, slots: Slots, began: float, cpu: float, found: float | None = None) -> Report:
    return Report(
        samples={}, losses={}, healthy=health.healthy, health_reason=health.reason, latency_s=health.latency_s,
        engine=health.engine, model=slots.digest, memory_bytes=health.memory_bytes, regression=found,
        seconds={"check": time.monotonic() - began}, cpu_seconds=time.thread_time() - cpu,
    )  # fmt: skip


def _undone(slots: Slots, plan: Plan) -> Health:
    """Leave the plan's model, or the one of all tasks that was taken in its place, for the last good one before."""
    whole = plan.health.all_in_one if plan.health else None
    named = {plan.program.artifact, whole.model.artifact if whole else plan.program.artifact}
    if slots.digest not in named or slots.roll_back():
        return Health(healthy=True, reason="")
    return Health(healthy=False, reason="there is no model before this one to go back to: it stays in use")


class _Trying:
    """One plan's models."""

    def __init__(
        self, plan: Plan, check: HealthCheck, store: ArtifactStore, slots: Slots, data: DataFolder, examiner: Examiner
    ) -> None:
        self.regression: float | None = None
        self.cpu_seconds = 0.0  # of the examiner, if they are not this thread's
        self._examiner = examiner
        self._plan = plan
        self._check = check
        self._store = store
        self._slots = slots
        self._data = data

    def group(self) -> Health:
        """Try the group's model, and where it is worse than the model of all tasks, that one."""
        slots, digest = self._slots, self._plan.program.artifact
        if reason := slots.refusal(digest):
            return Health(healthy=False, reason=f"refused before: {reason}")
        if slots.active and slots.digest == digest:
            return self._in_use(slots.active)
        health = self._tried(self._plan.program, self._check.golden, self._check.all_in_one)
        all_in_one = self._check.all_in_one
        if all_in_one and self.regression is not None and self.regression > all_in_one.max_regression:
            self._take(all_in_one)
        return health

    def _in_use(self, active: Path) -> Health:
        """The plan came again, or the same model was deployed before: whether it is still healthy."""
        health = self._health_of(active, self._check.golden)
        if not health.healthy and health.final:
            self._slots.refuse(self._slots.digest, health.reason)
            self._slots.roll_back()
        return health

    def _tried(self, model: Manifest, golden: Manifest, against: AllInOne | None) -> Health:
        self._store.manifest(model.artifact)  # what the disk damaged since it came does not get into a slot
        slots = self._slots
        trial = slots.put_on_trial(self._store.path(model.artifact), self._plan.format, model.artifact)
        if not slots.begin():
            return Health(healthy=False, reason=slots.refusal(model.artifact))
        health = self._health_of(trial, golden, slots.active if self._check.max_slowdown else None)
        if health.healthy and against:
            health = self._compared(trial, health, against)
        if health.healthy:
            slots.commit()
        elif health.final:
            slots.refuse(model.artifact, health.reason)
        else:
            slots.withdraw_trial()
        return health

    def _health_of(self, model: Path, golden: Manifest, active: Path | None = None) -> Health:
        """``active``: the model in use, than which a model on trial must not be slower by more than a factor."""
        self._store.manifest(golden.artifact)  # the disk may have damaged them: that is not what the model is
        samples = str(self._store.path(golden.artifact))
        bounds = Bounds(self._check.tolerance, self._check.max_latency_s, self._check.max_memory_bytes)
        # Asked by itself: what the model in use does to its process is not what the one on trial is.
        takes = self._ask(Time(str(active), samples)).latency_s if active else 0.0
        if takes:
            most = min(bounds.max_latency_s, self._check.max_slowdown * takes)
            bounds = msgspec.structs.replace(bounds, max_latency_s=most)
        answer = self._ask(Check(str(model), samples, bounds))
        return answer.health or Health(healthy=False, reason=answer.problem, final=False)

    def _ask(self, question: Question) -> Answer:
        answer = self._examiner.answer(question, self._data)
        self.cpu_seconds += answer.cpu_seconds
        return answer

    def _compared(self, trial: Path, health: Health, against: AllInOne) -> Health:
        """Whether the group's model is as good for this device as the model of all tasks."""
        whole = self._store.path(against.model.artifact)
        answer = self._ask(Compare(str(trial), self._plan.tasks, str(whole), against.tasks, against.max_regression))
        found = answer.regression
        if found is None:
            log.warning("%s is not compared with the model of all tasks: %s", self._plan.group, answer.problem)
            return health
        self.regression = found
        if found <= against.max_regression:
            return health
        reason = (
            f"on this device's own test data its error is {found:.0%} above that of the model of all tasks, "
            f"allowed {against.max_regression:.0%}"
        )
        return Health(healthy=False, reason=reason, latency_s=health.latency_s, engine=health.engine)

    def _take(self, other: AllInOne) -> None:
        digest = other.model.artifact
        if self._slots.digest == digest or self._slots.refusal(digest):
            return
        health = self._tried(other.model, other.golden, None)
        if not health.healthy:
            log.warning("the model of all tasks is not healthy here: %s", health.reason)
