# mypy: ignore-errors
"""Loads the agent so that the memory stays as whole as it can, and runs it: ``main("micro.json")``.

To compile a module leaves what stays of it scattered over all the memory that compiling it took: of 192 KB 45 were
free, and none of them 5 KB long (measured). So what has to be in one piece is taken before, and the largest modules are
compiled first, while there is room to scatter. Modules that were compiled before (mpy-cross) scatter nothing.
"""

import gc
import sys
from array import array

ARENA = 28 * 1024  # bytes for what layers answer, weights and features, in one piece for as long as the board runs
ANSWERS = ("wire", "flash", "agent", "mqtt", "data", "weights", "deploy", "device")
TRAINS = ("wire", "flash", "network", "head", "agent", "mqtt", "data", "weights", "device")


def main(path):
    """Run the board whose configuration is the JSON file ``path``; ends only if that cannot be used, and says why."""
    config = _read(path)
    if config is None:
        return
    # A letter that is taken out of a text is kept for ever, in a table that grows by some kilobytes in one piece: now.
    for _ in "".join([chr(code) for code in range(32, 127)]):
        pass
    train = bool(config.get("data")) and config.get("train", True)
    gc.collect()
    arena = array("f", range(config.get("arena", ARENA) // 4 if train else 0))  # of bytes it would be a copy
    for name in TRAINS if train else ANSWERS:
        gc.collect()
        module = __import__(name, globals(), None, ["run"], 1)
    gc.collect()
    try:
        module.run(config, arena)
    except module.Refused as error:
        print("mas-edge: %s: %s" % (path, error))


def _read(path):
    """What ``settings`` reads; its code is let go of before anything that stays is loaded: it takes 3 KB."""
    from . import settings

    config, name = settings.read(path), settings.__name__
    del sys.modules[name]
    delattr(sys.modules[name.rsplit(".", 1)[0]], "settings")
    return config
