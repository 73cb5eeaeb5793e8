"""The page on methods names every method and every key, with the defaults that the job has."""

from __future__ import annotations

import re

import msgspec
import pytest

from mas_edge.federation.methods import names
from mas_edge.job import Affinity, Federation, Limits, Method, Optimizer, Task
from tests.docs.pages import ROOT, rows, section

PAGE = ROOT / "docs" / "guides" / "methods.md"
# Of these sections every key is on the page, of the others those that concern methods.
WHOLE: dict[str, type[msgspec.Struct]] = {"method": Method, "affinity": Affinity, "limits": Limits}
PARTS: dict[str, type[msgspec.Struct]] = {"federation": Federation, "optimizer": Optimizer, "tasks": Task}
PARTS_OF_JOB = {**WHOLE, **PARTS}


def the_keys() -> dict[str, str]:
    """By key, the default that the page gives."""
    return {key.strip("`"): default for key, default, _ in rows(section(PAGE, "In the job file"))}


def test_every_method_has_a_line_and_every_line_a_method() -> None:
    named = [row[0].strip("`") for row in rows(section(PAGE, "What each trains"))]
    assert sorted(named) == sorted(names())


def test_every_key_of_methods_affinity_and_limits_is_explained() -> None:
    keys = the_keys()
    wanted = {f"{name}.{field}" for name, struct in WHOLE.items() for field in struct.__struct_fields__}
    assert wanted <= set(keys)
    assert {"federation.groups", "federation.merge_rounds", "federation.at_most", "optimizer.after_split"} <= set(keys)


@pytest.mark.parametrize("key", the_keys())
def test_a_default_is_the_one_that_the_job_has(key: str) -> None:
    name, _, field = key.partition(".")
    found = next(each for each in msgspec.structs.fields(PARTS_OF_JOB[name]) if each.name == field)
    told = the_keys()[key]
    if found.default is msgspec.NODEFAULT:
        assert told.startswith("none")
    else:
        assert told.strip("`").split(":")[0] == msgspec.json.encode(found.default).decode()


def test_the_sources_are_those_of_the_code() -> None:
    code = (ROOT / "mas_edge" / "federation" / "methods.py").read_text(encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    cited = set(re.findall(r"\d{4}\.\d{5}", code))
    assert cited
    assert cited <= set(re.findall(r"\d{4}\.\d{5}", page))
