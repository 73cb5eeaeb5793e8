"""Malicious devices of a simulation: what they send instead of what they trained, or train on instead of what they saw.

An update is what it changes, d = theta_k - theta. A liar sends theta - d (``sign flip``), theta + 100 d (``scale``),
theta + noise ten times as long as d (``noise``), or is honest about what false labels taught it (``label flip``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from zlib import crc32

import numpy as np
from msgspec.structs import replace

from device_runtime.data_check import TRAIN
from device_runtime.data_header import read_header
from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.protocol.errors import DataError
from mas_edge.protocol.messages import FromDevice, Offer, Plan
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, gather, pack, unpack
from mas_edge.simulation.run import Tamper

SCALE = 100.0  # so much that one of a hundred devices outweighs all others in a mean
NOISE = 10.0  # the length of the noise, to that of an honest change
Attack = Callable[[Vector, np.random.Generator], Vector]  # an honest change -> what is sent instead


def _negative(change: Vector, _: np.random.Generator) -> Vector:
    return np.negative(change)


def _scaled(change: Vector, _: np.random.Generator) -> Vector:
    return np.multiply(change, np.float32(SCALE))


def _noise(change: Vector, rng: np.random.Generator) -> Vector:
    noise = rng.standard_normal(change.size)
    return np.asarray(noise * (NOISE * np.linalg.norm(change) / np.linalg.norm(noise)), np.float32)


ATTACKS: dict[str, Attack] = {"sign flip": _negative, "scale": _scaled, "noise": _noise}


def poisoner(attack: str, liars: Collection[str], seed: int = 0) -> Tamper:
    """Replace the updates of ``liars`` by those of one of ``ATTACKS``; the same noise for the same seed and plan."""

    def tamper(plan: Plan, answer: FromDevice, artifacts: ArtifactStore) -> FromDevice:
        if not isinstance(answer, Offer) or answer.manifest is None or plan.weights is None:
            return answer
        if answer.sender not in liars:
            return answer
        sent = unpack(artifacts.read(answer.manifest.artifact))
        layout = Layout([Entry(name, list(tensor.shape), ENCODER) for name, tensor in sent.items()])
        began = gather(layout, unpack(artifacts.read(plan.weights.manifest.artifact)))
        rng = np.random.default_rng([seed, crc32(f"{plan.round_id} {answer.sender}".encode())])
        lie = began + ATTACKS[attack](gather(layout, sent) - began, rng)
        return replace(answer, manifest=artifacts.put(pack(layout, lie), durable=False))

    return tamper


def flip_labels(folder: Path) -> None:
    """Make the training labels of a data folder false, in place: class c becomes C - 1 - c, a number its negative.

    Raises:
        DataError: the folder cannot be read.
    """
    header, problems = read_header(folder)
    if header is None:
        message = f"data folder {folder}: {problems[0]}"
        raise DataError(message)
    training = np.load(folder / "split.npy") == TRAIN
    for name, task in header.tasks.items():
        labels = np.load(folder / f"{name}.npy")
        false = np.where(labels == task.ignore_index, labels, task.classes - 1 - labels) if task.indices else -labels
        labels[training] = false[training]
        np.save(folder / f"{name}.npy", labels)
