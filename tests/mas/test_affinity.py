from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mas_edge.mas.affinity import (
    AffinityMatrix,
    from_csv,
    readable_power,
    self_affinities,
    to_csv,
)
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import TAG, matrices, named

LETTERS = st.characters(exclude_categories=("C", "Z")) | st.sampled_from(' ,"')
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name.isprintable() and name == name.strip())


@st.composite
def any_named(draw: st.DrawFn) -> AffinityMatrix:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    numbers = st.floats(-1e100, 1e100)
    return AffinityMatrix(tuple(names), draw(arrays(np.float64, (len(names), len(names)), elements=numbers)))


def test_self_affinities_of_the_published_matrix() -> None:
    assert self_affinities(TAG) == pytest.approx([0.1011, 0.1474, 0.1043, 0.1334, 0.1603], abs=5e-5)


def test_a_single_task_has_self_affinity_zero() -> None:
    assert self_affinities(named(np.array([[3.0]]))).tolist() == [0.0]


@given(matrices(2))
def test_self_affinities_average_to_the_mean_of_the_off_diagonal(matrix: AffinityMatrix) -> None:
    n = len(matrix.tasks)
    mean = matrix.off_diagonal.sum() / (n * (n - 1))
    assert self_affinities(matrix).mean() == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize(
    ("tasks", "values", "message"),
    [
        ((), np.zeros((0, 0)), "at least one task"),
        (("a", "b"), np.zeros((2, 3)), r"expected values of shape \(2, 2\), got \(2, 3\)"),
        (("a", "b"), np.zeros(4), r"got \(4,\)"),
        (("a", "a"), np.zeros((2, 2)), "'a' is named twice"),
        (("a", ""), np.zeros((2, 2)), "task name 2 is ''"),
        (("a", " b"), np.zeros((2, 2)), "task name 2 is ' b'"),
        (("a", "b\n"), np.zeros((2, 2)), "task name 2"),
        (("a", "b"), np.array([[0, np.nan], [0, 0]]), "affinity of 'a' on 'b' is nan"),
        (("a", "b"), np.array([[0, 0], [-np.inf, 0]]), "affinity of 'b' on 'a' is -inf"),
        (("a", "b"), np.array([[0, 0], [1e101, 0]]), "of at most 1e\\+100"),
    ],
)
def test_what_is_no_affinity_matrix_is_refused(
    tasks: tuple[str, ...], values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        AffinityMatrix(tasks, values)


def test_a_matrix_cannot_be_changed_from_outside() -> None:
    values = np.zeros((2, 2))
    matrix = named(values)
    values[0, 1] = 9.0
    assert matrix.values[0, 1] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        matrix.values[0, 1] = 9.0


@given(any_named())
def test_csv_returns_the_same_names_and_bits(matrix: AffinityMatrix) -> None:
    again = from_csv(to_csv(matrix))
    assert again.tasks == matrix.tasks
    assert again.values.tobytes() == matrix.values.tobytes()


def test_csv_has_a_header_row_and_a_first_column_of_names() -> None:
    matrix = AffinityMatrix(("a", "b"), np.array([[1.0, 0.25], [-0.5, 2.0]]))
    assert to_csv(matrix) == "source,a,b\na,1.0,0.25\nb,-0.5,2.0\n"


@pytest.mark.parametrize(
    "text",
    [
        ",a,b\na,0,1\nb,2,0\n",
        "anything at all,a,b\na,0,1\nb,2,0",
        ",b,a\na,1,0\nb,0,2\n",
        "\ufeff,a,b\r\na,0,1\r\nb,2,0\r\n",
        ' , "a",b\n a , 0 , 1.0 \n\n , , \n"b",+2e0,-0\n\n',
        ",a,b\na,,1\nb,2,\n",
    ],
    ids=["empty corner", "any corner", "columns in another order", "from a spreadsheet", "spaces", "empty diagonal"],
)
def test_csv_is_read_in_every_usual_form(text: str) -> None:
    matrix = from_csv(text)
    assert matrix.tasks == ("a", "b")
    assert matrix.values.tolist() == [[0.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header row"),
        (",a\n", "expected a header row"),
        ("a\nb\n", "line 1: .* got one cell"),
        ("a;b;c\nb;1;2\n", "line 1: .* commas; got one cell"),
        (",a,\na,0,1\n", "line 1: task name 2 is ''"),
        (",a,a\na,0,1\na,1,0\n", "line 1: task 'a' is named twice"),
        (",a,b\na,0,1\na,0,1\n", "line 3: task 'a' has a second row"),
        (",a,b\na,0,1\nc,0,1\n", "line 3: row 'c' has no column; the columns are 'a', 'b'"),
        (",a,b\n\na,0\nb,0,1\n", "line 3: expected 2 values after 'a', .* got 1"),
        (",a,b\na,0,1,\nb,0,1\n", "line 2: expected 2 values after 'a', .* got 3"),
        (",a,b,c\na,0,1,2\n", "the header names 'b', 'c', but no row does"),
        (",a,b\na,0,x\nb,0,1\n", "line 2, column 'b': expected a finite number, got 'x'"),
        (",a,b\na,0,1\nb,,1\n", "line 3, column 'a': expected a finite number, got ''"),
        (",a,b\na,0,nan\nb,0,1\n", "line 2, column 'b': .* got 'nan'"),
        (",a,b\na,nan,0\nb,0,1\n", "line 2, column 'a': .* got 'nan'"),
        (",a,b\na,0,1\nb,-inf,1\n", "line 3, column 'a': .* got '-inf'"),
        (",a,b\na,0,1e999\nb,0,1\n", "line 2, column 'b': .* got '1e999'"),
        (",a,b\na,0,1_5\nb,0,1\n", "line 2, column 'b': .* got '1_5'"),
        ("a,b\na,0,1\nb,0,1\n", "line 2: row 'a' has no column"),
        (',a,b\na,"0"1,1\nb,0,1\n', "line 2: not comma-separated values"),
        (',a,b\na,0,1\nb,"0,1\n', "line 3: not comma-separated values"),
    ],
)
def test_a_malformed_csv_is_refused_by_line_and_cell(text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        from_csv(text)


@given(st.text(alphabet=',ab01.\n"\r\x00 ', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        matrix = from_csv(text)
    except JobError as error:
        assert re.match("affinity CSV|task", str(error))
    else:
        assert from_csv(to_csv(matrix)).tasks == matrix.tasks


@pytest.mark.parametrize(("largest", "power"), [(3.0, 0), (0.01, 0), (0.0099, -3), (2.4e-5, -5), (0.0, 0)])
def test_small_affinities_are_shown_in_a_unit_in_which_they_can_be_read(largest: float, power: int) -> None:
    assert readable_power([[900.0, largest], [-largest / 2, 900.0]]) == power
