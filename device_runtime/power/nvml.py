"""NVIDIA graphics processors: the energy that the driver counts, through its own library; nothing is installed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

from device_runtime.host import SensorError
from device_runtime.power.sensor import Part

LIBRARY = "libnvidia-ml.so.1"
ADVICE = "nvidia-smi says more; a driver that was updated since the start wants: sudo reboot"
NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
_NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED: processors before Volta do not count energy


@dataclass
class NvmlSensor:
    """All graphics processors of the machine together."""

    library: ctypes.CDLL
    devices: list[ctypes.c_void_p]
    source: str
    kind: Literal["joules"] = "joules"
    covers: Part = "graphics"
    period_s: float = 1.0
    needs_s: float = 1.0  # the driver's counter moves about ten times a second

    def read(self) -> float:
        """Joules since the driver was loaded."""
        return sum(_millijoules(self.library, device) for device in self.devices) / 1000


def find(library_name: str = LIBRARY) -> NvmlSensor | None:
    """The sensor; None without a driver, or without a processor that counts.

    Raises:
        SensorError: the driver is there and does not answer.
    """
    try:
        library = ctypes.CDLL(library_name)
    except OSError:
        return None
    try:
        return _of(library)
    except SensorError as error:
        message = f"{error}; {ADVICE}"
        raise SensorError(message) from None


def _of(library: ctypes.CDLL) -> NvmlSensor | None:
    _check(library, library.nvmlInit_v2(), "nvmlInit")
    count = ctypes.c_uint()
    _check(library, library.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount")
    devices, names = [], []
    for index in range(count.value):
        device = ctypes.c_void_p()
        _check(library, library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)), "nvmlDeviceGetHandle")
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(ctypes.c_ulonglong())) == _NOT_SUPPORTED:
            continue
        name = ctypes.create_string_buffer(NAME_BYTES)
        _check(library, library.nvmlDeviceGetName(device, name, NAME_BYTES), "nvmlDeviceGetName")
        devices.append(device)
        names.append(name.value.decode("utf-8", "replace"))
    return NvmlSensor(library, devices, f"NVML {' + '.join(names)}") if devices else None


def _millijoules(library: ctypes.CDLL, device: ctypes.c_void_p) -> int:
    counted = ctypes.c_ulonglong()
    answer = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(counted))
    _check(library, answer, "nvmlDeviceGetTotalEnergyConsumption")
    return counted.value


def _check(library: ctypes.CDLL, answer: int, what: str) -> None:
    if answer:
        library.nvmlErrorString.restype = ctypes.c_char_p
        said = library.nvmlErrorString(answer)
        message = f"NVML: {what}: {said.decode('utf-8', 'replace') if said else answer}"
        raise SensorError(message)
