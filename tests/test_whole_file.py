from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mas_edge.protocol.errors import ServerError
from mas_edge.whole_file import write_text


def test_a_file_takes_the_place_of_the_old_one_in_a_folder_that_is_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "page.html"
    for text in ("first", "zwölf"):
        write_text(target, text)
        assert target.read_text(encoding="utf-8") == text
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_a_place_that_cannot_be_written_is_the_servers_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for target, reason in ((tmp_path / "file" / "x.json", "x.json: File exists"), (tmp_path, "Is a directory: check")):
        with pytest.raises(ServerError, match=f"^cannot write .*{reason}"):
            write_text(target, "text")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join()
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_that_is_full_says_so() -> None:
    with pytest.raises(ServerError, match="cannot write /dev/full: the disk is full: free some space, or choose"):
        write_text(Path("/dev/full"), "text")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
