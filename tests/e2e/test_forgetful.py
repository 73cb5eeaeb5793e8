"""A broker that loses all it knew when it restarts: subscriptions, births and statuses come back by themselves."""

from __future__ import annotations

from pathlib import Path

from mas_edge.protocol.messages import Birth, OrchestratorState, Status, decode_from_device, decode_from_orchestrator
from tests.brokers import PlainMosquitto
from tests.e2e.fleet import Fleet, job_text, until
from tests.e2e.tap import Tap


def test_what_a_restarted_broker_has_forgotten_is_said_again(mosquitto_is_here: None, tmp_path: Path) -> None:
    with (
        PlainMosquitto(tmp_path) as broker,
        Fleet(broker.url, tmp_path, job_text(min_devices=3, rounds=1, merge_rounds=1)) as fleet,
    ):
        for name in ("ada", "bob"):
            fleet.device(name)
        orchestrator = fleet.orchestrate()
        until(lambda: sum(device.online for device in fleet.snapshot().devices) == 2, "two devices are there")
        broker.stop()
        broker.start()
        until(lambda: retained(broker.url, fleet) == {"ada", "bob", "orchestrator"}, "who is there is known again")
        fleet.device("cyd")  # the third: now rounds begin, over subscriptions that the broker had lost
        until(lambda: [len(r.reports) for r in fleet.snapshot().rounds[:1]] == [3], "a round with three reports")
        orchestrator.stop()


def retained(url: str, fleet: Fleet) -> set[str]:
    """Who a client that comes now hears of: devices with a birth and an online status, and the orchestrator."""
    with Tap(url, fleet.job.fleet) as tap:
        until(lambda: bool(tap.heard()), "anything that the broker retains")
        heard = [arrived for arrived in tap.heard() if arrived.retained]
    found: dict[str, set[type]] = {}
    for arrived in heard:
        if arrived.topic == tap.topics.orchestrator:
            state = decode_from_orchestrator(arrived.payload)
            assert isinstance(state, OrchestratorState)
            if state.online:
                found["orchestrator"] = {Birth, Status}
        else:
            device, _ = tap.topics.sender(arrived.topic)
            message = decode_from_device(arrived.payload, device)
            if not (isinstance(message, Status) and not message.online):
                found.setdefault(device, set()).add(type(message))
    return {name for name, kinds in found.items() if kinds == {Birth, Status}}
