# mypy: ignore-errors
"""Tries a model: in its slot, on its golden samples, on the board's own; and goes back to the one before."""

import time

from .flash import size_of
from .weights import Weights
from .wire import Refused

LATENCY_RUNS = 5  # docs/protocol, deploy


def undo(slots, plan, report):
    """Leave the plan's model, if it is in use, for the one before it."""
    report["healthy"] = slots.digest != plan["program"]["artifact"] or slots.roll_back()
    report["health_reason"] = "" if report["healthy"] else "there is no model before this one to go back to"


class Trial:
    """What it takes to try models: the board's configuration, artifacts and models, its samples or None."""

    def __init__(self, config, store, models, data):
        self._config, self._store, self._models, self._data = config, store, models, data

    def run(self, slots, plan, report):
        """Try the model in its slot, a step at a time; it stays only if it does what its golden samples say."""
        digest, hook, tried = plan["program"]["artifact"], self._hook(), False
        path, known = self._store.path(digest), slots.digest == digest
        try:
            if not known:
                self._models.bring(digest, path)
                if hasattr(hook, "look") and size_of(path) >= 0:
                    hook.look(path, plan["tasks"])  # what cannot run here is refused, and no slot written
                path, tried = slots.put_on_trial(path, digest), True
            model = hook.load(slots.active() if known else path, plan["tasks"])
            yield from self._check(model, plan, report)
            report["healthy"] = True
            if tried:
                slots.commit()
        except (Refused, MemoryError, ValueError, IndexError, KeyError, TypeError) as error:
            report["healthy"], report["health_reason"] = False, str(error) or type(error).__name__
            if tried:
                slots.refuse(report["health_reason"], for_ever=not isinstance(error, MemoryError))
        except GeneratorExit:  # the plan was cancelled, or its time is over: the model did no harm
            if tried:
                slots.refuse("given up", for_ever=False)
            raise

    def _hook(self):
        name = self._config.get("infer")
        if not name:
            from . import int8

            return int8
        return __import__(name, None, None, ["load"])

    def _check(self, model, plan, report):
        health = plan["health"]
        golden = Weights(self._store.path(health["golden"]["artifact"]), b"")
        width, times = 1, []
        for size in self._config["input_shape"]:
            width *= size
        samples = golden.size("x") // width
        for sample in range(samples):
            x = golden.part("x", sample * width, width)
            began = time.ticks_us()
            answers = model.run(x)
            times.append(time.ticks_diff(time.ticks_us(), began) / 1e6)
            for task in plan["tasks"]:
                count = golden.size("out." + task) // samples
                expected = golden.part("out." + task, sample * count, count)
                _compare(answers[task], expected, health["tolerance"], task)
            x = answers = expected = None  # not beside the next ones
            yield
        times = sorted(times[:LATENCY_RUNS])
        report["latency_s"] = times[len(times) // 2]
        if report["latency_s"] > health["max_latency_s"]:
            message = "one sample takes %.3f s; %.3f are allowed" % (report["latency_s"], health["max_latency_s"])
            raise Refused(message)
        if self._data:
            yield from self._measure(model, plan, report)

    def _measure(self, model, plan, report):
        """How the model does on the board's own test samples."""
        right, samples = {}, {}
        for index in self._data.indices(1):
            answers = None
            for task in plan["tasks"]:
                target = self._data.target(task, index)
                if target is None:
                    continue
                answers = answers or model.run(self._data.x(index))
                if any([value - value != 0 for value in answers[task]]):
                    raise Refused("an answer to an own sample is not finite")
                if self._config["tasks"][task]["kind"] == "class":
                    best = list(answers[task]).index(max(answers[task]))
                    right[task] = right.get(task, 0) + (best == target)
                    samples[task] = samples.get(task, 0) + 1
                yield
        report["samples"] = samples
        report["metrics"] = {task: right[task] / count for task, count in samples.items()}


def _compare(answer, expected, tolerance, task):
    size = max([1.0] + [abs(value) for value in expected])
    if len(answer) != len(expected):
        message = "%s: %d numbers, %d were expected" % (task, len(answer), len(expected))
        raise Refused(message)
    for got, wanted in zip(answer, expected):
        if not abs(got - wanted) <= tolerance * size:
            message = "%s: %.4g instead of %.4g" % (task, got, wanted)
            raise Refused(message)
