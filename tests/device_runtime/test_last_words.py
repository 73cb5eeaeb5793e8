"""A process that is killed at work teaches the next one, if it was killed for memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_runtime.host import Host
from device_runtime.last_words import LastWords
from tests.device_runtime.boards import write

NEEDED = 50_000_000


class Machine:
    """A kernel with a boot and a count of kills; each ``start`` is a new process."""

    def __init__(self, directory: Path, *, tells: bool = True) -> None:
        self.host = Host(directory / "root")
        self.note = directory / "state" / "last-words.json"
        self.boot("one")
        self.kernel_kills(0, tells=tells)

    def boot(self, name: str) -> None:
        write(self.host.root, "/proc/sys/kernel/random/boot_id", name)

    def kernel_kills(self, count: int, *, tells: bool = True) -> None:
        write(self.host.root, "/proc/vmstat", f"nr_free_pages 12\noom_kill {count}" if tells else "nr_free_pages 12")

    def start(self) -> tuple[LastWords, int]:
        words = LastWords(self.note, self.host)
        return words, words.learn()

    def killed_at_work(self, needed: int = NEEDED) -> None:
        words, _ = self.start()
        words.begin(needed)


def test_who_was_killed_for_memory_allows_less_from_now_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.killed_at_work()
    machine.kernel_kills(1)
    assert machine.start()[1] == NEEDED - 1
    assert machine.start()[1] == NEEDED - 1, "it is not forgotten, and counts once"
    machine.killed_at_work(NEEDED // 2)
    machine.kernel_kills(2)
    assert machine.start()[1] == NEEDED // 2 - 1


@pytest.mark.parametrize("how", ["by its owner", "by a power cut", "while it waited", "after the work"])
def test_who_was_killed_otherwise_allows_as_much_as_before(how: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    words, _ = machine.start()
    if how != "while it waited":
        words.begin(NEEDED)
    if how == "after the work":
        words.end()
    if how == "by a power cut":
        machine.boot("two")
    if how != "by its owner":
        machine.kernel_kills(1)
    assert machine.start()[1] == 0


def test_where_the_kernel_does_not_tell_the_second_death_in_a_row_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tells=False)
    machine.killed_at_work()
    words, limit = machine.start()
    assert limit == 0
    words.begin(NEEDED)
    assert machine.start()[1] == NEEDED - 1


def test_work_that_ended_well_ends_the_row(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tells=False)
    machine.killed_at_work()
    words, _ = machine.start()
    words.begin(NEEDED)
    words.end()
    machine.killed_at_work()
    assert machine.start()[1] == 0


@pytest.mark.parametrize("damage", [b"", b"{", b'{"needed": "much"}', b"\xff\xfe"])
def test_a_damaged_note_teaches_nothing(damage: bytes, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.killed_at_work()
    machine.note.write_bytes(damage)
    machine.kernel_kills(1)
    assert machine.start()[1] == 0


def test_a_disk_that_is_full_or_read_only_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    words = LastWords(tmp_path / "state" / "last-words.json", Host())
    words.begin(NEEDED)
    words.end()
    assert words.learn() == 0
