"""Staged deployment in the orchestrator's loop: takes operators' orders, tells devices, takes in what they report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mas_edge.federation import flow
from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.registry import Registry
from mas_edge.federation.rollout import Order, Rollout, RolloutSpec, RolloutState, Standing, check_spec
from mas_edge.orchestrator.checks import Expected
from mas_edge.orchestrator.plans import artifacts_of, make_plan
from mas_edge.orchestrator.rollout_store import RolloutStore, Wish
from mas_edge.protocol.errors import ServerError, WeightsError
from mas_edge.protocol.messages import AllInOne, Birth, HealthCheck, Offer, Plan, Verdict
from mas_edge.protocol.weights import Layout

if TYPE_CHECKING:
    from mas_edge.orchestrator.outbox import Outbox
    from mas_edge.orchestrator.rounds_desk import RoundsDesk
    from mas_edge.orchestrator.store import Store

# Between two looks at who is there and what is due: a stage takes minutes, and a look goes through the whole fleet.
LOOK_S = 0.5
# An orchestrator that was started again gives the devices it knew this long to come back before it counts whom a stage
# is a share of: they connect within a few seconds, and who is the first of them is chance.
SETTLE_S = 15.0
LEAST_DEADLINE_S = 60.0  # a device may take this long in any case before it drops a plan
_NAME = re.compile(r"(rollout|rollback)-(\d+)-(.+)")


class RolloutDesk:
    """The rollouts of one run; everything here happens in the orchestrator's loop."""

    def __init__(self, desk: RoundsDesk, store: Store, post: Outbox, directory: Path) -> None:
        self._desk = desk
        self._jobs = store
        self._post = post
        self._store = RolloutStore(directory)
        self._seen_version = -1
        self._look_again = -math.inf
        self._there: dict[str, dict[str, str]] = {}  # by device and group, the format that it gets
        self._settled_at: float | None = None
        self._expected = {known.name for known in store.devices() if known.online and not known.no_model}
        self._saved: RolloutState | None = None
        self._shipped, self._told, self._counted = 0, 0, 0  # bytes: of chunks, of plans, of both that were counted
        self.machine: Rollout | None = None
        if found := self._store.latest():
            self.machine = Rollout(found.state, found.standings)
            self._saved = found.state
        self._take_wishes()

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    @property
    def is_busy(self) -> bool:
        """Whether a rollout is not at its end: an orchestrator stays for it."""
        return self.machine is not None and not self.machine.is_over

    def due(self, works: Iterable[RoundWork]) -> list[RoundWork]:
        """What of the job's rounds is to be opened: while there is a rollout, nothing is deployed to all at once."""
        return [work for work in works if work.kind != "deploy" or self.machine is None]

    def works(self) -> list[RoundWork]:
        """The deployments under way, for which models have to be made."""
        if self.machine is None or not self._is_time or not self.machine.is_acting:
            return []
        merged = self._desk.state.merged
        with_merged = [merged] if merged and self.machine.state.spec.max_regression is not None else []
        return [self._work(group, undo=False) for group in [*self._desk.state.groups, *with_merged]]

    def on_shipped(self, round_id: str, size: int) -> None:
        """A chunk has left, on the post's thread: nothing but a number of its own is written."""
        if _NAME.fullmatch(round_id):
            self._shipped += size

    def poll(self, registry: Registry, now: float) -> None:
        """Take orders, tell who is due, and store what has changed."""
        if now < self._look_again:
            return
        self._look_again = now + LOOK_S
        self._settle(now)
        self._take_wishes()
        if self.machine is None:
            return
        if self._is_time:
            self._there = self._served(registry)
            orders = self.machine.poll(self._there, now, self._expected)
            for order in orders:
                self._tell(order, orders)
        self._save()
        if self.machine.is_over and self._desk.state.phase == "deploy":
            state = flow.rolled_out(self._desk.state)
            self._jobs.save(state)
            self._desk.move(state)

    def _settle(self, now: float) -> None:
        self._settled_at = now + SETTLE_S if self._settled_at is None else self._settled_at
        if now >= self._settled_at:
            self._expected = set()

    # ------------------------------------------------------------------ what devices say

    def on_ack(self, device: str, round_id: str, now: float) -> None:
        """A device has the plan and works on it."""
        if self.machine and (group := self._group_of(round_id)):
            self.machine.on_ack(device, group, now)

    def on_refused(self, device: str, round_id: str, reason: str, now: float) -> None:
        """A device could not try a model, for a reason of its own."""
        if self.machine and (group := self._group_of(round_id)):
            self.machine.on_refused(device, group, reason, now)
            self._desk.log("warning", f"{round_id}: {device} cannot: {reason}", round_id, device)

    def on_birth(self, birth: Birth, now: float, *, new_life: bool) -> None:
        """A device is there, and says which models it has in use; ``new_life``: it was killed, or started again."""
        if self.machine and new_life:
            self.machine.on_back(birth.sender, now)
        if self.machine and birth.models is not None and self._is_time:
            self.machine.on_models(birth.sender, birth.models, now)

    def on_offer(self, offer: Offer, now: float) -> tuple[Verdict, str] | None:
        """A device has tried a model; the last word on its report, or None if it is of no rollout under way."""
        group = self._group_of(offer.round_id)
        if self.machine is None or not group or offer.job != self._desk.state.run_id:
            return None
        report, tasks = offer.report, self._desk.state.group(group).tasks
        try:
            Expected(offer.round_id, "deploy", group, tasks, Layout([])).check(report)
        except WeightsError as error:
            return "invalid", str(error)
        undone = offer.round_id.startswith("rollback")
        stage: Standing = Standing(
            "returned" if undone else "healthy" if report.healthy else "failed", report.health_reason, report.model,
            report.latency_s,
        )  # fmt: skip
        if not report.healthy:
            text = f"{offer.round_id}: {offer.sender}: {report.health_reason}"
            self._desk.log("warning", text, offer.round_id, offer.sender)
        self.machine.on_report(offer.sender, group, stage, now)
        return "accepted", ""

    def _group_of(self, round_id: str) -> str:
        """The group that a rollout's plan is about; empty if it is of another one, or of none."""
        found = _NAME.fullmatch(round_id)
        known = {group.name for group in self._desk.state.groups}
        if found is None or self.machine is None or int(found[2]) != self.machine.state.number or found[3] not in known:
            return ""
        return found[3]

    # ------------------------------------------------------------------ what operators say

    def _take_wishes(self) -> None:
        if (version := self._store.version) == self._seen_version:
            return
        self._seen_version = version
        for number, wish in self._store.wishes():
            try:
                state = self._granted(wish)
            except ServerError as error:
                self._store.refuse(number, str(error))
                continue
            changed = self.machine.take_changed() if self.machine else {}
            self._store.save(state, changed, number)
            self._say(state, wish.who)

    def _granted(self, wish: Wish) -> RolloutState:
        """Where the rollout stands after an order. Raises ServerError if it makes no sense."""
        if wish.spec is not None:
            return self._begun(wish.spec)
        if self.machine is None or wish.verb is None:
            message = "there is no rollout of this run: begin one with --to"
            raise ServerError(message)
        self.machine.obey(wish.verb)
        return self.machine.state

    def _begun(self, spec: RolloutSpec) -> RolloutState:
        check_spec(spec)
        last = self.machine.state if self.machine else None
        if self.is_busy and last:
            message = (
                f"rollout {last.number} is {last.mode.replace('_', ' ')}: abort it, or roll it back, before another"
            )
            raise ServerError(message)
        if last:
            for group in self._desk.state.groups:
                self._desk.distribution.withdraw(_round_id(last.number, group.name, undo=False))
        self.machine = Rollout(RolloutState(number=last.number + 1 if last else 1, spec=spec))
        return self.machine.state

    # ------------------------------------------------------------------ telling

    @property
    def _is_time(self) -> bool:
        """Whether the models are there."""
        return self._desk.state.phase in ("deploy", "done")

    def _served(self, registry: Registry) -> dict[str, dict[str, str]]:
        births, found = registry.online(), dict[str, dict[str, str]]()
        for group in self._desk.state.groups:
            for device, suffix in self._desk.supply.served(self._work(group, undo=False), group, births).items():
                if suffix in group.models and self._is_comparable(suffix):
                    found.setdefault(device, {})[group.name] = suffix
        return found

    def _is_comparable(self, suffix: str) -> bool:
        """Whether the model of all tasks is there, if there is to be one in this format."""
        wanted = self._desk.state.merged is not None and self._spec.max_regression is not None
        return not wanted or self._all_in_one(suffix) is not None

    def _work(self, group: GroupState, *, undo: bool) -> RoundWork:
        number = self.machine.state.number if self.machine else 0
        name = _round_id(number, group.name, undo=undo)
        return RoundWork(name, "deploy", group.name, group.next_round, name)

    def _tell(self, order: Order, orders: list[Order]) -> None:
        group, suffix = self._desk.state.group(order.group), self._there[order.device][order.group]
        plan = self._undo(group, suffix) if order.undo else self._plan(group, suffix)
        audience = frozenset(each.device for each in orders if each.group == order.group)
        for kind, manifest in [] if order.undo else artifacts_of(plan):
            if self._desk.distribution.round_of(manifest.artifact) is None:
                self._desk.distribution.offer(plan.round_id, kind, manifest, audience)
        sealing = self._desk.sealing
        message = sealing.seal(plan, order.device, audience) if sealing else plan
        self._told += self._desk.tell(order.device, message, plan.round_id)

    def _plan(self, group: GroupState, suffix: str) -> Plan:
        desk, spec = self._desk, self._spec
        plan = make_plan(desk.job, desk.state.run_id, self._work(group, undo=False), group, suffix, self._post.sender())
        health: HealthCheck | None = plan.health and replace(
            plan.health, max_latency_s=spec.max_latency_s, max_slowdown=spec.max_slowdown,
            max_memory_bytes=spec.max_memory_bytes, all_in_one=self._all_in_one(suffix),
        )  # fmt: skip
        return replace(plan, health=health, deadline_s=max(spec.answer_s, LEAST_DEADLINE_S))

    def _undo(self, group: GroupState, suffix: str) -> Plan:
        desk = self._desk
        return Plan(
            **self._post.sender(), job=desk.state.run_id, round_id=self._work(group, undo=True).round_id, kind="deploy",
            group=group.name, tasks=group.tasks, deadline_s=max(self._spec.answer_s, LEAST_DEADLINE_S),
            program=group.models[suffix], format=suffix, undo=True,
            # With the model of all tasks, which is to be left as well where it was taken instead.
            health=self._plan(group, suffix).health if self._all_in_one(suffix) else None,
        )  # fmt: skip

    @property
    def _spec(self) -> RolloutSpec:
        if self.machine is None:
            message = "there is no rollout of this run"
            raise ServerError(message)
        return self.machine.state.spec

    def _all_in_one(self, suffix: str) -> AllInOne | None:
        merged, most = self._desk.state.merged, self._spec.max_regression
        golden = merged.golden_for(suffix) if merged else None
        if most is None or merged is None or golden is None or suffix not in merged.models:
            return None
        return AllInOne(model=merged.models[suffix], golden=golden, tasks=merged.tasks, max_regression=most)

    # ------------------------------------------------------------------ the record

    def _save(self) -> None:
        if self.machine is None:
            return
        self._count(self.machine)
        state, changed = self.machine.state, self.machine.take_changed()
        if changed or state != self._saved:
            self._store.save(state, changed)
            self._say(state)

    def _count(self, machine: Rollout) -> None:
        """What has left since the last look belongs to the rollout."""
        left = self._shipped + self._told
        if left != self._counted:
            machine.state = replace(machine.state, sent_bytes=machine.state.sent_bytes + left - self._counted)
            self._counted = left

    def _say(self, state: RolloutState, who: str = "") -> None:
        """A line for people when it stands otherwise than before; ``who`` has ordered that."""
        before, self._saved = self._saved, state
        if before and replace(before, sent_bytes=state.sent_bytes, cut=state.cut, opened=state.opened) == state:
            return  # a stage is said when it begins, not again when its devices are drawn
        share = state.spec.shares[min(state.stage, len(state.spec.shares) - 1)]
        where = f"stage {state.stage + 1} of {len(state.spec.shares)}, {share:.4g} of the devices"
        why = f": {state.reason}" if state.reason else f", {where}" if state.mode == "running" else ""
        level = "warning" if state.mode == "halted" else "info"
        by = f" ({who})" if who else ""
        self._desk.log(level, f"rollout {state.number}: {state.mode.replace('_', ' ')}{why}{by}")


def _round_id(number: int, group: str, *, undo: bool) -> str:
    return f"{'rollback' if undo else 'rollout'}-{number}-{group}"
