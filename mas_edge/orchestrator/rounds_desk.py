"""The open rounds: choosing devices, telling them, closing, and moving the job on."""

from __future__ import annotations

import logging

import msgspec

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation import flow
from mas_edge.federation.deadline import ReportTimes, deadline_s
from mas_edge.federation.draw import Draw, Moment
from mas_edge.federation.flow import GroupState, JobState, Phase, RoundWork
from mas_edge.federation.pace import Pace
from mas_edge.federation.registry import Registry
from mas_edge.federation.robust import Rule
from mas_edge.federation.rounds import Outcome, Round, RoundSpec
from mas_edge.federation.supply import Supply, Wanted
from mas_edge.job import Job
from mas_edge.orchestrator import closing
from mas_edge.orchestrator.active import ActiveRound, update_limit
from mas_edge.orchestrator.checks import Expected
from mas_edge.orchestrator.distribution import Distribution
from mas_edge.orchestrator.filing import AtOnce, Clerk
from mas_edge.orchestrator.folding import Folding
from mas_edge.orchestrator.late_desk import LateDesk, LateRound
from mas_edge.orchestrator.outbox import Outbox
from mas_edge.orchestrator.plans import artifacts_of, audiences, make_plan
from mas_edge.orchestrator.rollout_desk import RolloutDesk
from mas_edge.orchestrator.sealing import Sealing
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.tidying import Tidying
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError, ProtocolError
from mas_edge.protocol.messages import AnyMessage, Cancel, Offer, Plan
from mas_edge.protocol.weights import Layout

log = logging.getLogger(__name__)

# After a round without enough reports: give the fleet a moment instead of asking the same devices again at once.
ABANDONED_PAUSE_S, ABANDONED_PAUSE_MAX_S = 2.0, 60.0
# A round that found no replacement looks again at this pace: to look goes through the whole fleet.
FILL_AGAIN_S = 1.0


class RoundsDesk:
    """The job's state and its open rounds; everything here happens in the orchestrator's loop."""

    def __init__(
        self, job: Job, state: JobState, store: Store, artifacts: ArtifactStore, post: Outbox,
        clerk: Clerk | None = None,
    ) -> None:  # fmt: skip
        self.job = job
        self.state = state
        self.active: dict[str, ActiveRound] = {}
        self.distribution = Distribution()
        self.pace = Pace(job.seed)
        self.sealing: Sealing | None = None  # what signs plans, if they are to be signed
        self.rollouts: RolloutDesk | None = None  # what deploys in stages
        self.supply = Supply(job)
        # The workshop is at work in its own thread, and puts artifacts into the store that no state names yet.
        self.making = False
        self._draw = Draw(job)
        self._times = ReportTimes()
        self._store = store
        self._artifacts = artifacts
        self._post = post
        self._tidying = Tidying(artifacts, store, clerk or AtOnce())
        self._late = LateDesk(job, store, artifacts)
        self._known: dict[str, tuple[Layout, dict[str, int]]] = {}
        self._pause_until = 0.0
        self._look_again = 0.0  # for late work that nobody wants any more
        self._lingering: set[str] = set()  # closed rounds whose artifacts are still handed out to stragglers
        self._waiting_for = ""

    def restore(self, now: float) -> None:
        """Take up the rounds that were open when the orchestrator last stopped."""
        records = self._store.records()
        for record in records:
            if record.kind == "train":
                self._draw.serve(record.group, record.selected)
            self._times.note(record.kind, record.group, record.report_seconds.values())
        self._late.restore(records, self.state, now)
        due = {work.round_id: work for work in flow.due(self.state) if isinstance(work, RoundWork)}
        for spec, phase in self._store.open_rounds():
            if spec.round_id not in due:
                continue
            active = self._activate(due[spec.round_id], spec, phase, now)
            active.resumed = True
            self._take_up(active)
            reports = f"{active.machine.reports} of {len(spec.selected)} reports"
            self.log("info", f"{spec.round_id}: taken up again with {reports}", spec.round_id)

    def _take_up(self, active: ActiveRound) -> None:
        """Fold what was accepted for a round before it opened, or in an earlier life."""
        for offer in self._store.accepted(active.work.round_id):
            try:
                self._fold_again(active, offer)
            except (DeviceError, ProtocolError) as error:  # the disk lost it: its device is told once more
                self._store.forget(offer.round_id, offer.sender)
                text = f"{offer.round_id}: the update of {offer.sender} is lost: {error}"
                self.log("warning", text, offer.round_id, offer.sender)

    def _fold_again(self, active: ActiveRound, offer: Offer) -> None:
        update = self._artifacts.read(offer.manifest.artifact) if offer.manifest else None
        if offer.round_id != active.work.round_id:
            self._late.fold(active, offer, update)
            return
        if offer.manifest:
            active.updates[offer.sender] = offer.manifest.artifact
        active.fold(offer, update)
        active.machine.on_accepted(offer.sender)

    # ------------------------------------------------------------------ opening

    @property
    def networks(self) -> list[GroupState]:
        """The networks that devices train now: the groups, or the all-in-one network before the split."""
        return self.state.groups or self.state.networks

    def lacking(self, due: list[RoundWork], registry: Registry) -> list[Wanted]:
        """What has to be made before the rounds that are due can open for the devices that are there."""
        births = registry.online()
        return [
            wanted for work in self._closed(due)
            for wanted in self.supply.lacking(work, self.state.group(work.group), births)
        ]  # fmt: skip

    def open(self, due: list[RoundWork], registry: Registry, now: float) -> None:
        """Open the rounds that are due and find their devices."""
        if now < self._pause_until:
            return
        training = any(active.work.kind == "train" for active in self.active.values())
        closed = self._closed(due)
        for place, work in enumerate(closed):
            if training and work.kind == "train" and self.job.federation.mode == "synchronous":
                break
            there = self.supply.served(work, self.state.group(work.group), registry.online())
            in_flight = self._late.works.in_flight(work.group)
            moment = Moment(self._begun(), self._busy(), not self.active, len(closed) - place, in_flight)
            drawn = self._draw.devices(work, sorted(there), moment)
            if drawn.opens:
                self._open(work, {device: there[device] for device in drawn.devices}, now)
            elif drawn.reason not in ("", self._waiting_for):
                self._waiting_for = drawn.reason
                self.log("info", drawn.reason)

    def _busy(self) -> set[str]:
        """Devices that are at work, whether or not their round is still open."""
        return self._late.works.at_work().union(*(active.machine.at_work() for active in self.active.values()))

    def _closed(self, due: list[RoundWork]) -> list[RoundWork]:
        """What is due and not open yet, the group that is behind first."""
        tags = {active.work.tag for active in self.active.values()}
        return sorted((work for work in due if work.tag not in tags), key=lambda work: work.index)

    def _open(self, work: RoundWork, supplies: dict[str, str], now: float) -> None:
        federation = self.job.federation
        training, in_flight = work.kind == "train", self._late.works.in_flight(work.group)
        buffered = training and federation.mode == "buffered"
        come = len(supplies) + (in_flight if buffered else 0)
        spec = RoundSpec(
            work.round_id, work.kind, work.group, work.index, tuple(supplies), self._deadline_s(work),
            min_reports=federation.min_reports if training else 1, supplies=supplies,
            goal=min(federation.devices_per_round, come) if training else 0, late_count=buffered,
        )  # fmt: skip
        self._store.open_round(spec, self.state.phase)
        active = self._activate(work, spec, self.state.phase, now)
        if training:
            self._draw.serve(work.group, supplies)
            self._take_up(active)
            self._late.refresh()
        self._waiting_for = ""
        devices = ", ".join(supplies) or "those who are at it"
        self.log("info", f"{work.round_id}: {work.kind} on {devices}", work.round_id)

    def _deadline_s(self, work: RoundWork) -> float:
        federation, attempt = self.job.federation, self.state.attempts.get(work.tag, 0)
        observed = self._times.of(work.kind, work.group)
        return deadline_s(observed, federation.deadline_factor, federation.deadline_s, attempt)

    def _activate(self, work: RoundWork, spec: RoundSpec, phase: str, now: float) -> ActiveRound:
        group = self.state.group(work.group)
        plans = {supply: self._plan(work, group, supply) for supply in sorted(set(spec.supplies.values()))}
        layout, costs = self._about(group)
        rule, weights = Rule.of(self.job.federation), group.weights.artifact
        accumulator = Folding(layout, rule, self._artifacts, weights) if work.kind == "train" else None
        machine = Round(spec, now)
        active = ActiveRound(work, machine, group, phase, plans, layout, costs, accumulator)
        self.active[work.round_id] = active
        for manifest, (kind, audience) in audiences(plans, spec).items():
            self.distribution.offer(work.round_id, kind, manifest, frozenset(audience))
        return active

    def _plan(self, work: RoundWork, group: GroupState, supply: str) -> Plan:
        return make_plan(self.job, self.state.run_id, work, group, supply, self._post.sender())

    def _about(self, group: GroupState) -> tuple[Layout, dict[str, int]]:
        """The layout of a network, and the multiply-accumulates of its methods for one sample."""
        artifact = next(iter(group.programs.values())).artifact  # every engine's has the same
        if artifact not in self._known:
            program = program_format.load(self._artifacts.read(artifact))
            costs = {name: each.multiply_accumulates // program.batch_size for name, each in program.methods.items()}
            self._known[artifact] = (program.layout, costs)
        return self._known[artifact]

    def _begun(self) -> bool:
        """Whether any round was ever opened."""
        return bool(self.active) or self._draw.any_served or self._store.has_rounds()

    # ------------------------------------------------------------------ filling up

    def fill(self, registry: Registry, now: float) -> None:
        """Tell further devices of the rounds that cannot reach their goal with those who are at it, or have slots."""
        for active in self.active.values():
            missing = self._missing(active, now)
            if missing > active.unfilled or (missing and now >= active.fill_again):
                added = self._replacements(active, registry, missing)
                active.unfilled, active.fill_again = missing - len(added), now + FILL_AGAIN_S
                if added:
                    self._enlarge(active, added, now)
            active.unfilled = min(active.unfilled, missing)

    def _missing(self, active: ActiveRound, now: float) -> int:
        """How many further devices a round needs."""
        machine, slots = active.machine, self.job.federation.slots
        if machine.enough or now >= machine.deadline:
            return 0  # it closes: the next one is for them
        if machine.spec.late_count:
            return max(0, slots - self._late.works.in_flight(active.work.group) - len(machine.at_work()))
        return machine.missing

    def _replacements(self, active: ActiveRound, registry: Registry, number: int) -> dict[str, str]:
        """Idle devices that are not in the round yet, with what each gets."""
        there = self.supply.served(active.work, self.state.group(active.work.group), registry.online())
        busy = self._busy() | set(active.machine.spec.selected)
        drawn = self._draw.fairly(active.work, [name for name in there if name not in busy], number)
        return {name: there[name] for name in drawn}

    def _enlarge(self, active: ActiveRound, supplies: dict[str, str], now: float) -> None:
        active.machine.enlarge(supplies, now)
        self._store.enlarge_round(active.machine.spec)
        group = self.state.group(active.work.group)
        for supply in sorted(set(supplies.values()) - set(active.plans)):
            active.plans[supply] = plan = self._plan(active.work, group, supply)
            for kind, manifest in artifacts_of(plan):
                if self.distribution.round_of(manifest.artifact) is None:
                    self.distribution.offer(active.work.round_id, kind, manifest, frozenset(supplies))
        self._draw.serve(active.work.group, supplies)
        round_id = active.work.round_id
        self.log("info", f"{round_id}: further devices: {', '.join(supplies)}", round_id)

    # ------------------------------------------------------------------ running

    def wanted_rounds(self) -> set[str]:
        """The rounds whose reports are taken in: the open ones, and those of stragglers."""
        return self.active.keys() | self._late.works.rounds()

    def intake(self, round_id: str, device: str) -> ActiveRound | LateRound | None:
        """What takes in a device's report of a round; None if nobody wants it."""
        work = self._late.works.find(round_id, device)
        if round_id in self.active or work is None:
            return self.active.get(round_id)
        group = self.state.group(work.group)
        layout, _ = self._about(group)
        opened = [each for each in self.active.values() if (each.work.kind, each.work.group) == ("train", work.group)]
        expected = Expected(round_id, "train", group.name, group.tasks, layout)
        return LateRound(self._late, work, expected, update_limit(layout), next(iter(opened), None))

    def on_back(self, device: str, now: float) -> None:
        """A device is there (again)."""
        for active in self.active.values():
            active.machine.on_back(device, now)

    def on_lost(self, device: str, now: float) -> None:
        """A device vanished."""
        for active in self.active.values():
            active.machine.on_lost(device, now)
        self._late.works.on_lost(device)

    def on_new_life(self, device: str) -> None:
        """A device began anew: it has lost its late work, unless that was finished."""
        self._late.works.on_lost(device)

    def tell(self, device: str, message: AnyMessage, round_id: str | None) -> int:
        """Send a control message; its bytes, which are returned, count for the round."""
        size = self._post.tell(device, message)
        if round_id in self.active:
            self.active[round_id].traffic.sent_control += size
        return size

    def poll(self, now: float) -> None:
        """Send what is due by the clock; close what is over."""
        for shipment in self.distribution.poll(now):
            self._post.ship(shipment)
        for active in list(self.active.values()):
            for device in active.machine.poll(now):
                plan = msgspec.structs.replace(active.plan_for(device), **self._post.sender())
                audience = frozenset(active.machine.spec.selected)
                message = self.sealing.seal(plan, device, audience) if self.sealing else plan
                self.tell(device, message, active.work.round_id)
            if outcome := active.machine.outcome(now, self._late.works.in_flight(active.work.group)):
                self._close(active, outcome, now)
        if now >= self._look_again:
            self._drop_outdated(self.state.phase, now)
        self._tidying.poll(now)

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        times = [active.machine.next_poll for active in self.active.values()]
        return min([*times, self.distribution.next_poll, self._tidying.next_poll])

    # ------------------------------------------------------------------ closing

    def _close(self, active: ActiveRound, outcome: Outcome, now: float) -> None:
        work = active.work
        weights = None if outcome == "abandoned" else closing.aggregate(active, self._artifacts)
        record = active.record(outcome, weights.artifact if weights else "", self.job.affinity, now)
        if outcome == "abandoned":
            state = flow.abandoned(self.state, work)
            pause = ABANDONED_PAUSE_S * 2 ** (state.attempts[work.tag] - 1)
            self._pause_until = now + min(pause, ABANDONED_PAUSE_MAX_S)
        else:
            state = flow.finish(self.state, work, weights, closing.found(self.job, record, self._store))
            go_on = self._late.may_go_on(active, self.state.phase, state) if weights else []
            record = msgspec.structs.replace(record, stragglers=go_on)
        for device in sorted(active.machine.at_work() - set(record.stragglers)):
            self._cancel(device, work.round_id, f"closed: {outcome}")
        self._store.close_round(record, state)
        del self.active[work.round_id]
        self._late.close(record, active.updates, now)
        self._late.refresh()
        self._lingering.add(work.round_id)
        self._times.note(record.kind, record.group, record.report_seconds.values())
        for level, text, device in closing.announcement(record):
            self.log(level, text, record.round_id, device)
        phase = self.state.phase
        self.move(state)
        self._drop_outdated(phase, now)

    def abort(self, reason: str, now: float) -> None:
        """The operator ends the job: open rounds are closed without a result, and their devices can stop."""
        state = flow.aborted(self.state)
        self._store.save(state)
        for active in self.active.values():
            for device in sorted(active.machine.at_work()):
                self._cancel(device, active.work.round_id, reason)
            self._store.close_round(active.record("abandoned", "", self.job.affinity, now), state)
        self.active.clear()
        self.move(state)

    def _cancel(self, device: str, round_id: str, reason: str) -> None:
        cancel = Cancel(
            **self._post.sender(), job=self.state.run_id, round_id=round_id, reason=reason,
            next_checkin_s=self.pace.next_checkin_s(),
        )  # fmt: skip
        self.tell(device, cancel, round_id)

    def _drop_outdated(self, phase: Phase, now: float) -> None:
        """Stop the late work that nobody wants any more; the job was in ``phase`` when it was last looked for."""
        self._look_again = now + FILL_AGAIN_S
        for late in self._late.outdated(self.state, phase, now):
            self._cancel(late.device, late.round_id, "closed: too late")
        for round_id in self._lingering - self._late.works.rounds():
            self.distribution.withdraw(round_id)
            self._lingering.discard(round_id)

    def move(self, state: JobState) -> None:
        """The job stands at ``state`` now (it is in the store already)."""
        if state.phase != self.state.phase:
            self.log("info", f"phase: {state.phase}")
        self.state = state
        self._prune()

    def _prune(self) -> None:
        """Remove the artifacts that nobody needs any more.

        Nothing is removed while the workshop makes something: it may lie in the store already. It is looked at again
        when the next round closes, so that the disk holds what a few rounds leave for the time of one export.
        """
        if not self.making:
            others = self._late.needed() | (self.sealing.needed if self.sealing else set())
            self._tidying.tidy(self.state.networks, self.active.values(), others)

    def log(self, level: str, text: str, round_id: str = "", device: str = "") -> None:
        """Say it in the process's log, with what it is about, and keep it for ``mas-edge status``."""
        about = {"job": self.state.run_id, "round": round_id, "device": device}
        log.log(logging.WARNING if level == "warning" else logging.INFO, "%s", text, extra=about)
        self._store.log(level, text)
