# mypy: ignore-errors
"""On the board: the code that trains and the code that runs a model by turns, as plans come. ``turns.py MODEL``

Prints how many bytes are free each time when the code that trains is there, and the modules of the agent by then.
"""

import gc
import sys
from array import array

from device_runtime.micro import boot

TURNS = 3
PACKAGE = "device_runtime.micro."


def main(model):
    """Load all as ``boot`` does, and take turns."""
    assert boot._read("/none") is None
    arena = array("f", range(boot.ARENA // 4))
    for name in boot.TRAINS:
        gc.collect()
        __import__(PACKAGE + name)
    device = sys.modules[PACKAGE + "device"]
    for _ in range(TURNS):
        train(device)
        deploy(device, model)
    train(device)
    assert len(arena) == boot.ARENA // 4


def train(device):
    """As for a plan to train."""
    device._forget(device.TRIAL)
    from device_runtime.micro import head, network

    gc.collect()
    loaded = sorted([name[len(PACKAGE) :] for name in sys.modules if name.startswith(PACKAGE)])
    print(gc.mem_free(), " ".join(loaded))
    del head, network


def deploy(device, model):
    """As for a plan to deploy."""
    device._forget(device.TRAINING)
    from device_runtime.micro import deploy, int8
    from device_runtime.micro.tflite import Graph

    with open(model, "rb") as file:
        names = ["task %d" % number for number in range(len(Graph(file).outputs))]
    int8.load(model, names)
    del deploy, int8, Graph


main(*sys.argv[1:])
