# mypy: ignore-errors
"""On the board: carry out a plan to evaluate and one to train, as they come from the agent. ``CONFIG PROGRAM WEIGHTS``

Prints what a board reports of both as JSON, and the name of the update; ends with an error if there is no memory.
"""

import gc
import json
import sys
from array import array

from device_runtime.micro import boot

PACKAGE = "device_runtime.micro."
TRAINING = {
    "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "local_epochs": 2, "seed": 1, "task_weights": {},
    "proximal_mu": 0.0, "balance": None,
}  # fmt: skip


def main(path, program, weights):
    """Load all as ``boot`` does, then work."""
    config = boot._read(path)
    arena = array("f", range(config.get("arena", boot.ARENA) // 4))
    for name in boot.TRAINS:
        gc.collect()
        __import__(PACKAGE + name)
    device, data = sys.modules[PACKAGE + "device"], sys.modules[PACKAGE + "data"]
    board = device.Device(config, data.Folder(config["data"], config["tasks"], config["input_shape"]), arena)
    board._birth()
    here = board._store.path
    board._store.path = lambda name: name if "/" in name else here(name)  # program and weights lie elsewhere
    for kind in ("evaluate", "train"):
        plan = {
            "kind": kind, "tasks": config["plan"], "program": {"artifact": program}, "training": TRAINING,
            "weights": {"manifest": {"artifact": weights}},
        }  # fmt: skip
        work = board._carry_out(plan)
        try:
            while True:
                next(work)
                gc.collect()
        except StopIteration as end:
            report, manifest = end.value
            print(json.dumps({"losses": report["losses"], "update": manifest and manifest["artifact"]}))


main(*sys.argv[1:])
