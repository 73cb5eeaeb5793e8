"""Who is there: births and last wills in the orders a broker delivers them."""

from collections.abc import Callable

import pytest

from mas_edge.federation.registry import Registry
from mas_edge.protocol.messages import Birth, Status

Step = Callable[[Registry], bool]


def birth(boot: str, *, retained: bool = False) -> Step:
    message = Birth(
        sender="pi-1", boot_id=boot, seq=1, runtime="0.1.0", python="3.11", machine="aarch64", cores=4,
        memory_bytes=2**30, engine="torch", engines=["torch"], input_shape=[6, 64], tasks={},
    )  # fmt: skip
    return lambda registry: registry.on_birth(message, retained=retained)


def status(boot: str, *, online: bool) -> Step:
    return lambda registry: registry.on_status(Status(sender="pi-1", boot_id=boot, seq=2, online=online))


up, will = {boot: status(boot, online=True) for boot in "AB"}, {boot: status(boot, online=False) for boot in "AB"}

# What came, in order; then: what each step returned, and whether the device is there.
CASES: dict[str, tuple[list[Step], list[bool], bool]] = {
    "nothing came": ([], [], False),
    "a fresh birth": ([birth("A")], [True], True),
    "a retained birth alone proves nothing": ([birth("A", retained=True)], [True], False),
    "a retained birth and a retained status": ([birth("A", retained=True), up["A"]], [True, True], True),
    "a retained status, then its birth": ([up["A"], birth("A", retained=True)], [False, True], True),
    "the retained birth of a dead device": ([birth("A", retained=True), will["A"]], [True, False], False),
    "the will first, then the birth of the dead": ([will["A"], birth("A", retained=True)], [False, True], False),
    "a device dies": ([birth("A"), will["A"]], [True, True], False),
    "a device dies and lives again": ([birth("A"), will["A"], birth("B")], [True, True, True], True),
    "the same life comes back": ([birth("A"), will["A"], birth("A")], [True, True, True], True),
    "only its status comes back": ([birth("A"), will["A"], up["A"]], [True, True, True], True),
    "a new life says that it is there before its birth": ([birth("A"), will["A"], up["B"]], [True, True, True], True),
    "the will of an older life after a newer birth": ([birth("A"), birth("B"), will["A"]], [True, True, False], True),
    "then its own will": ([birth("A"), birth("B"), will["A"], will["B"]], [True, True, False, True], False),
    "a will that comes twice": ([birth("A"), will["A"], will["A"]], [True, True, False], False),
    "a retained birth again, as after a reconnection": (
        [birth("A"), birth("A", retained=True)], [True, False], True,
    ),
    "a newer life known only by its retained birth": ([birth("A"), birth("B", retained=True)], [True, True], True),
    "a status of a device without a birth": ([up["A"]], [False], False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_who_is_there_is_right_after(case: str) -> None:
    steps, returned, there = CASES[case]
    registry = Registry()
    assert [step(registry) for step in steps] == returned
    assert registry.is_online("pi-1") is there
    assert list(registry.online()) == (["pi-1"] if there else [])


def test_the_last_birth_is_what_counts() -> None:
    registry = Registry()
    for step in (birth("A"), birth("B")):
        step(registry)
    assert registry.online()["pi-1"].boot_id == "B"
    assert not registry.is_online("pi-2")
