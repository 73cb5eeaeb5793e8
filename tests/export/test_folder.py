from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.export import folder
from mas_edge.export.folder import MARKER, check_place, remove_empty, write_whole
from mas_edge.protocol.errors import ServerError

FILES = {MARKER: b"card", "train/step.onnx": b"step"}


def files_of(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_folder_is_written_with_all_its_files_and_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "out" / "group" / "onnx-fp32"
    write_whole(place, FILES)
    assert files_of(place) == FILES
    assert list(place.parent.iterdir()) == [place]


def test_what_is_there_stays_unless_it_is_an_export_and_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "onnx-fp32"
    write_whole(place, FILES)
    with pytest.raises(ServerError, match=r"onnx-fp32 exists: choose another --out, or --force"):
        write_whole(place, {MARKER: b"new"})
    assert files_of(place) == FILES
    write_whole(place, {MARKER: b"new"}, force=True)
    assert files_of(place) == {MARKER: b"new"}
    assert list(tmp_path.iterdir()) == [place]


def test_force_never_replaces_a_folder_of_something_else(tmp_path: Path) -> None:
    place = tmp_path / "onnx-fp32"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(ServerError, match="is no export"):
        write_whole(place, FILES, force=True)
    assert files_of(place) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("force", [False, True])
def test_an_end_in_the_middle_leaves_what_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, force: bool
) -> None:
    place = tmp_path / "onnx-fp32"
    if force:
        write_whole(place, {MARKER: b"old"})

    def fail(path: Path, data: bytes) -> None:
        if path.name == "step.onnx":
            raise error
        write(path, data)

    write = folder._write
    monkeypatch.setattr(folder, "_write", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ServerError) as caught:
        write_whole(place, FILES, force=force)
    if isinstance(error, OSError):
        assert "No space left on device: free some space" in str(caught.value)
    assert files_of(tmp_path) == ({f"onnx-fp32/{MARKER}": b"old"} if force else {})
    assert len(list(tmp_path.iterdir())) == force


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ServerError, match="cannot be written: Not a directory"):
        check_place(tmp_path / "file" / "group" / "onnx-fp32", force=False)


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    for name in ("empty/inner", "full"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "file").write_text("")
    remove_empty([tmp_path / "empty" / "inner", tmp_path / "empty", tmp_path / "full", tmp_path / "none"])
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
