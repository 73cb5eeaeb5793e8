"""The live stream: what changes is told once, to everybody, and who comes back gets what it has missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mas_edge.web import live as module
from mas_edge.web.app import make_app
from mas_edge.web.guard import Rules
from mas_edge.web.library import Library
from mas_edge.web.live import KEPT, Live
from mas_edge.web.tokens import TokenStore
from tests.web.conftest import DEVICES, Run

TICK_S = 0.05  # a test need not wait for a second
PATIENCE_S = 30


class Said(NamedTuple):
    kind: str
    number: str
    data: Any


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", TICK_S)
    monkeypatch.setattr("mas_edge.web.library.LOOK_S", 0.0)


def parsed(block: bytes) -> Said:
    fields = dict(line.split(": ", 1) for line in block.decode().strip().split("\n"))
    return Said(fields["event"], fields["id"], json.loads(fields["data"]))


class Listener:
    """One page that listens."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream

    async def next(self) -> Said:
        """The next event; comments are skipped."""
        while True:
            block = await asyncio.wait_for(anext(self._stream), 30)
            if not block.startswith(b":"):
                return parsed(block)

    async def close(self) -> None:
        await self._stream.aclose()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[Live]:
    library = Library(directory)
    try:
        yield Live(library)
    finally:
        await library.close()


async def following(live: Live, last: str = "") -> Listener:
    """A listener that has heard how things stand."""
    listener = Listener(live.listen(last))
    assert (await listener.next()).kind == "hello"
    return listener


def play(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_listener_is_told_what_has_changed_and_what_it_is_now(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            page = await following(live)
            first = await page.next()
            assert set(first.data["parts"]) >= {"run", "devices", "rounds"}, "everything is to be read"
            run.play("merged-0000", affinity=0.5)
            seen = await page.next()
            while not seen.data["rounds"]:  # the round may open in one look and close in the next
                seen = await page.next()
            assert [each["round_id"] for each in seen.data["rounds"]] == ["merged-0000"]
            assert seen.data["progress"]["merged"] == 1
            assert "affinity" in seen.data["parts"]
            assert "split" not in seen.data["parts"]
            run.store.log("warning", "a device is hot")
            said = await page.next()
            assert (said.data["parts"], [each["text"] for each in said.data["events"]]) == (
                ["events"], ["a device is hot"],
            )  # fmt: skip
            await page.close()

    play(work())


def test_only_the_devices_that_changed_are_sent(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            page = await following(live)
            await page.next()
            run.arrive("pi-3")
            run.reception.close()  # writes down who is there
            names: list[str] = []
            while "pi-3" not in names:
                names = [each["name"] for each in (await page.next()).data["devices"]]
            assert DEVICES[0] not in names
            await page.close()

    play(work())


def test_everybody_gets_the_same_bytes_of_one_look(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            pages = [await following(live) for _ in range(5)]
            for page in pages:
                await page.next()
            looks = 0

            async def counted(question: Any) -> Any:
                nonlocal looks
                looks += 1
                return await Library.ask(live._library, question)

            live._library.ask = counted  # type: ignore[method-assign]
            run.store.log("info", "something")
            said = [await page.next() for page in pages]
            assert len({each.number for each in said}) == 1
            before, began = looks, asyncio.get_running_loop().time()
            await asyncio.sleep(10 * TICK_S)
            passed = asyncio.get_running_loop().time() - began
            assert looks - before <= passed / TICK_S + 2, "one look a tick, however many listen"
            for page in pages:
                await page.close()

    play(work())


def test_who_comes_back_gets_what_it_has_missed(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            stays, leaves = await following(live), await following(live)
            await stays.next()
            last = (await leaves.next()).number
            await leaves.close()
            for text in ("one", "two"):
                run.store.log("info", text)
                await stays.next()
            back = Listener(live.listen(last))
            told = [(await back.next()).data["events"][0]["text"] for _ in range(2)]
            assert told == ["one", "two"]
            await back.close()
            await stays.close()

    play(work())


def test_who_comes_back_after_everybody_had_left_is_told_as_well(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            page = await following(live)
            last = (await page.next()).number
            await page.close()
            assert live.listeners == 0
            run.store.log("info", "meanwhile")
            back = Listener(live.listen(last))
            assert (await back.next()).data["events"][0]["text"] == "meanwhile"
            await back.close()

    play(work())


@pytest.mark.parametrize("last", ["00000000-1", "nonsense", "-", "x-99999999999999999999"])
def test_an_id_of_another_life_means_to_read_everything_anew(run: Run, last: str) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            page = Listener(live.listen(last))
            assert (await page.next()).kind == "reset"
            await page.close()

    play(work())


def test_a_listener_that_is_slower_than_what_is_kept_reads_everything_anew(run: Run) -> None:
    async def work() -> None:
        async with served(run.directory) as live:
            slow, quick = await following(live), await following(live)
            await quick.next()
            await slow.next()
            live._sent = type(live._sent)(maxlen=2)  # in place of KEPT
            for number in range(4):
                run.store.log("info", str(number))
                await quick.next()
            assert (await slow.next()).kind == "reset"
            await slow.close()
            await quick.close()

    assert KEPT > 2
    play(work())


def test_a_state_that_cannot_be_read_is_told_and_is_followed_again_when_it_can(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path / "state") as live:
            page = await following(live)
            assert "no state in" in (await page.next()).data["detail"]
            run = Run(tmp_path / "state")
            while (said := await page.next()).kind != "change":
                pass
            assert "run" in said.data["parts"]
            await page.close()
            run.close()

    play(work())


def test_a_token_that_is_revoked_hears_nothing_more(run: Run) -> None:
    tokens = TokenStore(run.directory, create=True)
    text = tokens.new("grafana", "read")

    async def work() -> None:
        said: list[bytes] = []
        news, ended = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            said.append(message.get("body", b""))
            news.set()
            if message["type"] == "http.response.body" and not message.get("more_body"):
                ended.set()

        async def receive() -> Any:
            await ended.wait()  # the client stays as long as there is something to hear
            return {"type": "http.disconnect"}

        async def heard(what: bytes) -> None:
            while what not in b"".join(said):
                news.clear()
                await asyncio.wait_for(news.wait(), PATIENCE_S)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": "/api/live", "raw_path": b"/api/live", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {text}".encode())],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8880),
        }  # fmt: skip
        stream = asyncio.create_task(make_app(run.directory, Rules(tokens=True))(scope, receive, send))
        await heard(b"event: change")
        tokens.revoke("grafana")
        heard_before = b"".join(said)
        run.play("merged-0000")
        await asyncio.wait_for(stream, PATIENCE_S)
        assert b"".join(said) == heard_before

    play(work())
    tokens.close()


def test_however_many_come_at_the_same_moment_no_more_than_the_limit_listen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 2)

    async def work() -> None:
        async with served(run.directory) as live:
            streams = [live.listen("") for _ in range(3)]  # let in, and none of them counted yet
            first = [await anext(stream) for stream in streams]
            assert [block.partition(b"\n")[0] for block in first] == [
                b"event: hello",
                b"event: hello",
                b": too many listen",
            ]
            assert [block async for block in streams[2]] == []
            assert live.listeners == 2
            for stream in streams:
                await stream.aclose()  # type: ignore[attr-defined]

    play(work())
