# mypy: ignore-errors
"""A board's configuration, and what is wrong with it, before it begins."""

import json
import os

KINDS = ("class", "value", "direction")


def read(path):
    """The configuration in the JSON file ``path``; None if it cannot be used, and the console says why."""
    try:
        with open(path) as file:
            config = json.load(file)
        wrong = complaint(config) or _folders(config)
    except OSError as error:
        wrong = "cannot be read: %s" % error
    except (ValueError, UnicodeError):
        wrong = "is no JSON: look for a comma or a quote too many or too few"
    if wrong:
        print("mas-edge: %s %s" % (path, wrong))
        return None
    return config


def _folders(config):
    try:
        os.mkdir(config["state"])
    except OSError:
        pass  # it is there, or the next line says
    if not _is_there(config["state"]):
        return "has a state, %s, that cannot be made: make the folder that it is to lie in" % config["state"]
    if config.get("data") and not _is_there(config["data"] + "/x.npy"):
        print("mas-edge: there is no %s/x.npy: this board has no samples, and tries models only" % config["data"])
    return ""


def _is_there(path):
    try:
        return bool(os.stat(path))
    except OSError:
        return False


def complaint(config):
    """What a configuration lacks, in words; empty if nothing. Names and files are looked at by who uses them."""
    if not isinstance(config, dict):
        return "is no object: it begins with { and ends with }"
    for key in ("broker", "fleet", "name", "state"):
        if not isinstance(config.get(key), str) or not config[key]:
            return "lacks %s, a text" % key
    for key, default in (("port", 1883), ("arena", 0)):
        if type(config.get(key, default)) is not int:
            return "has no whole number as %s" % key
    shape, tasks = config.get("input_shape"), config.get("tasks", None if config.get("data") else {})
    if not isinstance(shape, list) or not shape or any([type(size) is not int or size < 1 for size in shape]):
        return "lacks input_shape, the sizes of a sample such as [6, 64]"
    if not isinstance(tasks, dict):
        return 'lacks tasks, such as {"exercise": {"kind": "class", "classes": 7}}'
    for task, known in tasks.items():
        kind = known.get("kind") if isinstance(known, dict) else None
        if kind not in KINDS or (kind == "class" and type(known.get("classes")) is not int):
            return "has a task %s without a kind, of %s, or without classes, their number" % (task, ", ".join(KINDS))
    return ""
