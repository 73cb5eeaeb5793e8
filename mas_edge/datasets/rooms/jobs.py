"""The job file of a set of rooms: the setting that MAS's claims are checked in, for any size and tasks.

The numbers are those of a search on one seed, confirmed on others (docs/results/methods.md); with more images or fewer
epochs, tasks trained one by one do not overfit and merging helps them less.
"""

from __future__ import annotations

from mas_edge.datasets.rooms.scene import CLASSES
from mas_edge.datasets.rooms.targets import BY_LETTER, Kind
from mas_edge.datasets.rooms.units import SCALES

_SETS = {"sdnkt": "5", "sdnkterca": "9"}  # task sets that go by their number
_HEAD = """\
# {devices} buildings, {count} tasks on pictures of their rooms, {size} x {size} pixels.
#   {command}
# What the tasks are, and how the pictures are made: models/rooms.md of the kit.
name = "{name}"
fleet = "rooms"
seed = 0

[data]
input_shape = [3, {size}, {size}] # red, green, blue, 0 to 1

[network]
family = "image"

[federation]
rounds = 48
merge_rounds = 11
groups = {groups}
devices_per_round = {per_round}
over_selection = 1.0 # nobody to spare: the weights must not depend on who is faster
local_epochs = 6
batch_size = 8
min_devices = {devices}

[optimizer]
learning_rate = 0.1
momentum = 0.9
weight_decay = 1e-4
after_split = "restart" # as in the released code: the groups begin at the full learning rate again
clip_norm = 2.0
scale_encoder_gradient = false # targets are scaled instead: a loss of 1 is that of a constant

[affinity]
kind = "first_order"
period = 12 # once in the 12 steps of a round on 16 images: 3 % of the work

[card]
description = \"\"\"\\
  Rendered rooms of {devices} imaginary buildings, with targets that follow exactly from the geometry, made by \\
  mas-edge data rooms. Targets are centred and divided by the unit beside each task, so that a constant costs 1.\"\"\"
licence = "none is needed: the pictures are computed, nothing is copied"
intended_use = "comparing methods of federated multi-task learning"
limits = "Drawn rooms without noise, clutter or people: nothing learned here is of use on photographs."

[card.units]
{units}"""


def job_text(letters: str, size: int, devices: int) -> str:
    """The job for the tasks ``letters`` on images of ``size`` x ``size`` pixels of ``devices`` buildings, as TOML."""
    kinds = [BY_LETTER[letter] for letter in letters]
    options = [
        *([f"--devices {devices}"] if devices != 8 else []),
        *([f"--size {size}"] if size != 32 else []),
        *([f"--tasks {letters}"] if letters != "sdnkt" else []),
    ]
    head = _HEAD.format(
        devices=devices,
        count=len(kinds),
        size=size,
        command=" ".join(["mas-edge data rooms --out rooms", *options]),
        name=f"rooms-{_SETS.get(letters, letters)}" + (f"-{size}" if size != 32 else ""),
        groups=min(2, len(kinds)),
        per_round=min(4, devices),
        units="\n".join(f'{kind.name} = "{_in_words(kind, size)}"' for kind in kinds),
    )
    return head + "\n" + "".join(_task(kind, size) for kind in kinds)


def _in_words(kind: Kind, size: int) -> str:
    return f"class: {', '.join(CLASSES)}" if kind.letter == "s" else f"{SCALES[size][kind.name].unit} {kind.unit}"


def _task(kind: Kind, size: int) -> str:
    shape = [*([kind.channels] if kind.channels else []), size, size]
    target = "dense_class" if kind.letter == "s" else "value"
    classes = f"classes = {len(CLASSES)}\n" if kind.letter == "s" else ""
    unit = f"unit = {SCALES[size][kind.name].unit} # {kind.unit}\n"
    return f'\n[[tasks]]\nname = "{kind.name}"\nkind = "{target}"\nshape = {shape}\n{classes}{unit}'
