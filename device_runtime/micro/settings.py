# mypy: ignore-errors
"""What is wrong with a board's configuration, before it begins."""

KINDS = ("class", "value", "direction")


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
