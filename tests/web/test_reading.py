"""What the API says about a run that the orchestrator's own desk writes meanwhile."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from mas_edge.orchestrator.orders import FILE as ORDERS
from mas_edge.orchestrator.records import DeviceRecord
from mas_edge.protocol.errors import ServerError
from mas_edge.web.app import make_app
from mas_edge.web.library import LOOK_S
from mas_edge.web.mirror import Mirror
from tests.web.conftest import DEVICES, Client, Run


def settle() -> None:
    """Until the API looks again."""
    time.sleep(1.5 * LOOK_S)


def test_a_run_is_told_from_its_begin_to_its_split(run: Run, client: Client) -> None:
    run.turn()
    began = client.json("/api/run")
    assert (began["phase"], began["served"], began["control"]) == ("merge", True, "running")
    assert [(r["round_id"], r["reports"]) for r in began["open_rounds"]] == [("merged-0000", 0)]
    assert {p["name"]: p["state"] for p in began["phases"]}["merge"] == "current"
    assert client.json("/api/affinity")["average"] is None
    assert client.json("/api/split")["decided"] is False
    run.play("merged-0000", affinity=0.25)
    run.play("merged-0001", affinity=0.75)
    run.split()
    settle()
    now = client.json("/api/run")
    assert now["progress"]["merged"] == 2
    assert now["last_losses"][0]["losses"] == {"a": 0.5, "b": 0.25}
    affinity = client.json("/api/affinity")
    assert [each["matrix"][0][1] for each in affinity["rounds"]] == [0.25, 0.75]
    assert affinity["average"]["matrix"][0] == [0.5, 0.5]
    assert affinity["average"]["spread"][0][1] == pytest.approx(0.25)
    split = client.json("/api/split")
    assert split["decided"] is True
    assert sorted(task for group in split["groups"] for task in group) == ["a", "b"]
    assert {each["name"] for each in split["alternatives"]} == {"all tasks together"}, "the other one was chosen"


def test_every_loss_metric_byte_and_joule_of_the_records_is_in_the_answers(run: Run, client: Client) -> None:
    run.play("merged-0000")
    run.play("merged-0001")
    records = run.store.records()
    rounds = client.json("/api/rounds")["items"]
    assert [each["losses"] for each in rounds] == [record.losses for record in records]
    traffic = client.json("/api/traffic")
    assert traffic["sent_bytes"] == sum(record.traffic.sent for record in records) > 0
    assert traffic["received_bytes"] == sum(record.traffic.received for record in records) > 0
    energy = client.json("/api/energy")
    assert energy["phases"]["merge"] == {"estimated": {"train": 5.0}, "measured": {"train": 5.0}}
    assert [(each["source"], each["quality"], each["devices"]) for each in energy["sources"]] == [
        ("meter 0", "estimated", ["pi-1"]), ("meter 1", "measured", ["pi-2"]),
    ]  # fmt: skip
    one = client.json("/api/rounds/merged-0001")
    assert one["reports"]["pi-2"]["cpu_seconds"] == 1.5


def test_devices_say_what_they_have_done_and_what_went_wrong(run: Run, client: Client) -> None:
    run.play("merged-0000")
    run.turn(1.0)
    run.ack("pi-1", "merged-0001")
    run.refuse("pi-2", "merged-0001")
    run.report("pi-1", "merged-0001")
    run.turn(1.0)
    found = {each["name"]: each for each in client.json("/api/devices")["items"]}
    assert (found["pi-1"]["reports"], found["pi-1"]["cpu_seconds"]) == (2, 1.5)
    assert found["pi-1"]["last_error"] is None
    assert found["pi-2"]["last_error"]["reason"] == "not today"
    assert found["pi-2"]["last_error"]["round_id"] == "merged-0001"
    assert client.json("/api/devices/pi-2") == found["pi-2"]


def test_pages_of_rounds_follow_each_other_and_hold_every_round_once(run: Run, client: Client) -> None:
    run.play("merged-0000")
    run.play("merged-0001")
    seen, after = [], 0
    for _ in range(10):
        page = client.json(f"/api/rounds?after={after}&limit=1")
        seen += [each["round_id"] for each in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["merged-0000", "merged-0001"]
    assert page["total"] == 2


def test_events_without_a_cursor_are_the_last_and_with_one_those_that_follow(run: Run, client: Client) -> None:
    run.turn()
    last = client.json("/api/events?limit=1")
    assert len(last["items"]) == 1
    run.store.log("warning", "a device is hot")
    settle()
    following = client.json(f"/api/events?after={last['next']}")
    assert [each["text"] for each in following["items"]] == ["a device is hot"]
    assert client.json(f"/api/events?after={following['next']}")["items"] == []


def test_an_answer_that_has_not_changed_costs_no_body(run: Run, client: Client) -> None:
    run.turn()
    first = client.get("/api/run")
    again = client.get("/api/run", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    run.play("merged-0000")
    settle()
    assert client.get("/api/run", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_a_paused_job_a_rollout_and_the_artifacts_are_shown(run: Run, client: Client) -> None:
    run.play("merged-0000")
    run.play("merged-0001")
    run.split()
    run.deploy()
    assert client.json("/api/rollouts") == {"current": None, "ready": True}
    client.post("/api/rollouts", {"shares": [1.0]})
    client.post("/api/job/orders", {"verb": "pause"})
    run.look()
    settle()
    rollout = client.json("/api/rollouts")["current"]
    assert rollout["state"]["mode"] == "running"
    assert rollout["verbs"] == ["pause", "abort", "rollback"]
    assert client.json("/api/run")["control"] == "paused"
    kinds = {(each["group"], each["kind"], each["present"]) for each in client.json("/api/artifacts")["items"]}
    assert ("group-0", "program", True) in kinds
    assert ("group-0", "model", False) in kinds, "this one was never made"


@pytest.mark.parametrize("path", ["/api/run", "/api/rounds", "/metrics", "/api/orders"])
def test_before_the_run_has_begun_the_answer_says_so(tmp_path: Path, path: str) -> None:
    client = Client(make_app(tmp_path))
    found = client.get(path)
    assert found.status_code == 503
    assert "give the --state directory" in found.json()["detail"]
    assert client.get("/healthz").json() == {"status": "unavailable"}
    client.close()


def test_a_damaged_state_is_named_and_read_again_once_it_is_restored(run: Run, tmp_path: Path) -> None:
    run.play("merged-0000")
    place, copy = tmp_path / "damaged", tmp_path / "copy.db"
    place.mkdir()
    (place / "state.db").write_bytes(b"nothing like a database" * 100)
    client = Client(make_app(place))
    assert "restore it from a copy" in client.get("/api/run").json()["detail"]
    with closing(sqlite3.connect(run.directory / "state.db")) as whole, closing(sqlite3.connect(copy)) as saved:
        whole.backup(saved)
    copy.replace(place / "state.db")
    settle()
    assert client.json("/api/run")["progress"]["merged"] == 1
    assert client.get("/healthz").json() == {"status": "ok"}
    client.close()


def test_the_mirror_reads_nothing_again_and_sees_what_another_process_writes(run: Run) -> None:
    run.play("merged-0000")
    mirror = Mirror(run.directory)
    known = mirror.look()
    versions = dict(known.versions)
    assert mirror.look().versions == versions
    run.store.save_devices([DeviceRecord(name=DEVICES[2], online=True, last_seen=1.0)])
    assert mirror.look().versions == {**versions, "devices": versions["devices"] + 1, "run": versions["run"] + 1}
    run.store.log("info", "something")
    assert mirror.look().versions["events"] == versions["events"] + 1
    mirror.close()


def test_the_mirror_takes_up_another_run_in_the_same_place(run: Run, tmp_path: Path) -> None:
    mirror = Mirror(run.directory)
    boot = mirror.look().boot
    other = Run(tmp_path / "other")
    other.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (run.directory / name).unlink(missing_ok=True)
    (tmp_path / "other" / "state.db").replace(run.directory / "state.db")
    assert mirror.look().boot != boot
    mirror.close()


def test_a_reader_cannot_write(run: Run) -> None:
    from mas_edge.orchestrator.store import open_database

    db = open_database(run.directory, read_only=True)
    with pytest.raises(Exception, match="readonly"):
        db.execute("DELETE FROM events")
    db.close()


def test_orders_of_a_later_version_are_not_taken_for_none(run: Run, client: Client) -> None:
    run.orders.close()
    with closing(sqlite3.connect(run.directory / ORDERS)) as db:
        db.execute("PRAGMA user_version = 9")
    found: httpx.Response = client.get("/api/run")
    assert found.status_code == 503
    assert "was written by version 9" in found.json()["detail"]


def test_the_mirror_names_a_directory_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no state in"):
        Mirror(tmp_path).look()
