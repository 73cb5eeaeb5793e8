"""Fashion-MNIST with five tasks an image, parted among devices by class: real pictures, one data folder a device.

The pictures are those of H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms" (2017), arXiv:1708.07747: 70,000 garments of 28 x 28 grey pixels in ten classes, as the
Debian package ``dataset-fashion-mnist`` installs them (Expat licence). Nothing is downloaded.

A sample is a picture with a margin of 2, turned by a quarter of a circle zero to three times, with a square blacked
out. The network is asked for the garment, the number of turns, and, of the picture without the square, the silhouette,
the edges and every pixel. Each device has classes of its own: its shares are drawn from a Dirichlet distribution (Hsu,
Qi and Brown 2019, arXiv:1909.06335), for training and for testing alike. Test pictures are those of the test files.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.folder_set import FolderSet, make_once
from mas_edge.protocol.errors import DataError

SOURCE = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package
PACKAGE = "dataset-fashion-mnist"
FILES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
         "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}  # fmt: skip
RECIPE = 1  # of the folders; goes up when the same arguments give other folders
SIDE, MARGIN = 28, 2
SIZE = SIDE + 2 * MARGIN
GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "trainer", "bag", "boot")
DARK = np.float32(0.1)  # of what is round the garments; the pictures' background is not black everywhere
SQUARE = 10  # pixels along a side of what is blacked out: a tenth of the picture

# Of the training pictures, rounded; fixed so that no device's data leaks into another's.
CENTER, SPREAD = np.float32(0.18), np.float32(0.31)  # mean and standard deviation of what the network sees
# The mean distance from the median, which is 0: more than half of a picture is black. As with rooms, values are divided
# by it, so that the best constant for all pixels costs 1.
EDGES_UNIT, PIXELS_UNIT = np.float32(0.0793), np.float32(0.219)

DATA_TOML = f"""\
format = 1
input_shape = [1, {SIZE}, {SIZE}]  # grey, standardised

[tasks.garment]  # {", ".join(GARMENTS)}
kind = "class"
classes = {len(GARMENTS)}

[tasks.rotation]  # quarters of a circle, anticlockwise
kind = "class"
classes = 4

[tasks.silhouette]  # 1 = garment
kind = "dense_class"
shape = [{SIZE}, {SIZE}]
classes = 2

[tasks.edges]  # the length of the gradient, scaled
kind = "value"
shape = [{SIZE}, {SIZE}]

[tasks.inpainting]  # the picture without the square, scaled
kind = "value"
shape = [{SIZE}, {SIZE}]
"""

Array = NDArray[Any]
F32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FashionChoice:
    """What to make."""

    devices: int = 10
    alpha: float = 0.5  # of the Dirichlet distribution: small = each device has few classes
    samples: int = 128  # to train on, of each device
    test_samples: int = 64
    seed: int = 0

    def check(self) -> None:
        """Raise DataError that names the option, what it holds, and what is allowed."""
        rules = [
            ("--devices", self.devices, "1 to 10000", 1 <= self.devices <= 10_000),
            ("--alpha", self.alpha, "more than 0, up to 1000000", 0 < self.alpha <= 1e6),
            ("--samples", self.samples, "1 to 60000", 1 <= self.samples <= 60_000),
            ("--test-samples", self.test_samples, "1 to 10000", 1 <= self.test_samples <= 10_000),
            ("--seed", self.seed, "0 or more", self.seed >= 0),
        ]
        for option, value, allowed, fine in rules:
            if not fine:
                message = f"{option} is {value!r}; allowed: {allowed}"
                raise DataError(message)


@dataclass(frozen=True)
class FashionFolders:
    """The device folders below ``directory``; ``created`` is False if they were there before."""

    directory: Path
    folders: list[Path]
    created: bool


def make_fashion(directory: Path, choice: FashionChoice, source: Path = SOURCE) -> FashionFolders:
    """Make the folders ``device-01`` and so on below ``directory``, or find that they are there.

    Raises:
        DataError: ``choice`` asks for too much, the files of ``source`` are missing or no such pictures, or
            ``directory`` holds something else, or other or changed folders.
    """
    choice.check()
    names = [f"device-{number:02d}" for number in range(1, choice.devices + 1)]
    recipe = {"recipe": RECIPE, "arguments": asdict(choice)}
    created = make_once(directory, FolderSet("fashion", recipe, lambda made: _write(made, names, choice, source)))
    return FashionFolders(directory, [directory / name for name in names], created)


def _write(directory: Path, names: list[str], choice: FashionChoice, source: Path) -> None:
    parts = {split: load(source, split) for split in FILES}
    shares = [np.random.default_rng([choice.seed, n]).dirichlet([choice.alpha] * 10) for n in range(len(names))]
    wanted = {"train": choice.samples, "test": choice.test_samples}
    chosen = {split: partition(labels, shares, wanted[split], choice.seed) for split, (_, labels) in parts.items()}
    for number, name in enumerate(names):
        folder = directory / name
        folder.mkdir()
        (folder / "data.toml").write_text(DATA_TOML, encoding="utf-8", newline="\n")
        rng = np.random.default_rng([choice.seed, number, 1])
        made = []
        for split, (images, labels) in parts.items():
            rows = chosen[split][number]
            of_split = np.full(len(rows), split == "test", np.uint8)
            made.append({"split": of_split, "garment": labels[rows], **samples_of(images[rows], rng)})
        for array in made[0]:
            np.save(folder / f"{array}.npy", np.concatenate([part[array] for part in made]), allow_pickle=False)


def load(source: Path, split: str) -> tuple[Bytes, Bytes]:
    """The pictures [N, 28, 28] and the classes [N] of the files in ``source``. Raises DataError."""
    images, labels = (read_idx(source / name) for name in FILES[split])
    if images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(GARMENTS):
        message = (
            f"{source}: {FILES[split][0]} and {FILES[split][1]} hold arrays of shapes {list(images.shape)} and "
            f"{list(labels.shape)}, classes up to {labels.max(initial=0)}; expected [N, {SIDE}, {SIDE}], [N] and 9"
        )
        raise DataError(message)
    return images, labels


def read_idx(path: Path) -> Bytes:
    """Read ``path`` or ``path``.gz: bytes in the idx format, [N, ...].

    The format: two zeros, 8 for unsigned bytes, the number of axes, each axis as a big-endian uint32, then the data.

    Raises:
        DataError: there is no such file, or it is cut off or of another format.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except FileNotFoundError:
        message = f"there is no {packed}: apt install {PACKAGE}, or name the folder of its files as --source"
        raise DataError(message) from None
    except (OSError, EOFError, zlib.error) as error:
        message = f"{packed} cannot be read: {error}: apt install --reinstall {PACKAGE}"
        raise DataError(message) from None
    axes = data[3] if len(data) > 3 else 0
    shape = tuple(np.frombuffer(data[4 : 4 + 4 * axes], ">u4").tolist()) if len(data) >= 4 + 4 * axes else ()
    if data[:3] != b"\0\0\x08" or not shape or len(data) != 4 + 4 * axes + math.prod(shape):
        message = f"{path} is not a whole idx file of bytes: apt install --reinstall {PACKAGE}"
        raise DataError(message)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def partition(labels: Bytes, shares: list[NDArray[np.float64]], count: int, seed: int) -> list[NDArray[np.intp]]:
    """Draw ``count`` rows for each device, no row twice: classes in the device's ``shares`` as long as there are any.

    A device's rows depend on the devices before it only. Raises DataError if there are not enough rows for all.
    """
    if count * len(shares) > len(labels):
        message = f"{len(shares)} devices with {count} samples each need more than the {len(labels)} pictures there are"
        raise DataError(message)
    rng = np.random.default_rng([seed, 0, 2])
    order = rng.permutation(len(labels))
    left = [list(order[labels[order] == c]) for c in range(len(GARMENTS))]
    chosen = []
    for number, share in enumerate(shares):
        of_device = np.random.default_rng([seed, number, 3])
        rows: list[int] = []
        while len(rows) < count:
            weights = np.where([bool(rest) for rest in left], share + 1e-12, 0)  # a share can be 0 to all digits
            wanted = of_device.choice(len(GARMENTS), count - len(rows), p=weights / weights.sum())
            for c in wanted.tolist():
                if left[c]:
                    rows.append(int(left[c].pop()))
        chosen.append(np.array(rows, np.intp))
    return chosen


def samples_of(images: Bytes, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs and targets, but for the garment, of pictures [N, 28, 28]."""
    turns = rng.integers(0, 4, len(images))
    corner = rng.integers(MARGIN, SIZE - MARGIN - SQUARE + 1, (2, len(images), 1, 1))
    whole = np.pad(images, [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)]).astype(np.float32) / np.float32(255)
    for quarter in (1, 2, 3):
        whole[turns == quarter] = np.rot90(whole[turns == quarter], quarter, axes=(1, 2))
    y, x = np.arange(SIZE)[:, None], np.arange(SIZE)
    hidden = (y >= corner[0]) & (y < corner[0] + SQUARE) & (x >= corner[1]) & (x < corner[1] + SQUARE)
    seen = np.where(hidden, np.float32(0), whole)
    return {
        "x": ((seen - CENTER) / SPREAD)[:, None],
        "rotation": turns.astype(np.uint8),
        "silhouette": silhouette(whole),
        "edges": edges(whole) / EDGES_UNIT,
        "inpainting": whole / PIXELS_UNIT,
    }


def silhouette(whole: F32) -> Bytes:
    """1 where the garment is, [N, H, W]: everything but the dark pixels that are connected with the border."""
    dark = whole < DARK
    outside = dark.copy()
    outside[:, 1:-1, 1:-1] = False
    while True:
        grown = outside.copy()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= dark
        if np.array_equal(grown, outside):
            return np.asarray(~outside, np.uint8)
        outside = grown


def edges(whole: F32) -> F32:
    """The length of the gradient by central differences, [N, H, W]; pictures are black beyond their border."""
    wide = np.pad(whole, [(0, 0), (1, 1), (1, 1)])
    down, across = wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1], wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]
    return np.asarray(np.hypot(down, across) / 2, np.float32)
