# mypy: ignore-errors
"""The default of the hook ``infer``: int8 networks out of a .tflite file, computed in integers as LiteRT does.

Bit by bit what LiteRT's reference kernels answer, on every board. The weights stay in the flash and are read one kernel
at a time; in memory are what the layers say to each other, and what is known of each. A firmware with tflite-micro,
emlearn or kernels of its own is faster: it names a module with ``load`` in its configuration.
"""

from .steps import RESHAPE, Model, free_memory
from .wire import Refused

MARGIN = 6 * 1024  # bytes that stay free while a model is at work: messages come in between
OPERATORS = {  # by module, of which only those are loaded that a model needs
    0: "pairs.add", 1: "layers.average", 3: "layers.convolution", 4: "layers.depthwise", 6: "pointwise.dequantize",
    9: "dense.dense", 17: "layers.largest", 18: "pairs.multiply", 19: "pointwise.relu", 21: "pointwise.relu6",
    25: "softmax.softmax", 34: "moves.pad", 39: "moves.transpose", 40: "pairs.mean", 41: "pairs.subtract",
    76: "pointwise.rsqrt", 97: "moves.enlarge", 114: "pointwise.quantize", 130: "moves.broadcast",
}  # fmt: skip


def load(path, tasks):
    """The model at ``path``, whose outputs are called ``tasks`` or are theirs in that order. Raises Refused."""
    free = free_memory()
    try:
        model = Model(path, tasks, functions_of)
        left = model.rehearse()
    except MemoryError:
        message = "the model does not fit: %d bytes of memory are free, too few or in too small pieces" % free
        raise Refused(message)
    except (ValueError, IndexError, KeyError, OSError, TypeError, ArithmeticError, StopIteration, AttributeError):
        raise Refused("the model is no .tflite file that this board can run")
    if left < MARGIN:
        message = "the model does not fit: it takes %d bytes of memory, of which %d are free, and must leave %d"
        raise Refused(message % (free - left, free, MARGIN))
    return model


look = load  # before a slot is written: the same is asked of the file, and no layer computed


def functions_of(codes):
    """What makes steps of these operators; the modules are loaded while the memory is in one piece. Raises Refused."""
    found = {}
    for code in sorted(codes):
        if code in OPERATORS:
            free_memory()
            module, _, name = OPERATORS[code].partition(".")
            found[code] = getattr(__import__(module, globals(), None, [name], 1), name)
        elif code != RESHAPE:
            message = "the model needs operator %d, which int8.py has not: name a firmware's module in infer" % code
            raise Refused(message)
    return found
