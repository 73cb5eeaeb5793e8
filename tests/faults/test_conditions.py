"""Conditions that no kit chooses: each is survived with every invariant held, or refused with a clear word."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from device_runtime.data import open_data
from device_runtime.runtime import Runtime, Settings
from mas_edge.chaos.fleet import ORCHESTRATOR, Ground, MortalFleet
from mas_edge.chaos.harness import Reaper, Run
from mas_edge.chaos.invariants import check_run
from mas_edge.chaos.nursery import Nursery
from mas_edge.chaos.proxy import Faults, Proxy
from mas_edge.chaos.witness import Witness
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.protocol.artifact import MAX_CHUNK
from tests.brokers import PlainMosquitto
from tests.faults.tiny import DEVICES, make_ground

PATIENCE_S = 120.0
YEAR_S = 365 * 24 * 3600.0
SLACK = 300  # bytes of topic and headers around what a packet carries


Broker: TypeAlias = ManagedBroker | PlainMosquitto


@dataclass
class Scene:
    """A running job and what can be done to it."""

    broker: Broker
    proxy: Proxy
    fleet: MortalFleet
    witness: Witness

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            said = {name: self.fleet.last_line(name) for name in self.fleet.names}
            assert time.monotonic() < deadline, f"waited in vain for {what}; {said}"
            time.sleep(0.05)

    def begun(self, round_id: str) -> bool:
        return any(known == round_id for known, _ in list(self.witness.plans))

    def forget_sessions(self) -> None:
        """The broker is killed, and nothing that it wrote down is there when it comes back."""
        self.broker.stop()
        for path in (self.fleet.directory / "broker").glob("mosquitto.db*"):
            path.unlink()
        self.broker.start()

    def finish(self) -> None:
        """The job ends, and every invariant holds."""
        assert Reaper(self.fleet, self.broker, self.witness).work([], PATIENCE_S) == []
        self.fleet.kill_all()
        assert check_run(self.fleet, self.witness).problems == []

    def ended(self, name: str) -> int:
        self.wait(lambda: not self.fleet.alive(name), f"the end of {name}")
        code = self.fleet.code(name)
        assert code is not None
        return code


@contextmanager
def scene(
    ground: Ground, nursery: Nursery, directory: Path, faults: Faults | None = None, broker: Broker | None = None
) -> Iterator[Scene]:
    """Everything but the processes, which the test starts; with the broker that the kit keeps, or another one."""
    broker = broker or ManagedBroker(directory)
    with ExitStack() as stack:
        stack.enter_context(broker)
        proxy = stack.enter_context(Proxy(broker.url, faults or Faults(), seed=1))
        fleet = stack.enter_context(MortalFleet(ground, nursery, directory, {"": proxy.url}))
        witness = stack.enter_context(Witness(broker.url, ground.job.fleet))
        ground.furnish(directory)
        yield Scene(broker, proxy, fleet, witness)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Mount a small disk of its own over a folder, or change it: ``size=64k``, ``ro``. Needs to be root."""
    mounted: list[Path] = []

    def change(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remount = ["-o", f"remount,{options}", str(folder)]
        fresh = ["-t", "tmpfs", "-o", options, "small", str(folder)]
        done = subprocess.run(["mount", *(remount if folder in mounted else fresh)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a disk here: {done.stderr.decode().strip()}")
        if folder not in mounted:
            mounted.append(folder)

    yield change
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def two_suffice(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The small job, which also begins with two of its three devices."""
    return make_ground(tmp_path_factory.mktemp("two"), min_devices=2)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The small job, shorter, with weights that travel in the largest pieces that there are."""
    return make_ground(tmp_path_factory.mktemp("wide"), encoder="wide", rounds=2, merge_rounds=1)


def lose_the_sessions(here: Scene) -> None:
    here.wait(lambda: here.begun("merged-0000"), "the first round")
    here.forget_sessions()


def lose_the_sessions_while_the_orchestrator_is_away(here: Scene) -> None:
    here.wait(lambda: here.begun("merged-0001"), "the second round")
    here.fleet.kill(ORCHESTRATOR)
    here.forget_sessions()
    here.fleet.start(ORCHESTRATOR)


def nothing_more(here: Scene) -> None:
    """The fault is there from the beginning."""


# Of a message that passes the proxy twice, to the broker and from it, the double share is lost.
SURVIVED: dict[str, tuple[Faults, Callable[[Scene], None]]] = {
    "a broker that forgets its sessions": (Faults(), lose_the_sessions),
    "one that forgets while nobody is connected": (Faults(), lose_the_sessions_while_the_orchestrator_is_away),
    "a broker that drops a seventh of all messages": (Faults(drop=0.075), nothing_more),
    "a network where every fault befalls every fiftieth message": (
        Faults(0.02, 0.02, 0.02, 0.02, 0.02, 0.02, cut=0.005), nothing_more,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def survived(
    ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """A job under each condition, all at once, for each is mostly waiting until what was lost is said again."""

    def survive(condition: str, directory: Path) -> None:
        faults, act = SURVIVED[condition]
        with scene(ground, nursery, directory, faults) as here:
            here.fleet.start_all()
            act(here)
            here.finish()

    with ThreadPoolExecutor(len(SURVIVED)) as pool:
        yield {each: pool.submit(survive, each, tmp_path_factory.mktemp("condition")) for each in SURVIVED}


@pytest.mark.parametrize("condition", SURVIVED)
def test_a_condition_that_is_survived(condition: str, survived: dict[str, Future[None]]) -> None:
    survived[condition].result()


# With the largest packet that is then seen: fragments fill it, and no packet of ours is larger than a piece of 512 KiB.
TOLD = {1_048_576: MAX_CHUNK, 131_072: 131_072, 20_480: 20_480}


@pytest.mark.parametrize("limit", TOLD)
def test_no_packet_is_larger_than_the_broker_says_that_it_carries(
    limit: int, wide: Ground, nursery: Nursery, tmp_path: Path
) -> None:
    with scene(wide, nursery, tmp_path, broker=PlainMosquitto(tmp_path, f"max_packet_size {limit}")) as here:
        here.fleet.start_all()
        here.finish()
        assert TOLD[limit] - SLACK < here.proxy.largest <= min(limit, MAX_CHUNK + SLACK)
    assert "oversize" not in (tmp_path / "broker" / "mosquitto.log").read_text()


def test_a_gateway_that_hangs_up_on_large_packets_without_a_word_gets_smaller_ones(
    wide: Ground, nursery: Nursery, tmp_path: Path
) -> None:
    # Each of the usual limits that is tried is found out by two cuts, which are waited out for longer each time.
    with scene(wide, nursery, tmp_path, Faults(limit_bytes=270_000)) as here:
        here.fleet.start_all()
        here.finish()
        assert here.proxy.counts["limit"] >= 2
        assert 262_144 - SLACK < here.proxy.largest <= 262_144


def test_an_orchestrator_whose_disk_is_full_says_so_and_goes_on_when_it_is_freed(
    ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path: Path, disk: Callable[[Path, str], None]
) -> None:
    disk(tmp_path / "state", "size=64m")
    with scene(ground, nursery, tmp_path) as here:
        here.fleet.start_all()
        here.wait(lambda: here.begun("merged-0000"), "the first round")
        fill(tmp_path / "state")
        assert here.ended(ORCHESTRATOR) == 6
        assert "free" in here.fleet.last_line(ORCHESTRATOR)
        assert "Traceback" not in here.fleet.log_file(ORCHESTRATOR).read_text()
        (tmp_path / "state" / "ballast").unlink()
        here.fleet.start(ORCHESTRATOR)
        here.finish()


def fill(folder: Path) -> None:
    """Take every byte that is left."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_device_whose_disk_is_full_refuses_with_the_reason_and_the_others_go_on(
    ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path: Path, disk: Callable[[Path, str], None]
) -> None:
    disk(tmp_path / "devices" / "cyd", "size=1m")
    with scene(ground, nursery, tmp_path) as here:
        fill(tmp_path / "devices" / "cyd")
        here.fleet.start_all()
        here.finish()
        snapshot = here.fleet.snapshot()
        assert snapshot is not None
        reasons = {record.refused["cyd"] for record in snapshot.rounds if "cyd" in record.refused}
        assert reasons
        assert all("free some space" in reason or "disk is full" in reason for reason in reasons)


READ_ONLY = {"a device": ("cyd", 7), "the orchestrator": (ORCHESTRATOR, 6)}


@pytest.mark.parametrize("who", READ_ONLY)
def test_a_read_only_disk_is_refused_at_the_start_with_a_clear_word(
    who: str, two_suffice: Ground, nursery: Nursery, tmp_path: Path, disk: Callable[[Path, str], None]
) -> None:
    name, code = READ_ONLY[who]
    folder = tmp_path / "state" if name == ORCHESTRATOR else tmp_path / "devices" / name
    disk(folder, "size=8m")
    with scene(two_suffice, nursery, tmp_path) as here:
        disk(folder, "ro")
        here.fleet.start(name)
        assert here.ended(name) == code
        assert "read-only" in here.fleet.last_line(name).lower()
        assert "Traceback" not in here.fleet.log_file(name).read_text()


def test_two_devices_with_one_name_are_told_apart_by_a_clear_word_and_the_job_is_done_when_one_leaves(
    two_suffice: Ground, nursery: Nursery, tmp_path: Path
) -> None:
    with scene(two_suffice, nursery, tmp_path) as here:
        twin = MortalFleet(two_suffice, nursery, tmp_path / "twin", {"": here.proxy.url})
        two_suffice.furnish(tmp_path / "twin")
        with twin:
            here.fleet.start("ada")
            twin.start("ada")
            logs = [fleet.log_file("ada") for fleet in (here.fleet, twin)]
            here.wait(
                lambda: any(log.exists() and "give every device a name" in log.read_text() for log in logs),
                "a word on the name",
            )
        for name in (ORCHESTRATOR, "bob", "cyd"):
            here.fleet.start(name)
        here.finish()


def test_a_wall_clock_that_jumps_by_years_changes_nothing(
    ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ground.job_file.parent)  # the job's own network
    draw, real = random.Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: real() + draw.choice((-1, 0, 1)) * YEAR_S)
    with scene(ground, nursery, tmp_path) as here:
        stop = threading.Event()
        devices = [
            Runtime(
                Settings(name, ground.job.fleet, here.proxy.url, here.fleet.device_state(name), ground.engine),
                open_data(ground.folders[name]),
            )
            for name in DEVICES
        ]
        threads = [threading.Thread(target=device.run, args=(stop,)) for device in devices]
        for thread in threads:
            thread.start()
        try:
            assert Orchestrator(ground.job, here.fleet.state, here.proxy.url).run(stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert check_run(here.fleet, here.witness).problems == []


def test_a_process_that_is_paused_for_longer_than_its_keep_alive_takes_part_again(
    ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path: Path
) -> None:
    with scene(ground, nursery, tmp_path) as here:
        here.fleet.start_all()
        here.wait(lambda: here.begun("merged-0000"), "the first round")
        here.fleet.signal("ada", signal.SIGSTOP)
        here.proxy.cut_all()  # the broker gives up on who does not answer
        here.wait(lambda: here.begun("merged-0001"), "the next round without it")
        here.fleet.signal("ada", signal.SIGCONT)
        here.finish()
