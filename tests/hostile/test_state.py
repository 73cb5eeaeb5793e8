"""A damaged state.db: what can be read is read, the rest ends in one line that says what to do."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from mas_edge.federation.flow import JobState
from mas_edge.orchestrator import view
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.errors import EdgeError, ServerError
from tests.hostile.front import ROUND, front_in
from tests.orchestrator.small_run import JOB, record, spec


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run with devices, an accepted report and a closed round."""
    directory = tmp_path_factory.mktemp("sound")
    with front_in(directory) as front:
        front.be_born("pi-1")
        front.upload("pi-1", seed=1)
        front.reception.poll(10.0)  # writes the devices down
        front.store.open_round(spec("evaluate-initial"), "initial_evaluation")
        front.store.close_round(record("evaluate-initial"), front.desk.state)
    return (directory / "state.db").read_bytes()


def use(directory: Path) -> None:
    """Everything that a restarted orchestrator and ``mas-edge status`` read, and a line that is written."""
    store = Store(directory)
    try:
        store.begin(JOB, JobState(run_id="another"))
        store.open_rounds()
        store.accepted(ROUND)
        store.records()
        store.latest_weights(3)
        store.is_accepted(ROUND, "pi-1")
        store.log("info", "here again")
    finally:
        store.close()
    view.read(directory)


def test_what_is_sound_is_read(tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "state.db").write_bytes(sound)
    use(tmp_path)


def test_whatever_bytes_are_damaged_the_end_is_one_line_or_none(tmp_path: Path, sound: bytes) -> None:
    refused = 0
    for seed in range(150):
        chance = random.Random(seed)
        changed = bytearray(sound)
        for _ in range(chance.choice([1, 8, 64])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        if seed % 5 == 0:
            del changed[chance.randrange(len(changed)) :]
        directory = tmp_path / str(seed)
        directory.mkdir()
        (directory / "state.db").write_bytes(bytes(changed))
        try:
            use(directory)
        except EdgeError as error:
            refused += 1
            assert str(error).isprintable(), seed
            assert len(str(error)) < 1500, seed
    assert refused > 50


DAMAGES = {
    "brackets without end": "UPDATE job SET state = CAST('[' || replace(hex(zeroblob(20000)), '0', '[') AS BLOB)",
    "a number for a state": "UPDATE job SET state = 7",
    "another state": "UPDATE job SET state = CAST('{}' AS BLOB)",
    "no Unicode": "UPDATE job SET job = x'ff'",
    "a round that is none": "UPDATE rounds SET spec = x'00'",
    "a record that is none": "UPDATE rounds SET record = CAST('[]' AS BLOB) WHERE record IS NOT NULL",
    "a record that is no JSON": "UPDATE rounds SET record = x'00' WHERE record IS NOT NULL",
    "an offer that is none": "UPDATE updates SET offer = x'00'",
    "no table of rounds": "DROP TABLE rounds",
    "a device that is none": "UPDATE devices SET record = x'00'",
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_state_that_does_not_decode_is_refused_with_what_to_do(case: str, tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "state.db").write_bytes(sound)
    db = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    db.execute(DAMAGES[case])
    db.close()
    with pytest.raises(ServerError, match="restore"):
        use(tmp_path)


@pytest.mark.parametrize("what", ["a folder", "nothing", "text", "another database"])
def test_what_is_no_state_is_refused_or_begun_anew(what: str, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    if what == "a folder":
        path.mkdir()
    elif what == "another database":
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE x (y)")
        db.commit()
        db.close()
    else:
        path.write_bytes(b"" if what == "nothing" else b"hello" * 200)
    before = path.read_bytes() if path.is_file() else b""
    if what == "nothing":
        use(tmp_path)
        return
    with pytest.raises(ServerError, match="choose another --state"):
        use(tmp_path)
    assert (path.read_bytes() if path.is_file() else b"") == before
