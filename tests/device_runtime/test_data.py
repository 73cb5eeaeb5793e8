from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_runtime import data_check
from device_runtime.data import DataFolder, open_data, problems
from mas_edge.protocol.errors import DataError
from mas_edge.protocol.program import TargetSpec
from tests.device_runtime.folders import HEADER, N, arrays, program, write

Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return open_data(write(tmp_path / "device"))


def changed(name: str, place: Any, value: float) -> Arrays:
    array = arrays()[name]
    array[place] = value
    return {name: array}


def test_a_folder_that_is_fine_has_no_problems(tmp_path: Path) -> None:
    assert problems(write(tmp_path)) == []


# name of the fault: (data.toml, arrays changed or left out, what the message says)
STRUCTURE: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "missing x": (HEADER, {"x": None}, ["missing file x.npy"]),
    "missing split": (HEADER, {"split": None}, ["missing file split.npy"]),
    "missing target": (HEADER, {"gait": None}, ["missing file gait.npy", "[tasks.gait]"]),
    "missing element mask": (HEADER, {"speed.mask": None}, ["missing file speed.mask.npy", "element_mask"]),
    "x of another shape": (HEADER, {"x": np.zeros((N, 2, 5), np.float32)}, ["x.npy", "[10, 2, 5]", "[10, 2, 4]"]),
    "x is one number": (HEADER, {"x": np.float32(1)}, ["x.npy", "shape []"]),
    "no samples": (HEADER, {"x": np.zeros((0, 2, 4), np.float32)}, ["x.npy"]),
    "x in double precision": (HEADER, {"x": arrays()["x"].astype(np.float64)}, ["x.npy", "float64", "float32"]),
    "x of the other byte order": (HEADER, {"x": arrays()["x"].astype(">f4")}, ["x.npy", ">f4"]),
    "fewer targets than samples": (HEADER, {"gait": np.zeros(9, np.int64)}, ["gait.npy", "[9]", "[10]"]),
    "labels that are floats": (HEADER, {"gait": np.zeros(N, np.float32)}, ["gait.npy", "float32", "integer"]),
    "values that are integers": (HEADER, {"heading": np.ones((N, 3), np.int32)}, ["heading.npy", "int32"]),
    "mask of another shape": (HEADER, {"heading.mask": np.ones((N, 3), np.uint8)}, ["heading.mask.npy", "[10, 3]"]),
    "split of floats": (HEADER, {"split": np.zeros(N, np.float32)}, ["split.npy", "float32"]),
    "split with a third value": (HEADER, changed("split", 4, 2), ["split.npy", "2 for sample 4"]),
    "split without test samples": (HEADER, {"split": np.zeros(N, np.uint8)}, ["split.npy", "no test samples"]),
    "split without train samples": (HEADER, {"split": np.ones(N, np.uint8)}, ["split.npy", "no train samples"]),
    "objects": (HEADER, {"gait": np.array([{}] * N, object)}, ["gait.npy"]),
    "not TOML": ("format = ", {}, ["data.toml", "not valid TOML"]),
    "another format": (HEADER.replace("format = 1", "format = 2"), {}, ["format is 2", "format 1"]),
    "unknown key": ("shape = [2]\n" + HEADER, {}, ["unknown key 'shape'", "input_shape"]),
    "unknown key of a task": (HEADER.replace("classes", "clases", 1), {}, ["'clases'", "[tasks.gait]", "classes"]),
    "missing key": (HEADER.replace("input_shape = [2, 4]", ""), {}, ["missing key 'input_shape'"]),
    "missing kind": (HEADER.replace('kind = "class"', ""), {}, ["missing key 'kind'", "[tasks.gait]"]),
    "unknown kind": (HEADER.replace('"class"', '"klass"'), {}, ["tasks.gait.kind", "klass"]),
    "a key of a wrong type": (HEADER.replace("[2, 4]", '"2x4"'), {}, ["input_shape", "array"]),
    "input shape with a zero": (HEADER.replace("[2, 4]", "[2, 0]"), {}, ["input_shape is [2, 0]"]),
    "one class": (HEADER.replace("classes = 3", "classes = 1", 1), {}, ["tasks.gait: classes is 1", "2 or more"]),
    "classes of a value": (HEADER.replace("[2]", "[2]\nclasses = 3"), {}, ["tasks.speed: classes is 3"]),
    "direction without shape": (HEADER.replace("shape = [3]", ""), {}, ["tasks.heading: shape is []"]),
    "a task with a reserved name": (HEADER.replace("gait", "split"), {}, ["'split'"]),
    "a task that leaves the folder": (HEADER.replace("gait", '"../gait"'), {}, ["'../gait'"]),
    "no tasks": (HEADER.partition("[tasks")[0] + "[tasks]", {}, ["there is no task"]),
    "tasks is no table": ("tasks = 3\n" + HEADER.partition("[tasks")[0], {}, ["tasks: expected object"]),
    "no function as reader": ('reader = "mine"\n' + HEADER, {}, ["reader is 'mine'", "package:function"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", STRUCTURE)
def test_a_wrong_structure_is_named_by_the_check_and_refused_on_opening(tmp_path: Path, fault: str) -> None:
    header, arrays_changed, said = STRUCTURE[fault]
    folder = write(tmp_path, arrays_changed, header)
    found = problems(folder)
    assert any(all(words in sentence for words in said) for sentence in found), found
    with pytest.raises(DataError, match=str(tmp_path)):
        open_data(folder)


VALUES: dict[str, tuple[Arrays, list[str]]] = {
    "NaN in x": (changed("x", (5, 1, 1), np.nan), ["x.npy holds NaN or infinity", "sample 5"]),
    "infinity in x": (changed("x", (slice(5, 7), 1, 1), np.inf), ["x.npy", "2 samples", "sample 5"]),
    "NaN in values": (changed("speed", (5, 0), np.nan), ["speed.npy holds NaN or infinity", "sample 5"]),
    "label too large": (changed("gait", 5, 3), ["gait.npy holds the label 3", "0 to 2", "-100", "sample 5"]),
    "label below zero": (changed("gait", 5, -1), ["gait.npy holds the label -1", "sample 5"]),
    "dense label too large": (changed("place", (5, 3), 3), ["place.npy holds the label 3", "255", "sample 5"]),
}


@pytest.mark.parametrize("fault", VALUES)
def test_a_wrong_number_is_named_by_the_check_and_never_reaches_a_batch(tmp_path: Path, fault: str) -> None:
    arrays_changed, said = VALUES[fault]
    folder = write(tmp_path, arrays_changed)
    (found,) = problems(folder)
    assert all(words in found for words in said), found
    with pytest.raises(DataError, match="in sample 5; see mas-edge-device check"):
        list(open_data(folder).feeds(program(), "train", None))


def test_a_mask_holds_only_zero_and_one(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, {"heading.mask": np.full(N, 0.5, np.float32)}))
    assert "heading.mask.npy holds values other than 0 and 1 in 10 samples" in found


def test_the_check_finds_the_same_in_blocks_of_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, VALUES["infinity in x"][0] | VALUES["label too large"][0])
    at_once = problems(folder)
    monkeypatch.setattr(data_check, "BLOCK_BYTES", 1)
    assert problems(folder) == at_once
    assert len(at_once) == 2


def test_one_problem_does_not_hide_the_next(tmp_path: Path) -> None:
    folder = write(tmp_path, {"gait": np.zeros(9, np.int64), "heading": np.ones((N, 3), np.int32)})
    assert len(problems(folder)) == 2
    with pytest.raises(DataError, match="and 1 more"):
        open_data(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "gait.npy"), (b"PK\x03\x04 an archive", "gait.npy"), (b"\x80\x04. a pickle", "gait.npy")],
)
def test_only_plain_arrays_are_read(tmp_path: Path, content: bytes, said: str) -> None:
    (write(tmp_path) / "gait.npy").write_bytes(content)
    assert said in problems(tmp_path)[0]


def test_a_truncated_array_is_named(tmp_path: Path) -> None:
    path = write(tmp_path) / "x.npy"
    path.write_bytes(path.read_bytes()[:-8])
    assert "x.npy is not a whole .npy file" in problems(tmp_path)[0]


def test_what_is_no_folder_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert "not a folder: it is a file" in problems(file)[0]
    assert "not a folder: there is nothing" in problems(tmp_path / "nowhere")[0]
    assert "missing file data.toml" in problems(tmp_path)[0]


def test_counts_are_the_labelled_samples_of_each_split(data: DataFolder) -> None:
    counts = {name: (count.train, count.test) for name, count in data.counts().items()}
    assert counts == {"gait": (6, 3), "speed": (7, 3), "heading": (5, 3), "place": (7, 3)}


def test_every_batch_has_the_programs_shapes_and_types(data: DataFolder) -> None:
    for batch in data.feeds(program(), "train", 1):
        shapes = {name: (array.shape, str(array.dtype)) for name, array in batch.items()}
        assert shapes == {
            "x": ((4, 2, 4), "float32"),
            "y.gait": ((4,), "int64"), "mask.gait": ((4,), "float32"),
            "y.speed": ((4, 2), "float32"), "mask.speed": ((4, 2), "float32"),
            "y.heading": ((4, 3), "float32"), "mask.heading": ((4,), "float32"),
            "y.place": ((4, 4), "int64"), "mask.place": ((4,), "float32"),
            "y.other": ((4, 5), "float32"), "mask.other": ((4,), "float32"),
        }  # fmt: skip
        assert all(np.isfinite(array).all() for array in batch.values())


def test_targets_that_do_not_count_are_masked_or_become_the_programs_ignore_index(data: DataFolder) -> None:
    batch = next(data.feeds(program(), "train", None))
    assert batch["mask.gait"].tolist() == [1, 1, 1, 0]
    assert batch["y.gait"].tolist() == [0, 1, 2, 0]
    assert batch["mask.heading"].tolist() == [0, 0, 1, 1]
    assert batch["mask.speed"][2].tolist() == [1, 0]
    assert batch["y.speed"][2, 1] == 0
    assert batch["y.place"][:, 0].tolist() == [-1] * 4
    assert (batch["y.place"][:, 1:] >= 0).all()
    assert not batch["mask.other"].any()


@settings(deadline=None)  # an example writes files
@given(batch_size=st.integers(1, 12), seed=st.one_of(st.none(), st.integers(0, 2**32)))
def test_an_epoch_holds_every_sample_of_its_split_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, batch_size: int, seed: int | None
) -> None:
    folder = open_data(write(tmp_path_factory.getbasetemp() / "epochs"))
    batches = list(folder.feeds(program(batch_size), "train", seed))
    seen = [int(x[0, 0]) for batch in batches for x, mask in zip(batch["x"], batch["mask.place"], strict=True) if mask]
    assert sorted(seen) == list(range(7))
    assert seed is not None or seen == list(range(7))


def test_a_seed_fixes_the_order_and_another_seed_gives_another(data: DataFolder) -> None:
    orders = [[batch["x"][:, 0, 0].tolist() for batch in data.feeds(program(), "train", seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_the_last_batch_is_filled_up_with_samples_it_has_had(data: DataFolder) -> None:
    *_, last = data.feeds(program(), "train", None)
    assert last["x"][:, 0, 0].tolist() == [4, 5, 6, 0]
    assert last["mask.place"].tolist() == [1, 1, 1, 0]


def test_samples_without_any_label_are_left_out(data: DataFolder) -> None:
    only = msgspec.structs.replace(program(), tasks=["heading"], targets={"heading": TargetSpec([3], "float32", [])})
    assert [batch["x"][:, 0, 0].tolist() for batch in data.feeds(only, "train", None)] == [[2, 3, 4, 5], [6, 2, 3, 4]]
    unknown = msgspec.structs.replace(only, tasks=["other"], targets={"other": TargetSpec([5], "float32", [])})
    assert list(data.feeds(unknown, "train", None)) == []


@pytest.mark.parametrize(
    ("task", "spec", "said"),
    [
        ("gait", TargetSpec([], "float32", []), "tasks.gait.kind is for class indices, the job needs for numbers"),
        ("gait", TargetSpec([], "int64", [], classes=4), "tasks.gait.classes is 3, the job needs 4"),
        ("heading", TargetSpec([2], "float32", []), r"tasks.heading.shape is \[3\], the job needs \[2\]"),
        ("speed", TargetSpec([2], "float32", []), "tasks.speed.element_mask is True, the job needs False"),
    ],
)
def test_a_program_that_does_not_fit_is_refused_with_the_key(
    data: DataFolder, task: str, spec: TargetSpec, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        data.feeds(program(changed={task: spec}), "train", None)


def test_a_program_for_another_input_is_refused(data: DataFolder) -> None:
    with pytest.raises(DataError, match=r"input_shape is \[2, 4\], the job needs \[6, 64\]"):
        data.feeds(msgspec.structs.replace(program(), input_shape=[6, 64]), "train", None)


def test_targets_are_those_of_one_split_with_what_counts(data: DataFolder) -> None:
    y, valid = data.targets("speed", "train")
    assert y.shape == valid.shape == (7, 2)
    assert np.flatnonzero(~valid.reshape(-1)).tolist() == [5]
    assert len(data.targets("heading", "train")[0]) == 5


def reads_arrays(_: Path) -> Arrays:
    return arrays()


def reads_nothing(_: Path) -> None: ...


def fails(_: Path) -> Arrays:
    scales: dict[str, float] = {}
    return {"x": arrays()["x"] / scales["scale"]}


def forgets_x(_: Path) -> dict[str, Any]:
    return {**arrays(), "x": None, "split": [0, 1]}


def gives_nan(_: Path) -> Arrays:
    return {**arrays(), **changed("x", 5, np.nan)}


def with_reader(directory: Path, function: Callable[..., Any] | str) -> Path:
    name = function if isinstance(function, str) else f"{__name__}:{function.__name__}"
    (directory / "data.toml").write_text(f'reader = "{name}"\n{HEADER}')
    return directory


def test_a_reader_of_ones_own_gives_the_same_batches_as_files(tmp_path: Path) -> None:
    files = open_data(write(tmp_path / "files"))
    read = open_data(with_reader(tmp_path, reads_arrays))
    for a, b in zip(files.feeds(program(), "test", 3), read.feeds(program(), "test", 3), strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (fails, "fails failed: KeyError: 'scale'"),
        (reads_nothing, "reads_nothing returned a NoneType, expected a mapping"),
        (forgets_x, "'x' of the reader .*forgets_x is a NoneType, expected a numpy array"),
        ("no_such_package:read", "no_such_package:read failed: ModuleNotFoundError"),
        (f"{__name__}:nowhere", "nowhere failed: AttributeError"),
    ],
)
def test_errors_of_a_reader_become_a_data_error_that_names_it(
    tmp_path: Path, reader: Callable[..., Any] | str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        open_data(with_reader(tmp_path, reader))


def test_wrong_numbers_of_a_reader_name_the_reader(tmp_path: Path) -> None:
    assert "gives_nan holds NaN" in problems(with_reader(tmp_path, gives_nan))[0]
