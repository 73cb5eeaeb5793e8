"""The API against its own description: a fuzzer asks what it allows and what it does not allow.

No answer may be a fault of the server, each has to be what the description says, and what is refused is a problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mas_edge.web.app import make_app
from mas_edge.web.problems import MEDIA_TYPE
from tests.web.conftest import Client, Run

EXAMPLES = 15  # of each operation, allowed and not allowed: a few seconds all together
SEED = 8  # fixed: a failure comes again
STREAMS = ("/api/live",)  # never ends; test_live.py listens to it
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class Fuzzed(NamedTuple):
    client: Client
    schema: Any


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A run with everything in it: orders are taken, so that they may be placed without end."""
    run = Run(tmp_path_factory.mktemp("fuzzed") / "state")
    run.play("merged-0000")
    run.play("merged-0001")
    run.split()
    client = Client(make_app(run.directory))
    yield Fuzzed(client, schemathesis.openapi.from_dict(client.json("/openapi.json")))
    client.close()
    run.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_answers_as_it_is_described(fuzzed: Fuzzed, mode: GenerationMode) -> None:
    seen = 0
    for result in fuzzed.schema.get_all_operations():
        operation = result.ok()
        if operation.path not in STREAMS:
            seen += 1
            _fuzz(fuzzed.client, operation, mode)
    assert seen >= 20, "every operation is in the description"


def _fuzz(client: Client, operation: Any, mode: GenerationMode) -> None:
    @seed(SEED)
    @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        given = case.as_transport_kwargs(base_url="http://localhost:8880")
        answer = client.ask(
            given["method"], given["url"], params=given.get("params"), headers=dict(given.get("headers") or {}),
            content=_body(given),
        )  # fmt: skip
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == MEDIA_TYPE
            assert answer.json()["status"] == answer.status_code

    if mode is GenerationMode.POSITIVE or operation.path_parameters or operation.query or operation.body:
        ask()  # what takes nothing cannot be given anything wrong


def _body(given: dict[str, Any]) -> bytes | None:
    if "json" in given:
        return json.dumps(given["json"]).encode()
    data = given.get("data")
    return data.encode() if isinstance(data, str) else data
