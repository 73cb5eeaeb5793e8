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

from device_runtime.data import DataFolder
from device_runtime.deployed import Bounds, Health, check_health, measured_latency
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.regression import regression
from device_runtime.slots import Slots
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.messages import AllInOne, HealthCheck, Manifest, Plan, Report
from mas_edge.protocol.models import ENGINE_OF
from mas_edge.protocol.topics import check_name

log = logging.getLogger(__name__)


def deploy(plan: Plan, store: ArtifactStore, deployed: Path, data: DataFolder) -> Report:
    """Carry out a plan to deploy a model of a group below ``deployed``, or to undo that.

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
    trying = _Trying(plan, plan.health, store, slots, data)
    health = trying.group()
    return _report(health, slots, began, cpu, trying.regression)


def _report(health: Health, slots: Slots, began: float, cpu: float, found: float | None = None) -> Report:
    return Report(
        samples={}, losses={}, healthy=health.healthy, health_reason=health.reason, latency_s=health.latency_s,
        engine=health.engine, model=slots.digest, memory_bytes=health.memory_bytes, regression=found,
        seconds={"check": time.monotonic() - began}, cpu_seconds=time.thread_time() - cpu,
    )  # fmt: skip


def _undone(slots: Slots, plan: Plan) -> Health:
    """Leave the plan's model, if it is in use, for the last good one."""
    if slots.digest != plan.program.artifact or slots.roll_back():
        return Health(healthy=True, reason="")
    return Health(healthy=False, reason="there is no model before this one to go back to: it stays in use")


class _Trying:
    """One plan's models."""

    def __init__(self, plan: Plan, check: HealthCheck, store: ArtifactStore, slots: Slots, data: DataFolder) -> None:
        self.regression: float | None = None
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
        health = check_health(active, self._golden(self._check.golden), self._bounds(), self._data)
        if not health.healthy and health.final:
            self._slots.refuse(self._slots.digest, health.reason)
            self._slots.roll_back()
        return health

    def _tried(self, model: Manifest, golden: Manifest, against: AllInOne | None) -> Health:
        samples = self._golden(golden)
        bounds = self._bounds(samples)
        self._store.manifest(model.artifact)  # what the disk damaged since it came does not get into a slot
        slots = self._slots
        trial = slots.put_on_trial(self._store.path(model.artifact), self._plan.format, model.artifact)
        if not slots.begin():
            return Health(healthy=False, reason=slots.refusal(model.artifact))
        health = check_health(trial, samples, bounds, self._data)
        if health.healthy and against:
            health = self._compared(trial, health, against)
        if health.healthy:
            slots.commit()
        elif health.final:
            slots.refuse(model.artifact, health.reason)
        else:
            slots.withdraw_trial()
        return health

    def _bounds(self, golden: bytes = b"") -> Bounds:
        """``golden``: of a model on trial, which must not be slower than the one in use by more than a factor."""
        check, most = self._check, self._check.max_latency_s
        if check.max_slowdown and golden and self._slots.active:
            takes = measured_latency(self._slots.active, golden)
            most = min(most, check.max_slowdown * takes) if takes else most
        return Bounds(check.tolerance, most, check.max_memory_bytes)

    def _compared(self, trial: Path, health: Health, against: AllInOne) -> Health:
        """Whether the group's model is as good for this device as the model of all tasks."""
        whole = self._store.path(against.model.artifact)
        try:
            found = regression(trial, self._plan.tasks, whole, against.tasks, self._data)
        except EdgeError as error:
            log.warning("%s is not compared with the model of all tasks: %s", self._plan.group, error)
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

    def _golden(self, manifest: Manifest) -> bytes:
        return self._store.read(manifest.artifact)
