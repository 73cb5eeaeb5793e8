"""What the API refuses: every refusal is a problem detail with a 4xx, and changes nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from mas_edge.orchestrator.orders import MAX_WAITING, OrderStore
from mas_edge.orchestrator.rollout_store import RolloutStore
from mas_edge.web.app import make_app
from mas_edge.web.guard import MAX_TARGET
from mas_edge.web.problems import MEDIA_TYPE
from mas_edge.web.refusals import MAX_BODY
from mas_edge.web.tokens import FILE, TokenStore
from tests.web.conftest import Client, Run

JSON = {"content-type": "application/json"}


def is_problem(found: httpx.Response, status: int) -> dict[str, Any]:
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = found.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


def orders_in(run: Run) -> tuple[int, int]:
    """How many orders of the job and of rollouts there are."""
    jobs, rollouts = OrderStore(run.directory), RolloutStore(run.directory)
    counts = len(jobs.latest(1000)), len(rollouts.wishes())
    jobs.close()
    rollouts.close()
    return counts


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "says"),
    [
        ("GET", "/api/nothing", {}, 404, "there is nothing at /api/nothing"),
        ("GET", "/api/devices/pi-99", {}, 404, "no device 'pi-99'"),
        ("GET", "/api/rounds/merged-9999", {}, 404, "no round 'merged-9999'"),
        ("GET", "/api/orders/job-99", {}, 404, "no order 'job-99'"),
        ("GET", "/api/orders/job-1;drop", {}, 404, "no order"),
        ("GET", "/api/fleet", {}, 404, "no fleet is served here"),
        ("GET", "/api/devices/..%2f..%2fstate.db", {}, 404, ""),
        ("GET", "/..%2f..%2f..%2fetc%2fpasswd", {}, 404, "nothing at"),
        ("GET", "/%2e%2e/app.py", {}, 404, "nothing at"),
        ("GET", "/js/..%5c..%5capp.py", {}, 404, "nothing at"),
        ("GET", "/.hidden.html", {}, 404, "nothing at"),
        ("GET", "/app.py", {}, 404, "nothing at"),
        ("GET", "/nul%00.html", {}, 404, "nothing at"),
        ("GET", "/api/rounds?limit=many", {}, 400, "limit"),
        ("GET", "/api/rounds?limit=0", {}, 400, "limit"),
        ("GET", "/api/rounds?limit=1001", {}, 400, "limit"),
        ("GET", "/api/rounds?after=-1", {}, 400, "after"),
        ("GET", f"/api/rounds?after={10**30}", {}, 400, "after"),
        ("GET", "/api/events?after=x", {}, 400, "after"),
        ("GET", f"/api/devices/{'x' * 200}", {}, 400, "name"),
        ("GET", f"/api/run?{'x' * MAX_TARGET}", {}, 414, "longer than"),
        ("POST", "/api/run", {"content": b"{}", "headers": JSON}, 405, ""),
        ("DELETE", "/api/run", {"headers": JSON}, 405, ""),
        ("POST", "/api/job/orders", {"content": b'{"verb": "pause"}'}, 415, "application/json, got 'none'"),
        (
            "POST", "/api/job/orders",
            {"content": b'{"verb": "pause"}', "headers": {"content-type": "text/plain"}}, 415, "got 'text/plain'",
        ),
        ("POST", "/api/job/orders", {"data": {"verb": "pause"}}, 415, "got 'application/x-www-form-urlencoded'"),
        ("POST", "/api/job/orders", {"content": b"{", "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b"", "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b"[]", "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b'{"verb": 3}', "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b'{"verb": "explode"}', "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b'{"verb": "pause", "x": 1}', "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b"\xff\xfe", "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b"[" * 60_000, "headers": JSON}, 400, ""),
        ("POST", "/api/job/orders", {"content": b" " * (MAX_BODY + 1), "headers": JSON}, 413, ""),
        ("POST", "/api/rollouts", {"json": {"shares": [0.5, 0.1]}}, 400, "must grow"),
        ("POST", "/api/rollouts", {"json": {"shares": [2]}}, 400, ""),
        ("POST", "/api/rollouts", {"json": {"shares": []}}, 400, ""),
        ("POST", "/api/rollouts", {"json": {}}, 400, ""),
        ("POST", "/api/rollouts/orders", {"json": {"verb": "start"}}, 400, ""),
        ("POST", "/api/fleet/pi-1/approve", {"json": {"key": "0" * 16}}, 404, "no fleet"),
        ("POST", "/api/fleet/pi-1/approve", {"json": {"key": "short"}}, 400, ""),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_problem_and_changes_nothing(
    still: tuple[Run, Client], method: str, path: str, given: dict[str, Any], status: int, says: str
) -> None:
    run, client = still
    problem = is_problem(client.ask(method, path, **given), status)
    assert says in problem["detail"]
    assert "Traceback" not in str(problem)
    assert orders_in(run) == (0, 0)


def test_a_body_that_comes_in_pieces_without_a_length_is_bounded_as_well(run: Run, client: Client) -> None:
    async def pieces() -> Any:
        for _ in range(MAX_BODY // 1024 + 2):
            yield b" " * 1024

    is_problem(client.ask("POST", "/api/job/orders", content=pieces(), headers=JSON), 413)
    assert orders_in(run) == (0, 0)


def test_orders_that_nobody_takes_are_too_many_at_some_point(run: Run, client: Client) -> None:
    for _ in range(MAX_WAITING):
        run.orders._store.place("pause", "a loop")
    problem = is_problem(client.post("/api/job/orders", {"verb": "pause"}), 429)
    assert "orders wait already" in problem["detail"]


# ---------------------------------------------------------------------- other people's pages


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8880"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_another_sites_page_cannot_place_an_order(
    still: tuple[Run, Client], headers: dict[str, str], status: int
) -> None:
    run, client = still
    is_problem(client.post("/api/job/orders", {"verb": "abort"}, **headers), status)
    assert orders_in(run) == (0, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:9"},
        {"host": "[::1]:8880"},
        {"origin": "http://localhost:8880", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_the_page_itself_and_programs_of_this_machine_get_as_far_as_the_rules_of_rollouts(
    still: tuple[Run, Client], headers: dict[str, str]
) -> None:
    _, client = still
    problem = is_problem(client.post("/api/rollouts", {"shares": [0.5, 0.1]}, **headers), 400)
    assert "must grow" in problem["detail"]


def test_every_answer_forbids_other_sources_frames_and_guesses_of_the_type(still: tuple[Run, Client]) -> None:
    _, client = still
    for path in ("/", "/api/run", "/api/nothing", "/metrics", "/reference", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


# ---------------------------------------------------------------------- tokens


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_reads_and_one_for_operators_places_orders(run: Run, far: Client) -> None:
    run.turn()
    tokens = TokenStore(run.directory, create=True)
    reader, operator = tokens.new("grafana", "read"), tokens.new("anna", "operate")
    is_problem(far.get("/api/run"), 401)
    assert far.get("/api/run", headers=bearer(reader)).status_code == 200
    problem = is_problem(far.post("/api/job/orders", {"verb": "pause"}, **bearer(reader)), 403)
    assert "token 'grafana' may read only" in problem["detail"]
    placed = far.post("/api/job/orders", {"verb": "pause"}, **bearer(operator))
    assert placed.status_code == 202
    assert placed.json()["who"] == "anna"
    tokens.revoke("anna")
    is_problem(far.post("/api/job/orders", {"verb": "resume"}, **bearer(operator)), 401)
    assert orders_in(run) == (1, 0)
    tokens.close()


FORGED = (
    "Bearer",
    "Bearer ",
    "Bearer forged",
    "Basic YTpi",
    "bearer mas_" + "A" * 32,
    "Bearer " + "x" * 5000,
    "Bearer é",
)


def test_a_forged_token_is_refused(run: Run, far: Client, client: Client) -> None:
    TokenStore(run.directory, create=True).close()
    for each in (far, client):  # also where none is needed: who shows one means it
        for authorization in FORGED:
            found = each.get("/api/run", headers=[("authorization", authorization.encode())])
            is_problem(found, 401)
            assert found.headers["www-authenticate"].startswith("Bearer")
    is_problem(far.post("/api/job/orders", {"verb": "abort"}), 401)
    assert orders_in(run) == (0, 0)


def test_only_the_digest_of_a_token_is_kept_in_a_file_of_the_owner(run: Run) -> None:
    tokens = TokenStore(run.directory, create=True)
    text = tokens.new("grafana", "read")
    tokens.close()
    file = run.directory / FILE
    assert file.stat().st_mode & 0o077 == 0
    assert text.encode() not in b"".join(each.read_bytes() for each in run.directory.glob(f"{FILE}*"))


def test_a_browser_gets_the_page_before_it_has_a_token_and_nothing_else(run: Run) -> None:
    from mas_edge.web.guard import Rules

    client = Client(make_app(run.directory, Rules(tokens=True)))
    for path in ("/api/run", "/api/live", "/metrics", "/openapi.json", "/reference", "/nothing"):
        is_problem(client.get(path), 401)
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 200
    client.close()
