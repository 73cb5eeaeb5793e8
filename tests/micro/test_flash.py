"""A board's flash: what is in use stays whole, wherever the power goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_runtime.micro import flash as _flash
from mas_edge.protocol.artifact import describe, digest_of

flash: Any = _flash  # written for MicroPython, which has no types
OLD, NEW = b"the model in use" * 100, b"the next one" * 200
MOST = 60  # steps of an installation, far more than there are


class PowerCut(BaseException):
    """The power went; nothing that the code does about errors may run."""


class Power:
    """Counts the steps that touch the flash and goes at one of them, before it or half-way through a write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for name in ("rename", "remove"):
            monkeypatch.setattr(flash, "os", _with(flash.os, name, self._counted(getattr(os, name))))
        save = flash.State.save
        monkeypatch.setattr(flash.State, "save", lambda state: self._save(state, save))

    def _counted(self, real: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: Any) -> None:
            self._step()
            real(*arguments)

        return step

    def _save(self, state: Any, real: Callable[[Any], None]) -> None:
        self._step()
        real(state)
        if self.left == 0:  # half of it was written
            path = Path(state._paths[state._serial & 1])
            path.write_text(path.read_text()[: path.stat().st_size // 2])
            raise PowerCut

    def _step(self) -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= 1


def _with(module: Any, name: str, step: Any) -> Any:
    return SimpleNamespace(**{**vars(module), name: step})


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Iterator[Power]:
    yield Power(monkeypatch)


def boot(folder: Path) -> tuple[Any, Any]:
    models = flash.Models(str(folder), flash.State(str(folder)))
    return models.slots("g"), flash.Store(str(folder / "artifacts"), models)


def install(folder: Path, model: bytes, *, good: bool = True) -> None:
    """What ``device`` does with a deploy plan whose model has come, or comes again."""
    slots, store = boot(folder)
    digest = digest_of(model)
    if slots.digest == digest or slots.why_refused(digest):
        return
    if not store.has(digest):
        store.put([model], 1024)
    slots.put_on_trial(store.path(digest), digest)
    if good:
        slots.commit()
    else:
        slots.refuse("it answers nonsense")


def in_use(folder: Path) -> bytes:
    path = boot(folder)[0].active()
    assert path is not None
    return Path(path).read_bytes()


@pytest.mark.parametrize("good", [True, False], ids=["a good model", "a bad model"])
def test_wherever_the_power_goes_a_whole_model_is_in_use_and_the_next_try_ends_right(
    power: Power, tmp_path: Path, good: bool
) -> None:
    ended = False
    for step in range(MOST):
        folder = tmp_path / str(step)
        folder.mkdir()
        install(folder, OLD)
        power.left = step
        try:
            install(folder, NEW, good=good)
            ended = True
        except PowerCut:
            pass
        power.left = -1
        assert in_use(folder) in ((OLD, NEW) if good else (OLD,)), step
        install(folder, NEW, good=good)
        assert in_use(folder) == (NEW if good else OLD), step
        if ended:
            break
    assert ended
    assert step > 5


def test_a_model_that_takes_the_board_down_is_never_tried_again(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    digest = digest_of(NEW)
    for _ in range(flash.MAX_STARTS):
        slots, store = boot(tmp_path)
        if not store.has(digest):
            store.put([NEW], 1024)
        slots.put_on_trial(store.path(digest), digest)  # and the board starts anew
    slots, _ = boot(tmp_path)
    assert "never came to an end" in slots.why_refused(digest)
    assert in_use(tmp_path) == OLD


def test_a_model_that_there_was_no_memory_for_may_be_tried_again(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    slots, store = boot(tmp_path)
    digest = digest_of(NEW)
    for for_ever in (False, True):
        store.put([NEW], 1024)
        slots.put_on_trial(store.path(digest), digest)
        slots.refuse("no memory", for_ever=for_ever)
        assert bool(slots.why_refused(digest)) is for_ever
    assert in_use(tmp_path) == OLD


def test_a_model_that_the_flash_damaged_gives_way_to_the_one_before(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    install(tmp_path, NEW)
    path = Path(boot(tmp_path)[0].active())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert in_use(tmp_path) == OLD


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))


def test_an_artifact_that_the_flash_damaged_is_fetched_again(tmp_path: Path) -> None:
    """Weights with another number would train, and a program would be refused in every round."""
    store = boot(tmp_path)[1]
    good, bad = (store.put([data], 1024)["artifact"] for data in (OLD, NEW))
    (tmp_path / "artifacts" / "new").write_bytes(OLD[:100])  # the power went while an update was written
    flip(tmp_path / "artifacts" / bad)
    store = boot(tmp_path)[1]
    assert (store.has(good), store.has(bad)) == (True, False)
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [good]


def test_a_model_in_use_that_the_flash_damaged_and_has_none_before_it_can_come_again(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    flip(Path(boot(tmp_path)[0].active()))
    slots, store = boot(tmp_path)
    assert (slots.digest, slots.active(), store.has(digest_of(OLD))) == ("", None, False)
    install(tmp_path, OLD)
    assert in_use(tmp_path) == OLD


def test_a_model_on_trial_that_the_flash_damaged_is_not_blamed(tmp_path: Path) -> None:
    install(tmp_path, OLD)
    slots, store = boot(tmp_path)
    store.put([NEW], 1024)
    flip(Path(slots.put_on_trial(store.path(digest_of(NEW)), digest_of(NEW))))
    slots, store = boot(tmp_path)
    assert (store.has(digest_of(NEW)), slots.why_refused(digest_of(NEW))) == (False, "")
    install(tmp_path, NEW)
    assert in_use(tmp_path) == NEW


def reader_of(data: bytes) -> Callable[[memoryview], None]:
    place = 0

    def fill(view: memoryview) -> None:
        nonlocal place
        view[:] = data[place : place + len(view)]
        place += len(view)

    return fill


def manifest_of(data: bytes) -> dict[str, Any]:
    told = describe(data, 1024)
    return {name: getattr(told, name) for name in ("artifact", "size", "chunk_size", "chunk_digests")}


def test_what_came_of_an_artifact_is_there_after_a_power_cut_and_a_torn_note_of_it_is_not(tmp_path: Path) -> None:
    data = os.urandom(5000)
    manifest = manifest_of(data)
    part = boot(tmp_path)[1].begin(manifest)
    for index in (0, 2):
        assert part.write(index, 1024, reader_of(data[index * 1024 :]))
    part.close()
    notes = tmp_path / "artifacts" / f"{manifest['artifact']}.map"
    notes.write_bytes(notes.read_bytes() + b"\0")
    part = boot(tmp_path)[1].begin(manifest)
    assert part.missing(9) == [1, 3, 4]
    part.close()


def test_a_note_of_a_chunk_that_was_not_written_makes_the_whole_begin_anew(tmp_path: Path) -> None:
    data = os.urandom(1500)
    manifest = manifest_of(data)
    store = boot(tmp_path)[1]
    notes = tmp_path / "artifacts" / f"{manifest['artifact']}.map"
    notes.write_bytes(b"\0\0")
    part = store.begin(manifest)
    assert part.missing(9) == [1]
    assert part.write(1, 476, reader_of(data[1024:]))
    assert part.finish() is False
    part = store.begin(manifest)
    assert part.missing(9) == [0, 1]
    part.close()


def test_a_torn_state_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    state = flash.State(str(tmp_path))
    for number in range(4):
        state.values["n"] = number
        state.save()
    newest = tmp_path / f"state.{state._serial & 1}"
    newest.write_text(newest.read_text().replace("3", "9", 1))
    assert flash.State(str(tmp_path)).values == {"n": 2}
