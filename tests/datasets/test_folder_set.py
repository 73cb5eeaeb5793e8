from __future__ import annotations

import json
from pathlib import Path

import pytest

from mas_edge.datasets.folder_set import FolderSet, make_once
from mas_edge.protocol.errors import DataError


def two_folders(directory: Path) -> None:
    for name in ("one", "two"):
        (directory / name).mkdir()
        (directory / name / "x").write_text(name)
    (directory / "notes").write_text("may be edited")


def wanted(recipe: int = 1, **arguments: object) -> FolderSet:
    return FolderSet("letters", {"recipe": recipe, "arguments": arguments}, two_folders)


def test_a_set_is_made_once_and_then_found(tmp_path: Path) -> None:
    assert make_once(tmp_path / "set", wanted())
    assert not make_once(tmp_path / "set", wanted())
    assert sorted(json.loads((tmp_path / "set" / "letters.json").read_text())["files"]) == ["one/x", "two/x"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_lies_beside_the_folders_may_be_edited(tmp_path: Path) -> None:
    make_once(tmp_path / "set", wanted())
    (tmp_path / "set" / "notes").write_text("edited")
    assert not make_once(tmp_path / "set", wanted())


def test_other_arguments_are_named(tmp_path: Path) -> None:
    make_once(tmp_path / "set", wanted(size=32, tasks="sd"))
    with pytest.raises(DataError, match="holds letters folders with size 32, not 64: choose another --out"):
        make_once(tmp_path / "set", wanted(size=64, tasks="sd"))


def test_another_recipe_is_another_version(tmp_path: Path) -> None:
    make_once(tmp_path / "set", wanted(1, size=32))
    with pytest.raises(DataError, match="changed or made by another version"):
        make_once(tmp_path / "set", wanted(2, size=64))


@pytest.mark.parametrize("marker", ["[]", "{", '{"files": 3}', '{"files": {}, "recipe": 1, "arguments": {}}'])
def test_a_marker_that_says_nothing_useful_is_not_trusted(tmp_path: Path, marker: str) -> None:
    make_once(tmp_path / "set", wanted())
    (tmp_path / "set" / "letters.json").write_text(marker)
    with pytest.raises(DataError, match="changed or made by another version"):
        make_once(tmp_path / "set", wanted())


def test_a_faster_process_is_not_overwritten(tmp_path: Path) -> None:
    def overtaken(directory: Path) -> None:
        two_folders(directory)
        make_once(tmp_path / "set", wanted())

    late = FolderSet("letters", wanted().recipe, overtaken)
    assert not make_once(tmp_path / "set", late)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be made: .*choose another --out"):
        make_once(tmp_path / "file" / "set", wanted())
