"""Virtual devices: a data folder each, one engine and one set of loaded programs for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_runtime.data import DataFolder, open_data
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.runtime import birth_of
from device_runtime.work import Bench, Programs
from mas_edge.protocol.errors import DataError, EdgeError, MessageError
from mas_edge.protocol.messages import Birth, FromDevice, Offer, Plan, Refusal
from mas_edge.protocol.topics import check_name

# Programs kept ready. A method may train many networks side by side: HOA all pairs of its tasks.
READY = 64
BOOT_ID = "simulated"


class VirtualDevice:
    """One device of the simulation; what it is told it does at once."""

    def __init__(self, name: str, data: DataFolder, artifacts: ArtifactStore, programs: Programs, engine: str) -> None:
        self.name = name
        self._data = data
        self._artifacts = artifacts
        self._engine = engine
        self._bench = Bench(data, artifacts, programs, Path())  # a simulation deploys nothing
        self._seq = 0

    def birth(self) -> Birth:
        """What it says of itself."""
        return birth_of(self.name, BOOT_ID, self._next(), self._data, self._engine)

    def carry_out(self, plan: Plan) -> FromDevice:
        """Do what the plan says; answer with the report, or with the reason why not."""
        try:
            outcome = self._bench.carry_out(plan, lambda: False)
        except EdgeError as error:
            return Refusal(**self._stamp(), job=plan.job, round_id=plan.round_id, reason=str(error))
        manifest = None if outcome.update is None else self._artifacts.put(outcome.update)
        return Offer(
            **self._stamp(), job=plan.job, round_id=plan.round_id, report=outcome.report, manifest=manifest
        )  # fmt: skip

    def _stamp(self) -> dict[str, Any]:
        return {"sender": self.name, "boot_id": BOOT_ID, "seq": self._next()}

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def device_folders(directory: Path) -> list[Path]:
    """The data folders of a fleet: the folders below ``directory`` that hold a ``data.toml``, by name.

    Raises:
        DataError: there is none, or one of their names cannot be a device's.
    """
    found = sorted(path.parent for path in directory.glob("*/data.toml"))
    if not found:
        message = (
            f"{directory} holds no data folder: expected DIR/DEVICE/data.toml for every device; "
            "make some with `mas-edge data`"
        )
        raise DataError(message)
    try:
        for folder in found:
            check_name(folder.name, "device")
    except MessageError as error:
        message = f"{directory}: a data folder is named as its device: {error}"
        raise DataError(message) from None
    return found


def virtual_fleet(folders: Sequence[Path], artifacts: ArtifactStore, engine: str) -> dict[str, VirtualDevice]:
    """A virtual device for each folder, named by it. Raises DataError if one cannot be opened."""
    programs = Programs(engine, READY)
    return {
        folder.name: VirtualDevice(folder.name, open_data(folder), artifacts, programs, engine) for folder in folders
    }
