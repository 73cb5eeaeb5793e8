"""A run that the real orchestrator's desk has written, without a broker, and a client of the API on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from mas_edge.federation import flow
from mas_edge.federation.flow import RoundWork
from mas_edge.orchestrator.decision import decide
from mas_edge.orchestrator.orders_desk import OrdersDesk
from mas_edge.orchestrator.rollout_desk import LOOK_S, RolloutDesk
from mas_edge.protocol.messages import Energy
from mas_edge.protocol.weights import pack
from mas_edge.web.app import make_app
from mas_edge.web.guard import Guard, Rules
from tests.orchestrator.small_desk import SmallDesk, programs_in
from tests.orchestrator.small_run import LAYOUT, REPORT, group_state, numbers, offer, thing

DEVICES = ("pi-1", "pi-2", "<img src=x onerror=alert(1)>")


class Run(SmallDesk):
    """The small job as it goes on, step by step, with the desks that take orders."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(directory)
        self.arrive(*DEVICES[:2])
        self.reception.close()  # it writes down who is there

    def _begin(self) -> None:
        super()._begin()
        self.desk.rollouts = self.rollouts = RolloutDesk(self.desk, self.store, self.outbox, self.directory)
        self.orders = OrdersDesk(self.desk, self.directory)

    def close(self) -> None:
        self.orders.close()
        self.rollouts.close()
        super().close()

    def look(self) -> None:
        """The desks look for orders."""
        self.now += LOOK_S
        self.orders.poll(self.now)
        self.rollouts.poll(self.reception.registry, self.now)

    def play(self, round_id: str, affinity: float = 0.2) -> None:
        """One training round: ``affinity`` is that of the first task for the second, which says when it is measured."""
        self.turn(1.0)
        for place, device in enumerate(DEVICES[:2]):
            self.ack(device, round_id)
            energy = Energy(
                quality="measured" if place else "estimated", joules={"train": 2.5}, source=f"meter {place}"
            )
            report = replace(REPORT, affinity=[[0.5, affinity], [0.3, 0.4 + place]], energy=energy, cpu_seconds=1.5)
            manifest = self.artifacts.put(pack(LAYOUT, numbers(seed=place)))
            self._say(offer(device, round_id, manifest=manifest, report=report))
        self.turn(LOOK_S)

    def split(self) -> None:
        """Decide on the groups, as the orchestrator does after the merged rounds."""
        found = decide(self.desk.job, self.store.records())
        made = programs_in(self.artifacts)
        groups = [
            group_state(
                f"group-{number}", tasks=tasks, programs=made, models={"onnx": thing("model")}, golden=thing("golden"),
                next_round=2, end_round=4,
            )
            for number, tasks in enumerate(found.groups)
        ]  # fmt: skip
        state = flow.split(replace(self.desk.state, phase="split"), groups)
        self.store.save(state, found)
        self.desk.move(state)

    @property
    def due(self) -> list[str]:
        """The rounds that are due."""
        return [work.round_id for work in flow.due(self.desk.state) if isinstance(work, RoundWork)]

    def deploy(self) -> None:
        """The models are there: a rollout may begin."""
        state = replace(self.desk.state, phase="deploy")
        self.store.save(state)
        self.desk.move(state)


class Client:
    """Asks the API in this process, as a browser on this machine would."""

    def __init__(self, app: Guard) -> None:
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost:8880")

    def close(self) -> None:
        self._loop.run_until_complete(self._http.aclose())
        self._loop.close()

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._http.request(method, path, **given))

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.ask("GET", path, **given)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return self.ask(
            "POST", path, content=msgspec.json.encode(body), headers={"content-type": "application/json", **headers}
        )

    def json(self, path: str) -> Any:
        found = self.get(path)
        assert found.status_code == 200, found.text
        return found.json()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that has begun."""
    run = Run(tmp_path / "state")
    yield run
    run.close()


@pytest.fixture
def client(run: Run) -> Iterator[Client]:
    """On loopback, without a token."""
    client = Client(make_app(run.directory))
    yield client
    client.close()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Client]]:
    """A run and a client for the tests of a module in which nothing changes."""
    run = Run(tmp_path_factory.mktemp("still") / "state")
    client = Client(make_app(run.directory))
    yield run, client
    client.close()
    run.close()


@pytest.fixture
def far(run: Run) -> Iterator[Client]:
    """Where a token is required."""
    client = Client(make_app(run.directory, Rules(tokens=True)))
    yield client
    client.close()
