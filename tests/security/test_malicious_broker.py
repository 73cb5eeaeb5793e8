"""A broker that changes what devices download and says old commands again; behind it a real mosquitto."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mas_edge.chaos.packets import PUBLISH, kind_of, parse_publish
from mas_edge.chaos.proxy import Faults, Proxy, _Pair, _Way
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.limits import Limits
from mas_edge.protocol.artifact import HEADER_BYTES
from tests.e2e.fleet import Fleet, job_text, until

pytestmark = [pytest.mark.mosquitto, pytest.mark.e2e]
ENOUGH = 20  # pieces that were changed before the broker turns honest
RESEND_S = 3.0  # how long who asks for the same again and again has to wait: by default half a minute


class MaliciousBroker(Proxy):
    """Puts zeros where the data of a chunk for a device were, its header left as it is; repeats every command."""

    evil = True
    changed = 0
    repeated = 0

    async def _pass(self, pair: _Pair, packet: bytes, way: _Way) -> None:
        if self.evil and kind_of(packet) == PUBLISH:
            publish = parse_publish(packet, pair.version)
            if b"/chunk" in publish.head:
                self.changed += 1
                zeros = publish.payload[:HEADER_BYTES] + bytes(len(publish.payload) - HEADER_BYTES)
                packet = replace(publish, payload=zeros).packet()
            elif b"/cmd" in publish.head:
                self.repeated += 1
                packet += packet
        await super()._pass(pair, packet, way)


def test_nothing_that_a_broker_changed_is_trained_with_and_the_job_goes_on_when_it_stops(
    mosquitto_is_here: None, tmp_path: Path
) -> None:
    text = job_text(rounds=1, merge_rounds=1, min_devices=2)
    with ManagedBroker(tmp_path / "broker") as broker:
        between = MaliciousBroker(broker.url, Faults(), 0)
        with between, Fleet(broker.url, tmp_path, text) as fleet:
            orchestrator = fleet.orchestrate(limits=Limits(resend_s=RESEND_S))
            fleet.url = between.url
            devices = [fleet.device(name) for name in ("ada", "bob")]
            until(lambda: between.changed >= ENOUGH, "pieces that the broker changed")
            assert between.repeated
            assert not any(record.reports for record in fleet.snapshot().rounds)
            for name in ("ada", "bob"):
                whole = [p for p in (fleet.device_state(name) / "artifacts").iterdir() if not p.suffix]
                assert whole == []
            assert not any(device.ended for device in devices)
            between.evil = False
            assert orchestrator.join() is True
        assert {name for record in fleet.snapshot().rounds for name in record.reports} == {"ada", "bob"}
