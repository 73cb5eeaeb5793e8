"""The device folders of a set of rooms: one building each, with the job file and a contact sheet beside them."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mas_edge.datasets.folder_set import FolderSet, make_once
from mas_edge.datasets.rooms.jobs import job_text
from mas_edge.datasets.rooms.scene import CLASSES, SPLITS, Building, building
from mas_edge.datasets.rooms.targets import BY_LETTER, TASKS, Array, Kind, targets_of, views
from mas_edge.datasets.rooms.units import SCALES, scaled
from mas_edge.protocol.errors import DataError

RECIPE = 2  # of the folders; goes up when the same arguments give other folders
SHEET, JOB = "contact-sheet.png", "job.toml"
SHEET_BUILDINGS = 5  # at most


@dataclass(frozen=True)
class RoomsChoice:
    """What to make."""

    devices: int = 8
    size: int = 32  # pixels along a side
    samples: int = 16  # to train on, of each building
    test_samples: int = 64
    seed: int = 0
    first_building: int = 1
    tasks: str = "sdnkt"  # letters of ``targets.TASKS``

    def check(self) -> None:
        """Raise DataError that names the option, what it holds, and what is allowed."""
        letters = "".join(kind.letter for kind in TASKS)
        rules = [
            ("--devices", self.devices, "1 to 10000", 1 <= self.devices <= 10_000),
            ("--size", self.size, f"one of {', '.join(map(str, SCALES))}", self.size in SCALES),
            ("--samples", self.samples, "1 to 100000", 1 <= self.samples <= 100_000),
            ("--test-samples", self.test_samples, "1 to 100000", 1 <= self.test_samples <= 100_000),
            ("--seed", self.seed, "0 or more", self.seed >= 0),
            ("--first-building", self.first_building, "1 or more", self.first_building >= 1),
            ("--tasks", self.tasks, f"letters out of {letters}, each once", self._are_letters(letters)),
        ]
        for option, value, allowed, fine in rules:
            if not fine:
                message = f"{option} is {value!r}; allowed: {allowed}"
                raise DataError(message)

    def _are_letters(self, letters: str) -> bool:
        return bool(self.tasks) and len(set(self.tasks)) == len(self.tasks) and set(self.tasks) <= set(letters)

    @property
    def kinds(self) -> list[Kind]:
        """The chosen tasks, in the order of their letters."""
        return [BY_LETTER[letter] for letter in self.tasks]

    @property
    def buildings(self) -> list[Building]:
        """One for each device."""
        return [building(self.seed, self.first_building + i) for i in range(self.devices)]


@dataclass(frozen=True)
class RoomsFolders:
    """The device folders below ``directory``; ``created`` is False if they were there before."""

    directory: Path
    folders: list[Path]
    created: bool


def make_rooms(directory: Path, choice: RoomsChoice) -> RoomsFolders:
    """Make the folders ``building-01`` and so on below ``directory``, or find that they are there.

    Raises:
        DataError: ``choice`` is out of range, or ``directory`` holds something else, or other or changed folders.
    """
    choice.check()
    names = [_name(of) for of in choice.buildings]
    recipe = {"recipe": RECIPE, "arguments": asdict(choice)}
    created = make_once(directory, FolderSet("rooms", recipe, lambda made: _write(made, choice)))
    return RoomsFolders(directory, [directory / name for name in names], created)


def _name(of: Building) -> str:
    return f"building-{of.number:02d}"


def _write(directory: Path, choice: RoomsChoice) -> None:
    for of in choice.buildings:
        folder = directory / _name(of)
        folder.mkdir()
        (folder / "data.toml").write_text(_data_toml(choice), encoding="utf-8", newline="\n")
        for name, values in arrays_of(of, choice).items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
    text = job_text(choice.tasks, choice.size, choice.devices)
    (directory / JOB).write_text(text, encoding="utf-8", newline="\n")
    if importlib.util.find_spec("matplotlib"):  # it comes with the server, data can be made without
        from mas_edge.datasets.rooms.sheet import draw_sheet

        draw_sheet(choice.buildings[:SHEET_BUILDINGS], 0, choice.size, directory / SHEET)


def arrays_of(of: Building, choice: RoomsChoice) -> dict[str, Array]:
    """The arrays of one device folder: x, split and the scaled targets, training samples first."""
    counts = (choice.samples, choice.test_samples)
    parts: dict[str, list[Array]] = {"x": [], **{kind.name: [] for kind in choice.kinds}}
    for split in range(len(SPLITS)):
        for seen in views(of, split, counts[split], choice.size):
            parts["x"].append(seen.picture)
            for name, target in targets_of(seen, choice.tasks).items():
                parts[name].append(scaled(name, target, choice.size))
    split_of = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), counts)
    return {"split": split_of, **{name: np.concatenate(values) for name, values in parts.items()}}


def _data_toml(choice: RoomsChoice) -> str:
    size = choice.size
    lines = ["format = 1", f"input_shape = [3, {size}, {size}]  # red, green, blue, 0 to 1"]
    for kind in choice.kinds:
        if kind.letter == "s":
            lines += ["", f"[tasks.{kind.name}]  # {', '.join(CLASSES)}", 'kind = "dense_class"']
            lines += [f"shape = [{size}, {size}]", f"classes = {len(CLASSES)}"]
        else:
            shape = [*([kind.channels] if kind.channels else []), size, size]
            lines += ["", f"[tasks.{kind.name}]", 'kind = "value"', f"shape = {shape}"]
    return "\n".join(lines) + "\n"
