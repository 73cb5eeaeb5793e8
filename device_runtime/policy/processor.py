"""How much of the processor the device runtime may take: priority, cores, threads."""

from __future__ import annotations

import logging
import os

import msgspec

from mas_edge.protocol.errors import DeviceError

log = logging.getLogger(__name__)

# What the engines' libraries read when they are loaded: OpenMP, OpenBLAS, XNNPACK's own pool takes OpenMP's number.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Processor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[processor]`` of the policy file; what is not given stays as it is."""

    nice: int | None = None  # 0 to 19: the higher, the sooner others come first
    cores: list[int] = []  # the ones to run on, counted from 0
    threads: int | None = None  # to train with

    def __post_init__(self) -> None:
        """Raise DeviceError for what no system knows."""
        if self.nice is not None and not 0 <= self.nice <= 19:
            message = f"processor.nice is {self.nice}; expected 0 to 19"
            raise DeviceError(message)
        if self.threads is not None and self.threads < 1:
            message = f"processor.threads is {self.threads}; expected 1 or more"
            raise DeviceError(message)


def apply(wanted: Processor) -> None:
    """Set this process, before an engine is loaded.

    Raises:
        DeviceError: the system has no such core, or does not allow it.
    """
    if wanted.threads is not None:
        threads = min(wanted.threads, os.cpu_count() or 1)  # more only wait for each other: thousands, for minutes
        if threads < wanted.threads:
            log.warning("%d threads are too many: this machine has %d cores, and gets as many", wanted.threads, threads)
        for name in THREADS:
            os.environ[name] = str(threads)
    try:
        if wanted.cores:
            os.sched_setaffinity(0, wanted.cores)
            missing = sorted(set(wanted.cores) - os.sched_getaffinity(0))  # of which Linux says nothing
            if missing:
                message = f"there is no core {', '.join(map(str, missing))}"
                raise ValueError(message)
        if wanted.nice is not None:
            os.nice(wanted.nice - os.nice(0))
    except (OSError, OverflowError, ValueError, AttributeError) as error:  # no cores to choose on macOS
        why = error.strerror if isinstance(error, OSError) else str(error)
        message = (
            f"[processor] nice = {wanted.nice}, cores = {wanted.cores} cannot be set: {why}; this machine has the "
            f"cores 0 to {(os.cpu_count() or 1) - 1}, and only root may lower nice"
        )
        raise DeviceError(message) from None
