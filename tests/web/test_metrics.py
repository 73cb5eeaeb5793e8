"""Metrics as Prometheus takes them, and a dashboard that asks for no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families

from tests.web.conftest import Client, Run

DASHBOARD = Path(__file__).parents[2] / "broker" / "grafana" / "mas-edge.json"
UNITS = ("_seconds", "_bytes", "_joules", "_ratio")


def values(client: Client) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample, by name and the values of its labels."""
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def everything(run: Run) -> None:
    """A run in which every metric has a value."""
    run.play("merged-0000")
    run.play("merged-0001")
    run.split()
    run.deploy()


def test_the_metrics_say_what_the_api_says(run: Run, client: Client) -> None:
    everything(run)
    assert client.get("/metrics").headers["content-type"] == CONTENT_TYPE_LATEST
    found = values(client)
    assert found["mas_edge_phase", ("deploy",)] == 1
    assert sum(value for (name, _), value in found.items() if name == "mas_edge_phase") == 1
    assert found["mas_edge_rounds_total", ("train", "complete", "merge")] == 2
    assert found["mas_edge_devices", ("online",)] == 2
    assert found["mas_edge_loss", ("merged", "train", "a")] == 0.5
    assert found["mas_edge_affinity_ratio", ("b", "a")] == client.json("/api/affinity")["average"]["matrix"][0][1]
    sent = sum(
        value for (name, labels), value in found.items() if name == "mas_edge_traffic_bytes_total" and "sent" in labels
    )
    assert sent == client.json("/api/traffic")["sent_bytes"]
    assert found["mas_edge_energy_joules_total", ("train", "merge", "measured")] == 5.0
    assert found["mas_edge_device_reports_total", ("pi-1",)] == 2


def test_names_and_units_follow_the_conventions(run: Run, client: Client) -> None:
    everything(run)
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert len(families) > 20
    for family in families:
        assert re.fullmatch(r"mas_edge_[a-z0-9]+(_[a-z0-9]+)*", family.name), family.name
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            assert not re.search(r"_(ms|kb|mb|kib|minutes|percent|milliseconds)(_|$)", sample.name), sample.name
    named = {family.name for family in families}
    for unit in UNITS:
        assert any(name.endswith(unit) for name in named), unit


def test_counters_do_not_fall_when_the_process_is_started_again(run: Run, client: Client) -> None:
    from mas_edge.web.app import make_app

    everything(run)
    again = Client(make_app(run.directory))
    assert values(again) == values(client)
    again.close()


def test_the_dashboard_asks_only_for_metrics_that_there_are_and_shows_nearly_all(run: Run, client: Client) -> None:
    everything(run)
    there = {
        name.removesuffix("_total")
        for name in re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, re.MULTILINE)
    }  # fmt: skip
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expr in exprs for name in re.findall(r"mas_edge_\w+", expr)}
    assert {name.removesuffix("_total") for name in asked} <= there
    of_programs = {"mas_edge_run_info", "mas_edge_started_timestamp_seconds", "mas_edge_planned_rounds",
                   "mas_edge_device_cpu_seconds"}  # fmt: skip
    assert there - {name.removesuffix("_total") for name in asked} == of_programs


def test_the_dashboards_labels_are_those_of_the_metrics(run: Run, client: Client) -> None:
    everything(run)
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            [first, *_] = re.findall(r"mas_edge_\w+", target["expr"])
            if first in labels:  # a rollout has not begun here
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels[first], target


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
