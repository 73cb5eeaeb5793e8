# mypy: ignore-errors
"""The program of a board: a network in float32, one sample and one layer at a time.

docs/protocol, Programs for boards. Everything but the last linear layer of each head stays as it was given; the
activations of a sample are flat arrays, channel by channel, and live until the last layer that reads them.
"""

import gc
import math
from array import array

from .weights import moved
from .wire import Refused

EPSILON = 1e-8  # of a vector's length, as torch's cosine_similarity


def blank(count):
    """``count`` float32 numbers that are about to be written; of bytes it would take their memory twice."""
    return array("f", range(count))


def linear(x, weight, bias):
    """W x + b, for ``weight`` row by row and ``bias`` or None."""
    width = len(x)
    out = blank(len(weight) // width)
    for row in range(len(out)):
        total, place = (bias[row] if bias else 0.0), row * width
        for value in x:
            total += value * weight[place]
            place += 1
        out[row] = total
    return out


def _linear(x, node, network, out):
    bias = network.tensor(node["bias"]) if node.get("bias") else None
    for row, taps in enumerate(network.weights.rows(node["weight"], len(x))):
        total = bias[row] if bias else 0.0
        for place, value in enumerate(x):
            total += value * taps[place]
        out[row] = total


def _relu(x, node, network, out):
    for place in range(len(x)):
        value = x[place]
        out[place] = value if value > 0 else 0.0


def _conv1d(x, node, network, out):
    bias = network.tensor(node["bias"]) if node.get("bias") else None
    length, width, stride, padding = node["length"], node["width"], node["stride"], node["padding"]
    channels = len(x) // length
    places = (length + 2 * padding - width) // stride + 1
    for kernel, weight in enumerate(network.weights.rows(node["weight"], channels * width)):
        base = bias[kernel] if bias else 0.0
        for place in range(places):
            start = place * stride - padding
            low, high = max(0, -start), min(width, length - start)
            total = base
            for channel in range(channels):
                at, tap = channel * length + start, channel * width
                for step in range(low, high):
                    total += x[at + step] * weight[tap + step]
            out[kernel * places + place] = total


def _group_norm(x, node, network, out):
    weight, bias = network.tensor(node["weight"]), network.tensor(node["bias"])
    groups, channels = node["groups"], len(weight)
    length, span = len(x) // channels, len(x) // groups
    for group in range(groups):
        start = group * span
        mean = _sum(x, start, span) / span
        spread = 0.0
        for place in range(start, start + span):
            spread += (x[place] - mean) * (x[place] - mean)
        scale = 1 / math.sqrt(spread / span + node["epsilon"])
        for place in range(start, start + span):
            channel = place // length
            out[place] = (x[place] - mean) * scale * weight[channel] + bias[channel]


def _mean(x, node, network, out):
    length = node["length"]
    for channel in range(len(out)):
        out[channel] = _sum(x, channel * length, length) / length


def _sum(x, start, count):
    total = 0.0
    for place in range(start, start + count):
        total += x[place]
    return total


IN_PLACE = ("relu", "group_norm")  # what may write over what it reads
LAYERS = {"linear": _linear, "relu": _relu, "conv1d": _conv1d, "group_norm": _group_norm, "mean": _mean}


# ---------------------------------------------------------------------- losses and metrics of one sample


def _cross_entropy(out, target):
    top = max(out)
    powers = [math.exp(value - top) for value in out]
    total = sum(powers)
    gradient = [power / total for power in powers]
    gradient[target] -= 1
    return math.log(total) + top - out[target], gradient


def _l1(out, target):
    n = len(out)
    gaps = [a - b for a, b in zip(out, target)]
    return sum([abs(gap) for gap in gaps]) / n, [((gap > 0) - (gap < 0)) / n for gap in gaps]


def _l2(out, target):
    n = len(out)
    gaps = [a - b for a, b in zip(out, target)]
    return sum([gap * gap for gap in gaps]) / n, [2 * gap / n for gap in gaps]


def _huber(out, target):
    n = len(out)
    gaps = [a - b for a, b in zip(out, target)]
    loss = sum([0.5 * gap * gap if abs(gap) < 1 else abs(gap) - 0.5 for gap in gaps]) / n
    return loss, [max(-1.0, min(1.0, gap)) / n for gap in gaps]


def _cosine(out, target):
    long, other = _size(out), _size(target)
    cos = sum([a * b for a, b in zip(out, target)]) / (long * other)
    return 1 - cos, [cos * a / (long * long) - b / (long * other) for a, b in zip(out, target)]


def _size(vector):
    return max(math.sqrt(sum([value * value for value in vector])), EPSILON)


def _accuracy(out, target):
    best = max(out)
    return 1.0 if out[target] == best and list(out).index(best) == target else 0.0


def _angle(out, target):
    return math.degrees(math.acos(max(-1.0, min(1.0, 1 - _cosine(out, target)[0]))))


LOSSES = {"cross_entropy": _cross_entropy, "l1": _l1, "l2": _l2, "huber": _huber, "cosine": _cosine}
METRICS = {
    "accuracy": _accuracy, "angle_degrees": _angle, "mean_absolute_error": lambda out, target: _l1(out, target)[0],
}  # fmt: skip


class Head:
    """The last layer of a task, and how it is measured: ``loss(out, target)`` gives the loss and its gradient."""

    def __init__(self, node, loss, metric, scale):
        self.source, self.weight, self.bias = node["of"], node["weight"], node.get("bias")
        self._loss, self.metric, self._scale = loss, metric, scale

    def loss(self, out, target):
        """Loss and gradient by ``out``, for one sample."""
        loss, gradient = self._loss(out, target)
        if self._scale == 1:
            return loss, gradient
        return loss * self._scale, [value * self._scale for value in gradient]


class Network:
    """A program as a dict, ready to run; the dict is emptied, and nothing of it kept but what runs.

    ``weights`` knows its tensors, and gives float32 memory that nobody else uses, as ``weights.Weights`` does:
    ``tensor``, ``size``, ``rows``, ``take``, ``rest``. What the layers say to each other lies there, in one piece.
    """

    def __init__(self, program, weights):
        self.tasks, self.batch_size, self.input_shape = program["tasks"], program["batch_size"], program["input_shape"]
        self.entries = [each for each in program["layout"]["entries"] if each["part"] in self.tasks]
        self.weights, self._layers, self.heads, self.clip_norm = weights, [], {}, 0.0
        self._last, losses, metrics = {}, {}, {}
        for node in program["methods"]["evaluate"]["nodes"]:
            known, op = node["kwargs"], node["op"]
            if op == "stack":
                self.clip_norm = known.get("clip_norm", self.clip_norm)
            elif op in LOSSES:
                losses[node["args"][0]["ref"]] = (known["task"], LOSSES[op], known.get("scale", 1))
            elif op in METRICS:
                metrics[known["task"]] = METRICS[op]
            elif op in LAYERS:
                known["op"], known["name"], known["of"] = op, node["name"], node["args"][0]["ref"]
                self._layers.append(known)
                self._last[known["of"]] = node["name"]
            else:
                message = "this board has no operator %r" % (op,)
                raise Refused(message)
        for node in [each for each in self._layers if each["name"] in losses]:
            task, loss, scale = losses[node["name"]]
            self.heads[task] = Head(node, loss, metrics[task], scale)
            self._layers.remove(node)
        # What is left of the program would live on as long as a pointer to it lies on the stack
        program["methods"]["evaluate"]["nodes"].clear()
        program["layout"]["entries"].clear()
        program.clear()
        node = known = losses = metrics = None
        gc.collect()
        texts = []
        self._layers, self.entries = moved(self._layers, texts), moved(self.entries, texts)
        self._last, self.tasks = moved(self._last, texts), moved(self.tasks, texts)
        gc.collect()
        if sorted(self.heads) != sorted(self.tasks) or any([self._is_body(each) for each in self.heads.values()]):
            raise Refused("the heads of this program do not end in a linear layer each")
        size = 1
        for each in self.input_shape:
            size *= each
        self._answers = self._places(size)

    def clear(self):
        """Let go of everything: a pointer that was left on the stack must not keep it alive."""
        self.entries, self._layers, self.heads, self.weights, self._answers = [], [], {}, None, None

    def tensor(self, name):
        """A tensor of the weights, as float32 array."""
        return self.weights.tensor(name)

    def _is_body(self, head):
        return any(head.weight == node.get("weight") for node in self._layers)

    def features(self, x, tasks):
        """What the last layers of ``tasks`` read, by task, for one sample ``x``; good until the next sample."""
        values = {"x": x}
        for node in self._layers:
            out = self._answers[node["name"]]
            LAYERS[node["op"]](values[node["of"]], node, self, out)
            values[node["name"]] = out
        return {task: values[self.heads[task].source] for task in tasks}

    def _places(self, size):
        """Where each layer answers, for samples of ``size`` numbers. Raises MemoryError."""
        sizes, found, wanted = {"x": size}, {}, {head.source for head in self.heads.values()}
        for node in self._layers:
            name, source, op = node["name"], node["of"], node["op"]
            if op in ("linear", "conv1d"):
                self.weights.reserve(
                    sizes[source] if op == "linear" else sizes[source] // node["length"] * node["width"]
                )
            sizes[name] = self._size(node, sizes[source])
            if op in IN_PLACE and source in found and self._last[source] == name and source not in wanted:
                found[name] = found[source]
                continue
            found[name] = self.weights.take(sizes[name])
            if found[name] is None:
                found[name] = blank(sizes[name])
        return found

    def _size(self, node, size):
        op = node["op"]
        if op == "mean":
            return size // node["length"]
        if op == "linear":
            return self.weights.size(node["weight"]) // size
        if op == "conv1d":
            length, width = node["length"], node["width"]
            places = (length + 2 * node["padding"] - width) // node["stride"] + 1
            return self.weights.size(node["weight"]) // (size // length * width) * places
        return size

    def output(self, task, features):
        """What the head of ``task`` answers to its ``features``, with the weights as they were given."""
        head = self.heads[task]
        out = blank(self.weights.size(head.weight) // len(features))
        _linear(features, {"weight": head.weight, "bias": head.bias}, self, out)
        return out
