"""Devices that may not use all their memory, in one job with one that may: real processes, real limits."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mas_edge.orchestrator.broker import EmbeddedBroker
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord
from mas_edge.orchestrator.result import result_of
from mas_edge.protocol.messages import Birth, decode_from_device
from tests.e2e.fleet import HEADERS, PATIENCE_S, TASKS, Fleet, job_text, until
from tests.e2e.tap import Tap

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads and limits memory as Linux does it")

LENGTH, BATCH, TRAIN = 2048, 16, 24
MB = 10**6


def text(rounds: int, merge_rounds: int, batch: int = BATCH) -> str:
    """A job whose steps take memory: long signals, a wide network, large batches."""
    small = job_text(min_devices=2, per_round=4, rounds=rounds, merge_rounds=merge_rounds)
    return (
        small.replace("[3, 16]", f"[3, {LENGTH}]")
        .replace("width = 8", "width = 16")
        .replace("batch_size = 8", f"batch_size = {batch}")
        .replace("local_epochs = 3", "local_epochs = 1")
    )


def folder(directory: Path) -> Path:
    directory.mkdir(parents=True)
    rng = np.random.default_rng(len(directory.name))
    x = rng.normal(size=(TRAIN + 4, 3, LENGTH)).astype(np.float32)
    np.save(directory / "x.npy", x)
    np.save(directory / "split.npy", np.repeat(np.array([0, 1], np.uint8), [TRAIN, 4]))
    np.save(directory / "sign.npy", (x[:, 0, 0] > 0).astype(np.int64))
    np.save(directory / "mean.npy", x.mean(axis=(1, 2)))
    np.save(directory / "way.npy", x[:, :, 0])
    (directory / "data.toml").write_text(
        f"format = 1\ninput_shape = [3, {LENGTH}]\n" + "".join(HEADERS[task] for task in TASKS), encoding="utf-8"
    )
    return directory


def device(fleet: Fleet, name: str, *more: str) -> subprocess.Popen[bytes]:
    arguments = ["run", "--verbose", "--threads", "1", "--broker", fleet.url, "--name", name]
    arguments += ["--fleet", fleet.job.fleet, "--data", str(folder(fleet.directory / "data" / name))]
    arguments += ["--state", str(fleet.device_state(name)), "--engine", "onnxruntime", *more]
    return fleet.start("device_runtime", arguments, f"{name}.log")


def memory_of(process: subprocess.Popen[bytes], key: str) -> int:
    """A line of what the system knows of a process, in bytes: VmHWM is the most it ever held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) * 1024


def known(fleet: Fleet, name: str) -> DeviceRecord:
    """What the orchestrator has written down of a device; ask when it is done: until then it writes now and then."""
    return next(found for found in fleet.snapshot().devices if found.name == name)


def trained(fleet: Fleet) -> list[RoundRecord]:
    return [record for record in fleet.snapshot().rounds if record.kind == "train"]


def births(tap: Tap, name: str) -> list[Birth]:
    """What a device said of itself, in order."""
    heard = [arrived for arrived in tap.heard() if arrived.topic == tap.topics.birth(name)]
    said = [decode_from_device(arrived.payload, name) for arrived in heard]
    return [message for message in said if isinstance(message, Birth)]


def test_a_device_with_little_memory_trains_with_a_smaller_batch_in_the_same_round_as_others(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    limit = 122 * 1024**2
    with Fleet(embedded_broker.url, tmp_path, text(rounds=2, merge_rounds=1)) as fleet:
        device(fleet, "free")
        small = device(fleet, "small", "--memory", "122M")
        device(fleet, "tiny", "--memory", "80M")
        until(lambda: len(list((fleet.directory / "devices").glob("*/artifacts"))) == 3, "the start of three devices")
        orchestrator = fleet.orchestrate()
        assert orchestrator.join() is True
        most = memory_of(small, "VmHWM")

        [merged, *groups] = trained(fleet)
        assert (merged.outcome, set(merged.reports)) == ("complete", {"free", "small"})
        batches = {name: report.batch_size for name, report in merged.reports.items()}
        assert batches["free"] == BATCH
        assert batches["small"] in (1, 2, 4, 8)
        counted = {name: report.samples for name, report in merged.reports.items()}
        assert counted["small"] == counted["free"] == dict.fromkeys(TASKS, TRAIN)
        assert merged.samples == dict.fromkeys(TASKS, 2 * TRAIN)
        assert merged.reports["small"].steps > merged.reports["free"].steps
        assert all("small" in record.reports for record in groups)
        assert most <= limit, f"it held {most / MB:.0f} MB"

        problem = known(fleet, "tiny").problem
        assert re.search(
            r"a step on the smallest batch takes .* MiB beside its process, it allows .* more --memory", problem
        )
        assert known(fleet, "small").problem == ""
        shown = result_of(fleet.snapshot())
        reports = next(r for r in shown["rounds"] if r["round_id"] == "merged-0000")["reports"]
        assert {name: report["batch_size"] for name, report in reports.items()} == batches
        assert shown["deployment"]["healthy"] == 3, "a device that has no room to train has room to answer"


@pytest.mark.skipif(
    os.environ.get("MAS_EDGE_STARVE") != "1",
    reason="how far a limit on address space reaches differs from machine to machine: run by `make test-starved`",
)
def test_a_device_that_runs_out_of_memory_says_so_lives_on_and_goes_on_with_a_smaller_batch(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    job = text(batch=64, rounds=7, merge_rounds=6)
    with Fleet(embedded_broker.url, tmp_path, job) as fleet, Tap(fleet.url, fleet.job.fleet) as tap:
        device(fleet, "free")
        starved = device(fleet, "starved")
        until(lambda: bool(births(tap, "starved")), "the birth of a device")
        room = memory_of(starved, "VmSize") + 60 * MB
        resource.prlimit(starved.pid, resource.RLIMIT_AS, (room, room))
        fleet.orchestrate()
        until(
            lambda: any("starved" in record.reports for record in trained(fleet)),
            "a round that it can take part in",
            2 * PATIENCE_S,
        )
        first, last = trained(fleet)[0], next(r for r in trained(fleet) if "starved" in r.reports)
        assert "not enough memory for batches of 64 samples: a smaller one is asked for" in first.refused["starved"]
        assert last.reports["starved"].batch_size < 64
        assert starved.poll() is None
        allowed = [birth.step_memory_bytes for birth in births(tap, "starved")]
        assert allowed[0] == 0
        assert allowed[-1] > 0
