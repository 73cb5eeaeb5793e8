"""What a program takes on an engine, and which batch fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.job import ENGINES
from mas_edge.protocol.memory import COSTS, fitting_batch, memory_needed
from mas_edge.protocol.program import Method, Program
from mas_edge.protocol.weights import Layout


def program(engine: str = "torch", **held: int) -> Program:
    methods = {name: Method([], [], [], [], memory_bytes=size) for name, size in held.items()}
    return Program(1, "merged", ["a"], 4, [3], {}, Layout([]), methods, engine)


def test_every_engine_has_its_cost() -> None:
    assert {*COSTS, "micro"} == set(ENGINES)  # a microboard holds its own to what it has


@pytest.mark.parametrize("engine", COSTS)
def test_the_most_demanding_method_counts(engine: str) -> None:
    cost = COSTS[engine]
    small = program(engine, train_step=1000, evaluate=5000)
    assert memory_needed(small) == cost.base + 5000 * cost.step
    assert memory_needed(program(engine, train_step=1000, affinity=10_000)) == cost.base + 10_000 * cost.affinity


def test_a_program_that_does_not_say_what_it_holds_needs_nothing_that_is_known() -> None:
    assert memory_needed(program(train_step=0, evaluate=0)) == 0
    assert memory_needed(program()) == 0


def test_an_engine_that_is_not_known_is_taken_for_the_dearest() -> None:
    assert memory_needed(program("abacus", evaluate=10**9)) >= memory_needed(program("torch", evaluate=10**9))


needs = st.dictionaries(st.integers(1, 64), st.integers(1, 1000), min_size=1)


@given(needs, st.integers(1, 1000))
def test_the_largest_batch_that_fits_is_taken(table: dict[int, int], allowed: int) -> None:
    found = fitting_batch(table, allowed)
    if found is None:
        assert min(table.values()) > allowed
    else:
        assert table[found] <= allowed
        assert all(need > allowed for batch, need in table.items() if batch > found)


@given(needs)
def test_without_a_limit_the_largest_batch_is_taken(table: dict[int, int]) -> None:
    assert fitting_batch(table, 0) == max(table)
