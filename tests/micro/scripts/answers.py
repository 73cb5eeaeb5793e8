# mypy: ignore-errors
"""A board answers for every sample of a model bit by bit, and lives through damaged files; ``MODEL ANSWERS FOLDER``."""

import os
import sys
from array import array

import device_runtime.micro.dense as dense
import device_runtime.micro.dot as plain
from device_runtime.micro import int8
from device_runtime.micro.flash import _copy
from device_runtime.micro.tflite import Graph
from device_runtime.micro.wire import Refused

DAMAGED = 12  # copies of the model, each with a byte that is another one


def main(model, answers, folder):
    """Compare, then damage."""
    assert dense.dot is not plain.dot, "this port makes machine code"
    with open(answers, "rb") as file:
        told = array("b", file.read())
    loaded = int8.load(model, names_of(model))
    samples = compare(loaded, told)
    dense.dot = plain.dot  # what a port without machine code runs
    assert compare(loaded, told) == samples
    refused = damage(model, folder + "/damaged.model")
    print("%d samples %d refused" % (samples, refused))


def names_of(path):
    """As many tasks as it has outputs, which have names of their own."""
    with open(path, "rb") as file:
        return ["task %d" % number for number in range(len(Graph(file).outputs))]


def compare(model, told):
    """How many samples it was right in."""
    index, width = model._source[0], 0
    width = model._sizes[index]
    sizes = [model._sizes[place] for place, _ in [model._tasks[task] for task in sorted(model._tasks)]]
    samples = len(told) // (width + sum(sizes))
    for sample in range(samples):
        answers, place = model.answer(told[sample * width : (sample + 1) * width]), samples * width
        for task, size in zip(sorted(model._tasks), sizes):
            start = place + sample * size
            assert list(answers[task]) == list(told[start : start + size]), (sample, task)
            place += samples * size
    return samples


def damage(model, path):
    """How many of the damaged copies were refused; the others answer something, or raise what the agent expects."""
    _copy(model, path)
    tasks, size, refused, place = names_of(model), os.stat(model)[6], 0, 1
    for _ in range(DAMAGED):
        place = place * 7919 % size
        flip(path, place)
        try:
            loaded = int8.load(path, tasks)
            loaded.answer(array("b", bytes(loaded._sizes[loaded._source[0]])))
        except Refused:
            refused += 1
        except (MemoryError, ValueError, IndexError, KeyError, TypeError):
            pass
        flip(path, place)
    return refused


def flip(path, place):
    """Make one byte another one, or that one again."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0] ^ 0x5A
        file.seek(place)
        file.write(bytes((byte,)))


main(*sys.argv[1:])
