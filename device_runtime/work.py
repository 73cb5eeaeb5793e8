"""Carrying out one plan: the bench where engine, data and artifacts meet. Runs in the agent's background thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.engines import open_engine
from device_runtime.holdings import Holdings
from device_runtime.last_words import LastWords
from device_runtime.memory import in_units, ran_out, resident_bytes
from device_runtime.outcome import Outcome
from device_runtime.power.meter import Meter
from device_runtime.slots import models_in_use
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.memory import memory_needed
from mas_edge.protocol.messages import Plan, Report
from mas_edge.protocol.program import Program

if TYPE_CHECKING:
    from device_runtime.engines.base import Engine, Runner
    from device_runtime.trial_process import Apart

log = logging.getLogger(__name__)

# Programs kept ready to run. A device serves at most a few groups; each loaded one costs a few MB.
MAX_LOADED = 4
# Where a model is tried: in a process of its own, in the agent's, or in the first if there is memory for it.
Where = Literal["auto", "apart", "here"]


class Programs:
    """The engine of a process, loaded when first needed, and the programs that are ready to run on it.

    ``engine_name`` as for ``open_engine``; at most ``most`` programs are kept ready, the oldest go first.
    """

    def __init__(self, engine_name: str, most: int = MAX_LOADED) -> None:
        self.most = most
        self._name = engine_name
        self._engine: Engine | None = None
        self._loaded: dict[str, tuple[Program, Runner]] = {}

    @property
    def engine(self) -> Engine:
        """The engine. Raises DeviceError if it does not start."""
        if self._engine is None:
            self._engine = open_engine(self._name)
        return self._engine

    @property
    def used(self) -> str:
        """The name of the engine; empty if it was not needed yet."""
        return self._engine.name if self._engine else ""

    def held(self, artifact: str) -> Program | None:
        """The program of this digest, if it is ready to run."""
        loaded = self._loaded.get(artifact)
        return loaded[0] if loaded else None

    def runner(self, artifact: str, program: Program) -> Runner:
        """Make ``program``, whose digest is ``artifact``, ready to run."""
        if artifact not in self._loaded:
            engine = self.engine
            while len(self._loaded) >= self.most:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[artifact] = (program, engine.load(program))
        return self._loaded[artifact][1]

    def clear(self) -> None:
        """Let go of every program."""
        self._loaded.clear()


class Bench:
    """One device's data, programs and artifacts.

    ``step_memory``: the bytes that a program may take beside the process with its engine loaded; 0 = no limit.
    ``meter``: counts the joules of each plan. ``last_words``: what a process that is killed leaves to the next.
    ``checkpoints``: the folder where trainings are saved, to be gone on with after a power cut; None = nowhere.
    """

    def __init__(
        self,
        data: Holdings,
        store: ArtifactStore,
        programs: Programs,
        deployed: Path,
        meter: Meter | None = None,
        checkpoints: Path | None = None,
        last_words: LastWords | None = None,
    ) -> None:
        self.step_memory = 0
        self.models: dict[str, str] = {}  # in use, by group; after ``settle``
        self.trial: Where = "here"  # where models are tried before they are used
        self._memory = 0  # that the process may hold; 0 = no limit
        self._examiner: Apart | None = None  # of models
        self.joules = 0.0  # that the last plan took, also one that failed
        self._meter = meter
        self._last_words = last_words
        self._data = data
        self._store = store
        self._programs = programs
        self._deployed = deployed
        self._checkpoints = checkpoints

    def limit(self, memory: int) -> None:
        """Let the process hold ``memory`` bytes at most, as far as that is a matter of programs.

        Raises:
            DeviceError: the engine does not start, or takes it all by itself.
        """
        import device_runtime.training  # noqa: F401 - what a program finds loaded counts as held

        name = self._programs.engine.name
        self._data.opened()
        held = resident_bytes()
        if memory <= held:
            message = (
                f"--memory {in_units(memory)} is not enough: with the engine {name} loaded this process holds "
                f"{in_units(held)} already; give it more, or choose a smaller engine with --engine"
            )
            raise DeviceError(message)
        self.step_memory, self._memory = memory - held, memory
        self._programs.most = 1

    def settle(self) -> None:
        """Put the deployed models in order, after whatever ended the last process."""
        try:
            self.models = models_in_use(self._deployed)
        except DeviceError as error:  # a disk that is full: training may go on all the same
            log.error("the deployed models are not looked after: %s", error)

    def learn(self) -> None:
        """Allow less where an earlier process of this device was killed for memory."""
        learned = self._last_words.learn() if self._last_words else 0
        if learned:
            self.step_memory = min(self.step_memory or learned, learned)
            self._programs.most = 1

    def carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        """Do what the plan says.

        Raises:
            Stopped: ``stop()`` returned True.
            EdgeError: it cannot be done; the text is what the orchestrator and the operator read.
        """
        if self._meter is None:
            return self._carry_out(plan, stop)
        self._meter.begin()
        try:
            outcome = self._carry_out(plan, stop)
        finally:
            energy = self._meter.end()
            self.joules = sum(energy.joules.values()) if energy else 0.0
        return Outcome(msgspec.structs.replace(outcome.report, energy=energy), outcome.update)

    def _carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        if plan.kind == "deploy":
            return Outcome(self._deploy(plan))
        self.rest()
        began = time.monotonic()
        artifact = plan.program.artifact
        program = self._programs.held(artifact) or program_format.load(self._store.read(artifact))
        if self._last_words:
            self._last_words.begin(memory_needed(program))
        try:
            return self._run(plan, program, began, stop)
        except (EdgeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise DeviceError(self._on_ran_out(program, error)) from None
        finally:
            if self._last_words:
                self._last_words.end()

    def _deploy(self, plan: Plan) -> Report:
        from device_runtime.deployment import deploy
        from device_runtime.trial_process import Apart

        self._examiner = self._examiner or Apart(self.trial, self._memory)
        report = deploy(plan, self._store, self._deployed, self._data.opened(), self._examiner)
        self.models = {**self.models, plan.group: report.model}
        return report

    def rest(self) -> None:
        """Let go of what is kept for further plans to deploy: no more come at once."""
        if self._examiner:
            self._examiner.close()

    def _run(self, plan: Plan, program: Program, began: float, stop: Callable[[], bool]) -> Outcome:
        from device_runtime.training import Trainer, starting_weights  # NumPy comes with it: not before it is needed

        data = self._data.opened()
        runner = self._programs.runner(plan.program.artifact, program)
        if plan.weights is None or program.tasks != plan.tasks:
            message = f"plan {plan.round_id} is for tasks {plan.tasks}, its program for {program.tasks}"
            raise DeviceError(message)
        with self._store.opened(plan.weights.manifest.artifact) as file:
            weights = starting_weights(program, file)
        trainer = Trainer(program, runner, self._programs.used, data, self._meter, self._checkpoints)
        return trainer.carry_out(plan, weights, began, stop)

    def _on_ran_out(self, program: Program, error: Exception) -> str:
        """Let go of what is loaded, allow less than this program takes from now on, and say so."""
        self._programs.clear()
        needed = memory_needed(program)
        if needed:
            self.step_memory = min(self.step_memory or needed, needed) - 1
            self._programs.most = 1
        asked = "a smaller one is asked for" if needed and program.batch_size > 1 else "give this device more memory"
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        return f"not enough memory for batches of {program.batch_size} samples: {asked} ({reason})"
