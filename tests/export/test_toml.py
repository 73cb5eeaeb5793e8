from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.export.toml import to_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_is_written_reads_back_the_same(tree: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tree)) == tree


def test_a_page_reads_as_a_person_would_write_it() -> None:
    tree = {
        "tasks": [{"name": "a", "shape": [3]}, {"name": "b"}],
        "format": 1,
        "data": {"licence": "CC0", "more": {"x": 0.5}},
    }
    assert to_toml(tree) == (
        'format = 1\n\n[[tasks]]\nname = "a"\nshape = [3]\n\n[[tasks]]\nname = "b"\n\n'
        '[data]\nlicence = "CC0"\n\n[data.more]\nx = 0.5\n'
    )


def test_what_toml_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="no form for None"):
        to_toml({"a": None})
