"""The orchestrator's memory: who may use it, what it refuses, and that a kill at any moment leaves it whole."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mas_edge.orchestrator import view
from mas_edge.orchestrator.records import DeviceRecord, SplitRecord
from mas_edge.orchestrator.store import MAX_EVENTS, SCHEMA_VERSION, Store
from mas_edge.protocol.errors import JobError, ServerError
from tests.orchestrator.small_run import JOB, REPORT, STATE, offer, record, spec

SPLIT = SplitRecord(
    tasks=["a", "b"], affinity=[[0.0]], affinity_devices=[[1]], value=0.5, groups=[["a"], ["b"]], serves=[["a"], ["b"]]
)


Restart = Callable[[], Store]


@pytest.fixture
def restart(tmp_path: Path) -> Iterator[Restart]:
    """A new orchestrator's store in the place of the one before."""
    opened: list[Store] = []

    def make() -> Store:
        for earlier in opened:
            earlier.close()
        opened.append(Store(tmp_path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(restart: Restart) -> Store:
    opened = restart()
    opened.begin(JOB, STATE)
    return opened


def test_two_orchestrators_never_share_a_directory(store: Store, restart: Restart) -> None:
    with pytest.raises(ServerError, match="another orchestrator works in"):
        Store(store.directory)
    assert restart().begin(JOB, replace(STATE, run_id="j-2")) == STATE, "the run that is here goes on"


def test_a_run_of_other_settings_is_refused_and_stays(store: Store) -> None:
    other = replace(JOB, seed=7)
    with pytest.raises(JobError, match="holds a run of other settings"):
        store.begin(other, STATE)
    assert store.begin(JOB, STATE) == STATE


def foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE songs (title TEXT)")
    db.commit()
    db.close()


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "random bytes": (lambda path: path.write_bytes(b"\x07" * 5000), "cannot be used: file is not a database"),
    "a text": (lambda path: path.write_text("hello" * 300), "cannot be used: file is not a database"),
    "a directory": (lambda path: path.mkdir(), "cannot be used: unable to open"),
    "another program's database": (foreign, "belongs to another program"),
    "a newer version's": (newer, "go on with the mas-edge that wrote it"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_state_file_is_refused_that_is(case: str, tmp_path: Path) -> None:
    make, reason = UNUSABLE[case]
    make(tmp_path / "state.db")
    for _ in range(2):  # the second time it is not another orchestrator that works in it
        with pytest.raises(ServerError, match=reason):
            Store(tmp_path)
    with pytest.raises(ServerError):
        view.read(tmp_path)


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    foreign(tmp_path / "state.db")
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(ServerError):
        Store(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == before


def test_a_directory_that_cannot_be_made_is_a_server_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="cannot be used"):
        Store(tmp_path / "file" / "state")


DAMAGES: dict[str, tuple[str, Callable[[Store], object]]] = {
    "the job": ("UPDATE job SET job = x'00ff'", lambda store: store.begin(JOB, STATE)),
    "the state": ("""UPDATE job SET state = '{"run_id": 1}'""", lambda store: store.begin(JOB, STATE)),
    "an open round": ("UPDATE rounds SET spec = '[]'", Store.open_rounds),
    "an accepted report": ("UPDATE updates SET offer = ''", lambda store: store.accepted("merged-0000")),
    "a record": ("UPDATE rounds SET record = 7", Store.records),
    "a table that is gone": ("DROP TABLE updates", lambda store: store.is_accepted("merged-0000", "pi-1")),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_state_that_is_damaged_inside_is_a_server_error(store: Store, case: str) -> None:
    statement, use = DAMAGES[case]
    store.open_round(spec(), "merge")
    store.accept(offer(), "merged-0000")
    _execute(store, statement)
    with pytest.raises(ServerError, match=r"restore|decode"):
        use(store)


def _execute(store: Store, statement: str) -> None:
    db = sqlite3.connect(store.directory / "state.db")
    db.execute(statement)
    db.commit()
    db.close()


def test_a_report_counts_once_and_the_first_one_stays(store: Store, restart: Restart) -> None:
    store.open_round(spec(), "merge")
    assert not store.is_accepted("merged-0000", "pi-1")
    store.accept(offer(), "merged-0000")
    store.accept(offer(report=replace(REPORT, steps=99)), "merged-0000")
    store.accept(offer("pi-2"), "merged-0000")
    store = restart()
    assert [o.sender for o in store.accepted("merged-0000")] == ["pi-1", "pi-2"]
    assert store.accepted("merged-0000")[0] == offer()
    assert store.is_accepted("merged-0000", "pi-1")
    assert not store.is_accepted("merged-0001", "pi-1")


def test_open_rounds_come_back_and_closed_ones_as_their_records(store: Store, restart: Restart) -> None:
    store.open_round(spec("merged-0000"), "merge")
    store.open_round(spec("merged-0001", "pi-3"), "merge")
    moved = replace(STATE, phase="merged_evaluation")
    store.close_round(record("merged-0000"), moved)
    store = restart()
    assert store.open_rounds() == [(spec("merged-0001", "pi-3"), "merge")]
    assert store.records() == [record("merged-0000")]
    assert store.begin(JOB, STATE) == moved
    assert store.is_known("merged-0000")
    assert not store.is_known("merged-0002")


def test_the_latest_weights_are_those_of_the_last_rounds_that_trained(store: Store) -> None:
    assert store.latest_weights(2) == set()
    for number, weights in enumerate(["w0", "w1", "", "w3"]):
        store.open_round(spec(f"r-{number}"), "merge")
        store.close_round(record(f"r-{number}", weights=weights), STATE)
    store.open_round(spec("r-4"), "merge")
    assert store.latest_weights(2) == {"w1", "w3"}


def test_a_round_has_a_name_of_its_own(store: Store) -> None:
    store.open_round(spec(), "merge")
    with pytest.raises(ServerError, match="could not be written"):
        store.open_round(spec(), "merge")


def test_a_round_closes_together_with_the_step_of_the_job_or_not_at_all(store: Store) -> None:
    store.open_round(spec(), "merge")
    _execute(store, "CREATE TRIGGER broken BEFORE UPDATE ON job BEGIN SELECT RAISE(ABORT, 'disk'); END")
    with pytest.raises(ServerError, match="disk"):
        store.close_round(record(), replace(STATE, phase="done"))
    assert (store.records(), len(store.open_rounds())) == ([], 1)
    assert store.begin(JOB, STATE) == STATE


def test_a_reader_sees_the_last_whole_step_while_the_next_is_being_written(store: Store) -> None:
    store.open_round(spec(), "merge")
    store.accept(offer(), "merged-0000")
    store.save(replace(STATE, phase="split"), SPLIT)
    store.save_devices([DeviceRecord(name="pi-1", online=True)])
    writer = sqlite3.connect(store.directory / "state.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM updates")
    snapshot = view.read(store.directory)
    writer.close()
    assert (snapshot.phase, snapshot.split, snapshot.finished) == ("split", SPLIT, None)
    assert [(r.round_id, r.selected, r.reports) for r in snapshot.open_rounds] == [("merged-0000", ["pi-1", "pi-2"], 1)]
    assert [device.name for device in snapshot.devices] == ["pi-1"]


def test_there_is_nothing_to_read_before_a_run_has_begun(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no state in"):
        view.read(tmp_path)
    (tmp_path / "state.db").touch()
    with pytest.raises(ServerError, match="has not begun"):
        view.read(tmp_path)
    Store(tmp_path).close()
    with pytest.raises(ServerError, match="has not begun"):
        view.read(tmp_path)


def test_the_event_log_keeps_the_newest_lines(store: Store) -> None:
    db = sqlite3.connect(store.directory / "state.db")
    db.executemany(
        "INSERT INTO events (time, level, text) VALUES (0, 'info', ?)", [(str(i),) for i in range(MAX_EVENTS)]
    )
    db.commit()
    db.close()
    store.log("warning", "the last")
    events = view.read(store.directory, last_events=2 * MAX_EVENTS).events
    assert (len(events), events[0].text, events[-1].text) == (MAX_EVENTS, "1", "the last")


WRITER = """
import sys
from pathlib import Path
from msgspec.structs import replace
from mas_edge.orchestrator.store import Store
from tests.orchestrator.small_run import JOB, STATE, offer, record, spec
store = Store(Path(sys.argv[1]))
store.begin(JOB, STATE)
for n in range(100_000):
    name = f"merged-{n:06d}"
    store.open_round(spec(name), "merge")
    store.accept(offer(round_id=name), name)
    print("accepted", name, flush=True)
    store.close_round(record(name), replace(STATE, attempts={"rounds": n + 1}))
    print("closed", name, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 3, 8, 15, 30])
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().split() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += [line.split() for line in writer.stdout.read().splitlines()]
    store = Store(tmp_path)
    closed, opened = [r.round_id for r in store.records()], [s.round_id for s, _ in store.open_rounds()]
    state = store.begin(JOB, STATE)
    for word, name in said:
        assert store.is_accepted(name, "pi-1")
        assert word != "closed" or name in closed
    assert state.attempts.get("rounds", 0) == len(closed), "a record without its step, or a step without its record"
    assert len(opened) <= 1
    store.close()


def test_a_line_of_the_log_waits_for_no_disk_and_every_other_step_does(store: Store) -> None:
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    store.log("info", "round 1")
    store.save_devices([])
    store._db.set_trace_callback(None)
    words = [text.partition("INSERT")[0].partition("DELETE")[0].strip() for text in said]
    assert [word for word in words if word] == [
        "PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous = FULL",
        "BEGIN IMMEDIATE", "COMMIT",
    ]  # fmt: skip
