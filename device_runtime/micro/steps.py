# mypy: ignore-errors
"""A .tflite file as steps that follow each other, and what they take of the memory."""

import gc
from array import array

from .ends import blank, number, quantized, real
from .tflite import FLOAT32, Graph
from .wire import Refused

RESHAPE = 22
KERNEL = 2  # of a layer's numbers: how large the kernel is that it has in memory
TWO = (0, 18, 41)  # operators whose second input is no weight and no list of axes
NEVER = 0x7FFF  # is a step the last that needs an output


def free_memory():
    """Bytes of memory that are free; in CPython there is no end of them, and to collect takes seconds."""
    if not hasattr(gc, "mem_free"):
        return 1 << 30
    gc.collect()
    return gc.mem_free()


class Model:
    """A model that runs. ``functions_of`` gives what makes steps, by the numbers of the operators."""

    def __init__(self, path, tasks, functions_of):
        self._path, self._constants = path, {}
        with open(path, "rb") as file:
            graph = Graph(file)
            codes = array("i", [operator.code for operator in graph.operators()])
            functions = functions_of(set(codes))
            free = free_memory()
            # Tables in one piece from the start: what grows finds no room in the end.
            self._steps = [None] * sum([code != RESHAPE for code in codes])
            self._same, place = array("h", range(graph.count)), 0
            self._sizes = array("i", bytes(4 * graph.count))
            try:
                for operator in graph.operators():
                    place += self._take(functions, operator, place)
            except MemoryError:
                count, self._steps = len(self._steps), None
                message = "the model does not fit: %d of its %d operators fit into the memory that is free, %d bytes"
                raise Refused(message % (place, count, free))
            index = graph.inputs[0]
            source = graph.tensor(index)
            self._source, self._sizes[index] = (index, _end(source)), source.size
            named = graph.named(tasks)
            self._tasks = {task: (self._same[each], _end(graph.tensor(each))) for task, each in named.items()}
        self._last = array("h", bytes(2 * len(self._sizes)))
        for place, step in enumerate(self._steps):
            for index in step[-1]:
                self._last[index] = place
        for index, _ in self._tasks.values():
            self._last[index] = NEVER

    def _take(self, functions, operator, place):
        """Make one operator step number ``place``; how many steps it takes."""
        if operator.code == RESHAPE:  # the same integers under another number
            if operator.target().size != operator.tensor(0).size:
                raise ValueError
            self._same[operator.given[0]] = self._same[operator.taken[0]]
            return 0
        step = self._step(functions[operator.code], operator)
        free_memory()
        self._steps[place] = _again(step)
        return 1

    def _step(self, function, operator):
        """(what computes it, its arguments.., (number of what it gives, numbers of what it takes))."""
        given, target = operator.given[0], operator.target()
        taken = operator.taken[: 2 if operator.code in TWO else 1]
        for place, index in enumerate(taken):
            tensor = operator.tensor(place)
            if tensor.bytes:
                self._constants[index] = operator.weights(tensor), tensor.size
        self._sizes[given] = target.size
        return function(operator) + ((given,) + tuple([self._same[each] for each in taken]),)

    def rehearse(self):
        """Take the memory that a sample takes, in the same pieces; how much is left. Raises MemoryError."""
        size = self._sizes[self._source[0]]
        real_x, values, left = array("f", range(size)), {self._source[0]: blank(size)}, 1 << 30
        for place, step in enumerate(self._steps):
            numbers = step[-1]
            kept = [blank(self._constants[each][1]) for each in numbers[1:] if each in self._constants]
            if isinstance(step[-2], tuple):  # a layer, by whose rule sums are rounded
                kept.append(blank(step[1][KERNEL]))
            values[numbers[0]] = blank(self._sizes[numbers[0]])
            left = min(left, free_memory())
            self._drop(values, numbers, place)
        sizes = [len(values[index]) for index, _ in self._tasks.values()]
        kept = [array("f", range(size)) for size in sizes + [max(sizes)]]  # and one to hold an answer against
        left = min(left, free_memory())
        del kept, real_x  # which nothing else reads
        return left

    def _drop(self, values, numbers, place):
        for each in numbers:
            if self._last[each] == place and each in values:
                del values[each]

    def run(self, x):
        """The outputs of one sample ``x``, flat floats, by task as arrays of floats."""
        kind, scale, zero = self._source[1]
        found = self.answer(x if kind == FLOAT32 else quantized(x, scale, zero))
        for task, (_, (kind, scale, zero)) in self._tasks.items():
            found[task] = found[task] if kind == FLOAT32 else real(found[task], scale, zero)
        return found

    def answer(self, x):
        """The outputs of a sample, by task; they and ``x`` as the file stores them."""
        values = {self._source[0]: self._checked(x, self._source[0])}
        with open(self._path, "rb") as file:
            for place, step in enumerate(self._steps):
                numbers = step[-1]
                x = [self._constant(file, each) if each in self._constants else values[each] for each in numbers[1:]]
                values[numbers[0]] = self._checked(step[0](file, *(x + list(step[1:-1]))), numbers[0])
                x = None
                self._drop(values, numbers, place)
        return {task: values[index] for task, (index, _) in self._tasks.items()}

    def _checked(self, x, index):
        """``x`` if it has the size that the file says: machine code looks no further."""
        if len(x) != self._sizes[index]:
            raise ValueError
        return x

    def _constant(self, file, index):
        place, size = self._constants[index]
        found = blank(size)
        file.seek(place)
        if file.readinto(found) != size:
            raise ValueError
        return found


def _again(value):
    """``value`` once more, where there is room now: what was made while a file was read lies far apart."""
    if isinstance(value, tuple):
        return tuple([_again(each) for each in value])
    return value[:] if isinstance(value, array) else value


def _end(tensor):
    """What an input or output is: its kind, and of integers scale and zero."""
    if tensor.kind == FLOAT32:
        return tensor.kind, 1.0, 0
    return tensor.kind, number(tensor.scale()), tensor.zero
