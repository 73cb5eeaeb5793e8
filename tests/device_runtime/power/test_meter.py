"""The meter's arithmetic on a clock and sensors that the tests move."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.host import SensorError
from device_runtime.power.estimate import Estimate
from device_runtime.power.meter import FROZEN, Meter
from device_runtime.power.sensor import Part, Sensor
from mas_edge.protocol.messages import Energy

CORE = Estimate(2.0, 0.5, "a test")
SPIN = "import time\nwhile time.process_time() < 0.1: pass"


@dataclass
class Bench:
    """A machine whose power and time the test sets; a sensor of it that can fail, count or lie."""

    kind: Literal["watts", "joules"] = "watts"
    covers: Part = "board"
    period_s: float = 1.0
    needs_s: float = 2.0
    source: str = "bench"
    power: float = 5.0
    now: float = 0.0
    cpu: float = 0.0
    counted: float = 100.0
    failing: bool = False
    reads: int = 0
    busy_cores: float = field(default=0.0)

    def read(self) -> float:
        self.reads += 1
        if self.failing:
            message = "the bench is gone"
            raise SensorError(message)
        return self.power if self.kind == "watts" else self.counted

    def meter(self, sensors: Iterable[Sensor] | None = None, estimate: Estimate | None = CORE) -> Meter:
        used: list[Sensor] = [self] if sensors is None else list(sensors)
        return Meter(used, estimate, clock=lambda: self.now, cpu=lambda: self.cpu)

    def run(self, meter: Meter, seconds: int) -> None:
        """Let time pass, with a tick a second."""
        for _ in range(seconds):
            self.now += 1
            self.counted += self.power
            self.cpu += self.busy_cores
            meter.tick()

    def rest(self, meter: Meter, seconds: int = 10, power: float = 5.0) -> None:
        self.power, self.busy_cores = power, 0.0
        self.run(meter, seconds)


def ended(meter: Meter) -> Energy:
    energy = meter.end()
    assert energy is not None
    return energy


@pytest.mark.parametrize("kind", ["watts", "joules"])
def test_the_idle_power_is_taken_off_and_the_rest_goes_to_what_ran(kind: Literal["watts", "joules"]) -> None:
    bench = Bench(kind)
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.power = 12.0
    with meter.during("train"):
        bench.run(meter, 6)
    with meter.during("affinity"):
        bench.run(meter, 3)
    bench.run(meter, 1)
    energy = ended(meter)
    assert (energy.quality, energy.source, energy.problem, energy.error) == ("measured", "bench", "", 0.0)
    assert energy.idle_watts == pytest.approx(5.0)
    assert energy.joules == pytest.approx({"train": 42.0, "affinity": 21.0, "other": 7.0})


def test_activities_that_alternate_within_a_reading_share_it_by_their_seconds() -> None:
    bench = Bench("joules")
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    for _ in range(4):  # one tick for three quarters of training and one of affinity
        with meter.during("train"):
            bench.now += 0.75
        with meter.during("affinity"):
            bench.now += 0.25
        bench.counted += 25.0
        meter.tick()
    assert ended(meter).joules == pytest.approx({"train": 60.0, "affinity": 20.0, "other": 0.0})


def test_a_burst_of_something_else_does_not_move_the_idle_power() -> None:
    bench = Bench()
    meter = bench.meter()
    bench.rest(meter, 20)
    bench.rest(meter, 5, power=50.0)
    bench.rest(meter, 10)
    meter.begin()
    bench.power = 12.0
    bench.run(meter, 4)
    assert ended(meter).idle_watts == pytest.approx(5.0)


def test_a_sensor_that_shows_the_idle_power_whatever_is_done_is_not_believed() -> None:
    bench = Bench()
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.run(meter, 4)
    energy = ended(meter)
    assert energy.quality == "estimated"
    assert "shows nothing of the work" in energy.problem


def test_work_that_follows_work_at_once_leaves_the_idle_power_alone() -> None:
    bench = Bench()
    meter = bench.meter()
    bench.rest(meter)
    for plan in range(40):
        meter.begin()
        bench.power = 12.0 + plan / 100  # it moves, as all that is measured does
        bench.run(meter, 3)
        assert ended(meter).idle_watts == pytest.approx(5.0)


def test_before_anything_idle_was_seen_nothing_is_taken_off_and_that_is_said() -> None:
    bench = Bench()
    meter = bench.meter()
    meter.begin()
    bench.run(meter, 4)
    energy = ended(meter)
    assert energy.idle_watts is None
    assert energy.joules["other"] == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("seconds", "failing_for", "says"),
    [(1, 0, "too short"), (10, 2, "the bench is gone"), (10, 10, "the bench is gone")],
)
def test_what_the_sensor_cannot_tell_is_estimated_from_cpu_seconds_and_marked(
    seconds: int, failing_for: int, says: str
) -> None:
    bench = Bench()
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.power, bench.busy_cores = 12.0, 1.5
    with meter.during("train"):
        bench.failing = True
        bench.run(meter, failing_for)
        bench.failing = False
        bench.run(meter, seconds - failing_for)
    energy = ended(meter)
    assert (energy.quality, energy.error) == ("estimated", 0.5)
    assert says in energy.problem
    assert energy.source == "CPU seconds x 2 W (a test)"
    assert energy.joules == pytest.approx({"train": 2.0 * 1.5 * seconds, "other": 0.0})


def test_one_missed_reading_of_many_is_filled_in_and_told() -> None:
    bench = Bench()
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.power = 12.0
    bench.failing = True
    bench.run(meter, 1)
    bench.failing = False
    bench.run(meter, 39)
    energy = ended(meter)
    assert (energy.quality, energy.problem) == ("measured", "the bench is gone")
    assert energy.joules == pytest.approx({"other": 7.0 * 40})


def test_a_sensor_that_says_one_number_for_ever_is_not_believed_until_it_says_another() -> None:
    bench = Bench()
    meter = bench.meter()
    meter.begin()
    bench.power, bench.busy_cores = 12.0, 1.0
    bench.run(meter, FROZEN + 10)
    frozen = ended(meter)
    assert frozen.quality == "estimated"
    assert "bench stands still: 12 W for more than 60 readings in a row" in frozen.problem
    bench.rest(meter)
    meter.begin()
    bench.power = 12.5
    bench.run(meter, 10)
    moving = ended(meter)
    assert moving.quality == "measured"
    assert moving.joules["other"] == pytest.approx(75.0)


def test_processes_that_were_started_for_the_work_count_for_the_estimate() -> None:
    meter = Meter([], CORE)
    meter.begin()
    with meter.during("train"):
        subprocess.run([sys.executable, "-c", SPIN], check=True)
    energy = ended(meter)
    assert energy.joules["train"] >= CORE.watts_per_core * 0.1


@pytest.mark.parametrize(("step", "says"), [(0.0, "stands still"), (-1.0, "counts backwards")])
def test_a_counter_that_stands_still_or_goes_back_is_not_believed(step: float, says: str) -> None:
    bench = Bench("joules", needs_s=1.0)
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.power, bench.busy_cores = step, 1.0
    bench.run(meter, 10)
    energy = ended(meter)
    assert energy.quality == "estimated"
    assert says in energy.problem


def test_where_only_the_graphics_processor_counts_the_rest_is_estimated() -> None:
    bench = Bench("joules", covers="graphics", source="NVML")
    meter = bench.meter()
    bench.rest(meter)
    meter.begin()
    bench.power, bench.busy_cores = 35.0, 1.0
    with meter.during("train"):
        bench.run(meter, 10)
    energy = ended(meter)
    assert energy.quality == "estimated"
    assert energy.source == "NVML + CPU seconds x 2 W (a test)"
    assert energy.joules["train"] == pytest.approx(10 * 30.0 + 10 * 2.0)
    assert energy.error == pytest.approx(0.5 * 20 / 320)


def test_without_sensor_and_estimate_there_is_nothing_and_with_a_broken_sensor_its_reason() -> None:
    bench = Bench(failing=True)
    silent, broken = bench.meter([], None), bench.meter(None, None)
    for meter in (silent, broken):
        meter.begin()
        bench.run(meter, 5)
    assert silent.end() is None
    assert broken.end() == Energy(quality="none", problem="the bench is gone")


def test_plans_do_not_wait_for_a_sensor_that_takes_seconds_to_answer() -> None:
    bench = Bench(period_s=60.0, needs_s=2.0)
    meter = bench.meter()
    bench.run(meter, 1)
    asked = bench.reads
    for _ in range(5):
        meter.begin()
        bench.now += 4
        energy = ended(meter)
    assert bench.reads == asked
    assert energy.joules == pytest.approx({"other": 20.0})


@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["train", "affinity", "evaluate", ""]), st.floats(0.01, 5.0), st.floats(1.0, 40.0)),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_the_parts_add_up_to_the_whole(plan: list[tuple[str, float, float]]) -> None:
    bench = Bench("joules", power=1.0, needs_s=0.0)
    meter = bench.meter()
    meter.tick()
    meter.begin()
    total = 0.0
    for activity, seconds, power in plan:
        if activity:
            with meter.during(activity):
                bench.now += seconds
        else:
            bench.now += seconds
        bench.counted += seconds * power
        total += seconds * power
        meter.tick()
    energy = ended(meter)
    assert energy.quality == "measured"
    assert sum(energy.joules.values()) == pytest.approx(total)
