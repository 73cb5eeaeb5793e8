"""Keeping verified programs: what names them, what is damaged, what goes first."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from mas_edge.export import cache as cache_module
from mas_edge.export.cache import ENDING, ExportCache, Verified, key_of, user_cache
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import Comparison
from mas_edge.protocol.program import Program
from tests.learning.jobs import KINDS, series_job

KEY, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64
ENTRY = Verified(b"program", [Comparison("evaluate", "losses", 1e-7, 2e-7, 1e-5)])


@pytest.fixture(scope="module")
def traced() -> Program:
    return trace_program(series_job(KINDS[:1]), "group-0", ["label"], ["evaluate"])


def file_of(cache: ExportCache, key: str = KEY) -> Path:
    return cache.directory / f"{key}{ENDING}"


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    ExportCache(tmp_path / "exports").put(KEY, ENTRY)
    assert ExportCache(tmp_path / "exports").get(KEY) == ENTRY
    assert ExportCache(tmp_path / "exports").get(OTHER) is None


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 200])
def test_a_damaged_entry_counts_as_none_and_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    cache = ExportCache(tmp_path)
    cache.put(KEY, ENTRY)
    file_of(cache).write_bytes(damage)
    assert cache.get(KEY) is None
    assert "damaged" in caplog.text
    assert not file_of(cache).exists()


def test_one_flipped_bit_is_seen(tmp_path: Path) -> None:
    cache = ExportCache(tmp_path)
    cache.put(KEY, ENTRY)
    data = bytearray(file_of(cache).read_bytes())
    data[-3] ^= 1
    file_of(cache).write_bytes(data)
    assert cache.get(KEY) is None


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    room = ExportCache(tmp_path, max_bytes=1000)
    large = Verified(bytes(400), [])
    for age, key in enumerate([OTHER, KEY]):
        room.put(key, large)
        os.utime(file_of(room, key), ns=(age, age))
    assert room.get(OTHER) is not None  # used after KEY was written
    room.put(THIRD, large)
    assert [room.get(key) is not None for key in (KEY, OTHER, THIRD)] == [False, True, True]


def test_what_a_killed_writer_left_goes_too(tmp_path: Path) -> None:
    (tmp_path / "tmp12345").write_bytes(bytes(900))
    os.utime(tmp_path / "tmp12345", ns=(0, 0))
    ExportCache(tmp_path, max_bytes=500).put(KEY, ENTRY)
    assert [path.name for path in tmp_path.iterdir()] == [f"{KEY}{ENDING}"]


def test_a_folder_that_cannot_be_used_costs_time_and_no_export(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ExportCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        cache.put(KEY, ENTRY)
        assert cache.get(KEY) is None
    assert "cannot be kept" in caplog.text
    assert "cannot be used" in caplog.text


def test_a_name_follows_from_graph_engine_options_versions_and_code_and_not_from_the_groups_name(
    traced: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = key_of(traced, "onnxruntime")
    assert key_of(replace(traced, group="group-1"), "onnxruntime") == name
    others = {
        key_of(replace(traced, batch_size=traced.batch_size + 1), "onnxruntime"),
        key_of(traced, "torch"),
        key_of(traced, "onnxruntime", {"precision": "int8"}),
    }
    monkeypatch.setattr(cache_module, "_source_digest", lambda: "other code")
    others.add(key_of(traced, "onnxruntime"))
    monkeypatch.setattr(cache_module, "versions_of", lambda _: {"onnx": "other"})
    others.add(key_of(traced, "onnxruntime"))
    assert len(others) == 5
    assert name not in others


def test_the_users_folder_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "mas-edge" / "exports"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "mas-edge" / "exports"
