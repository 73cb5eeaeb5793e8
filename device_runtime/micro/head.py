# mypy: ignore-errors
"""Trains the last layer of the heads in place, or evaluates them: SGD with momentum on what a fixed encoder gives.

Generators: they yield after every sample, so that the connection lives and a cancelled plan ends. The step is that of
docs/protocol for the tensors that are trained here; the encoder stays as it came, and is not in the update.
"""

import math
import random
from array import array

from .network import blank, linear
from .wire import Refused

PIECE = 64  # numbers of an update that are copied at a time: 256 bytes are always free
ENCODER = "encoder"  # the part that a board does not train, and how a report says so


class Layer:
    """A layer that is trained: weights [outputs x inputs] and a bias, with momentum."""

    def __init__(self, weights, head):
        self.names = [head.weight] + ([head.bias] if head.bias else [])
        sizes = [weights.size(name) for name in self.names]
        self.values, self.anchor, self.momentum, self.gradient = [
            [weights.take(size) or blank(size) for size in sizes] for _ in range(4)
        ]
        for name, values, anchor in zip(self.names, self.values, self.anchor):
            weights.fill(name, values)
            anchor[:] = values
        _clear(self.momentum)
        self.clear()

    def clear(self):
        """Forget the gradient."""
        _clear(self.gradient)

    def output(self, features):
        """The layer's answer."""
        return linear(features, self.values[0], self.values[1] if len(self.values) > 1 else None)

    def add(self, features, pull):
        """Add one sample's gradient, for the gradient ``pull`` by the outputs."""
        weight, place = self.gradient[0], 0
        for value in pull:
            for feature in features:
                weight[place] += value * feature
                place += 1
        if len(self.gradient) > 1:
            for row, value in enumerate(pull):
                self.gradient[1][row] += value

    def scale(self, factor):
        """Multiply the gradient."""
        for gradient in self.gradient:
            for place, value in enumerate(gradient):
                gradient[place] = value * factor

    def square(self):
        """The sum of the gradient's squares."""
        total = 0.0
        for gradient in self.gradient:
            for value in gradient:
                total += value * value
        return total

    def step(self, training):
        """d = g + wd*w + mu*(w - anchor); m = momentum*m + d; w = w - lr*m."""
        rate, keep = training["learning_rate"], training["momentum"]
        decay, pull = training["weight_decay"], training["proximal_mu"]
        for values, anchor, momentum, gradient in zip(self.values, self.anchor, self.momentum, self.gradient):
            for place, value in enumerate(values):
                change = gradient[place] + decay * value + pull * (value - anchor[place])
                momentum[place] = keep * momentum[place] + change
                values[place] = value - rate * momentum[place]


def _clear(arrays):
    for each in arrays:
        for place in range(len(each)):
            each[place] = 0.0


class Features:
    """What the last layers read of each sample: kept where the arena has room, else made again.

    Not in memory of their own: many small pieces between what a sample's computation leaves behind would cut the rest
    into pieces too small for anything (measured: 73 KB free, none of them 4 KB long).
    """

    def __init__(self, network, data, tasks, indices):
        self._network, self._data, self._tasks = network, data, tasks
        first = network.features(data.x(indices[0]), tasks)
        self._sizes = [len(first[task]) for task in tasks]
        self._width = sum(self._sizes)
        self._numbers = network.weights.rest()
        self._places = {index: place for place, index in enumerate(indices[: len(self._numbers) // self._width])}
        self._done = set()

    def clear(self):
        """Let go of them."""
        self._places, self._numbers = {}, None

    def of(self, index):
        """By task, for the sample ``index``."""
        place = self._places.get(index)
        if place is None:
            return self._network.features(self._data.x(index), self._tasks)
        start, kept = place * self._width, {}
        made = None if index in self._done else self._network.features(self._data.x(index), self._tasks)
        for task, size in zip(self._tasks, self._sizes):
            kept[task] = self._numbers[start : start + size]
            if made:
                kept[task][:] = made[task]
            start += size
        self._done.add(index)
        return kept


def labelled_samples(data, tasks):
    """The train samples with a label of any of ``tasks``, as an array."""
    found, count = array("I", range(sum(map(_one, data.indices(0))))), 0
    for index in data.indices(0):
        if any([data.target(task, index) is not None for task in tasks]):
            found[count] = index
            count += 1
    return found[:count]


def _one(_index):
    return 1


def train(network, data, plan, report, indices=None):
    """Train for the plan's epochs; fills ``report`` and returns the layers by task. Yields after every sample.

    ``indices``: what ``labelled_samples`` found, if it was asked before: it wants a kilobyte in one piece.
    """
    training = plan["training"]
    if training["balance"] is not None:
        raise Refused("a board does not balance tasks by GradNorm")
    tasks = _labelled(network, data, 0)
    layers = {task: Layer(network.weights, network.heads[task]) for task in tasks}
    indices = labelled_samples(data, tasks) if indices is None else indices
    features = Features(network, data, tasks, indices)
    report["steps"] = 0
    for epoch in range(training["local_epochs"]):
        means = Means(tasks)
        _shuffle(indices, training["seed"] + epoch)
        for start in range(0, len(indices), network.batch_size):
            batch = Means(tasks)
            for index in indices[start : start + network.batch_size]:
                found = features.of(index)
                for task in tasks:
                    target = data.target(task, index)
                    if target is not None:
                        loss, pull = network.heads[task].loss(layers[task].output(found[task]), target)
                        layers[task].add(found[task], pull)
                        batch.add(task, loss)
                yield
            _step(network, layers, batch, training)
            means.merge(batch)
            report["steps"] += 1
    features.clear()
    report["samples"] = _counts(plan, means)
    report["samples"][ENCODER] = 0
    report["losses"] = _finite(means.means(), "losses")
    return layers


def _step(network, layers, batch, training):
    for task, layer in layers.items():
        if batch.counts[task]:
            layer.scale(training["task_weights"].get(task, 1.0) / batch.counts[task])
    if network.clip_norm > 0:
        norm = math.sqrt(sum([layer.square() for layer in layers.values()]))
        if norm > network.clip_norm:
            for layer in layers.values():
                layer.scale(network.clip_norm / (norm + 1e-6))
    for layer in layers.values():
        layer.step(training)
        layer.clear()
        for values in layer.values:
            _finite({"weights": sum(values)}, "weights")


def evaluate(network, data, plan, report):
    """Losses and metrics over the test samples; fills ``report``. Yields after every sample."""
    tasks = _labelled(network, data, 1)
    losses, metrics = Means(tasks), Means(tasks)
    report["steps"] = 0
    for index in data.indices(1):
        found = None
        for task in tasks:
            target = data.target(task, index)
            if target is not None:
                found = found or network.features(data.x(index), tasks)
                out = network.output(task, found[task])
                losses.add(task, network.heads[task].loss(out, target)[0])
                metrics.add(task, network.heads[task].metric(out, target))
                yield
        report["steps"] += 1
    report["samples"] = _counts(plan, losses)
    report["losses"] = _finite(losses.means(), "losses")
    report["metrics"] = _finite(metrics.means(), "metrics")


class Means:
    """Sums and counts by task."""

    def __init__(self, tasks):
        self.sums, self.counts = {task: 0.0 for task in tasks}, {task: 0 for task in tasks}

    def add(self, task, value):
        """Take one sample's number in."""
        self.sums[task] += value
        self.counts[task] += 1

    def merge(self, other):
        """Take the numbers of another in."""
        for task, count in other.counts.items():
            self.sums[task] += other.sums[task]
            self.counts[task] += count

    def means(self):
        """By task, where there was any."""
        return {task: self.sums[task] / count for task, count in self.counts.items() if count}


def update_pieces(network, layers):
    """The bytes of an update: of each head that was trained all tensors, the trained ones as they are now.

    In the order of the layout, as a weight file of docs/protocol.
    """
    entries = [entry for entry in network.entries if entry["part"] in layers]
    trained = {}
    for layer in layers.values():
        for name, values in zip(layer.names, layer.values):
            trained[name] = values
    yield from header_of(entries)
    for entry in entries:
        values = trained.get(entry["name"])
        if values is None:
            for row in network.weights.rows(entry["name"], PIECE):
                yield bytes(row)
        else:
            for start in range(0, len(values), PIECE):
                yield bytes(values[start : start + PIECE])


def header_of(entries):
    """What stands before the numbers of a weight file, in pieces: in one it may have no room."""
    length = 0
    for piece in _told(entries):
        length += len(piece)
    yield (length + -length % 8).to_bytes(8, "little")
    yield from _told(entries)
    yield b" " * (-length % 8)


def _told(entries):
    start, offset = "{", 0
    for entry in entries:
        size = 4
        for axis in entry["shape"]:
            size *= axis
        shape = ",".join([str(axis) for axis in entry["shape"]])
        told = (start, _quoted(entry["name"]), shape, offset, offset + size)
        yield ('%s"%s":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}' % told).encode()
        start, offset = ",", offset + size
    yield b"}" if entries else b"{}"


def _quoted(name):
    if len(name.encode()) == len(name):
        return name
    return "".join([letter if ord(letter) < 128 else _escaped(ord(letter)) for letter in name])


def _escaped(code):
    if code < 0x10000:
        return "\\u%04x" % code
    code -= 0x10000  # a pair, as JSON has it
    return "\\u%04x\\u%04x" % (0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF))


def _labelled(network, data, split):
    tasks = [task for task in network.tasks if data.count(task, split)]
    if not tasks and split == 0:
        raise Refused("this board holds no labelled train sample for this plan")
    return tasks


def _counts(plan, means):
    return {task: means.counts.get(task, 0) for task in plan["tasks"]}


def _finite(values, what):
    for value in values.values():
        if value - value != 0:
            message = "the %s are no longer finite: lower the learning rate" % what
            raise Refused(message)
    return values


def _shuffle(indices, seed):
    random.seed(seed & 0xFFFFFFFF)
    for place in range(len(indices) - 1, 0, -1):
        other = random.getrandbits(30) % (place + 1)
        indices[place], indices[other] = indices[other], indices[place]
