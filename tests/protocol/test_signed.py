from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.protocol.artifact import describe
from mas_edge.protocol.errors import MessageError, TrustError
from mas_edge.protocol.messages import AllInOne, HealthCheck, SignedPlan, decode_from_orchestrator, encode
from mas_edge.protocol.signed import (
    MAX_METADATA_BYTES,
    MAX_METADATA_FILES,
    pack_metadata,
    plan_in,
    signed_bytes,
    targets_of,
    unpack_metadata,
)
from tests.device_runtime.one_device import GROUP_PROGRAM, MERGED_PROGRAM, plan, small

GOLDEN = describe(b"golden")
DEPLOY = plan(
    "deploy-0", kind="deploy", health=HealthCheck(golden=GOLDEN, tolerance=0.1, max_latency_s=1), format="pte"
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,10}", fullmatch=True)
numbers = st.integers(0, 2**40)
signed_things = st.tuples(names, names, numbers, numbers, st.binary(max_size=20))


def wrapped(raw: bytes) -> SignedPlan:
    return SignedPlan(
        sender="orchestrator", boot_id="o", seq=3, receiver="pi-1", life=1, plan=msgspec.Raw(raw), key="k",
        signature=bytes(64),
    )  # fmt: skip


@given(signed_things, signed_things)
def test_no_two_different_things_have_the_same_signed_bytes(
    one: tuple[str, str, int, int, bytes], other: object
) -> None:
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)  # type: ignore[misc]


def test_the_signed_bytes_are_those_of_the_contract() -> None:
    expected = b'mas-edge plan 1\nhome\npi-1\n7\n12\n{"a": 1}'
    assert signed_bytes("home", "pi-1", 7, 12, b'{"a": 1}') == expected


@pytest.mark.parametrize("receiver", ["pi-1\n8", "", "a/b", "x" * 65])
def test_a_name_that_could_stand_for_another_is_not_signed(receiver: str) -> None:
    with pytest.raises(MessageError, match="not a valid name"):
        signed_bytes("home", receiver, 7, 12, b"")


@pytest.mark.parametrize("raw", [encode(plan()), json.dumps(json.loads(encode(plan())), indent=2).encode()])
def test_a_plan_crosses_the_wire_byte_for_byte(raw: bytes) -> None:
    back = decode_from_orchestrator(encode(wrapped(raw)))
    assert isinstance(back, SignedPlan)
    assert bytes(back.plan) == raw
    assert plan_in(back) == plan()


@pytest.mark.parametrize("raw", [b"{}", b"7", b'{"type": "rebirth", "sender": "o", "boot_id": "b", "seq": 1}'])
def test_what_is_no_plan_is_none_for_being_wrapped(raw: bytes) -> None:
    with pytest.raises(MessageError):
        plan_in(wrapped(raw))


def test_a_training_plan_rests_on_its_program_alone() -> None:
    program = small(MERGED_PROGRAM)
    name = f"models/j-1/merged/program.{program.artifact[:16]}"
    assert targets_of(plan()) == {name: (program.artifact, len(MERGED_PROGRAM))}


def test_a_deployment_rests_on_its_model_and_its_golden_samples() -> None:
    model = small(MERGED_PROGRAM)
    assert targets_of(DEPLOY) == {
        "models/j-1/merged/model.pte": (model.artifact, model.size),
        "models/j-1/merged/golden": (GOLDEN.artifact, GOLDEN.size),
    }


def test_a_deployment_that_is_held_against_the_model_of_all_tasks_rests_on_that_too() -> None:
    whole = AllInOne(model=small(GROUP_PROGRAM), golden=GOLDEN, tasks=["a", "b"], max_regression=0.1)
    assert DEPLOY.health is not None
    health = msgspec.structs.replace(DEPLOY.health, all_in_one=whole)
    found = targets_of(msgspec.structs.replace(DEPLOY, group="group-0", health=health))
    assert found["models/j-1/merged/model.pte"] == (whole.model.artifact, whole.model.size)
    assert found["models/j-1/merged/golden"] == (GOLDEN.artifact, GOLDEN.size)
    assert len(found) == 4


def test_to_undo_a_deployment_rests_on_the_model_that_is_left() -> None:
    undo = msgspec.structs.replace(DEPLOY, health=None, undo=True)
    assert targets_of(undo) == {"models/j-1/merged/model.pte": (DEPLOY.program.artifact, DEPLOY.program.size)}


@pytest.mark.parametrize("changes", [{"job": "../x"}, {"group": "a/b"}, {"group": ""}, {"job": "a\nb"}])
def test_a_name_that_would_be_another_target_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(MessageError, match="not a valid name"):
        targets_of(plan(**changes))


def test_a_format_that_would_be_another_target_is_refused() -> None:
    with pytest.raises(MessageError, match="format"):
        targets_of(msgspec.structs.replace(DEPLOY, format="../golden"))


def test_metadata_files_come_back_byte_for_byte() -> None:
    files = {"1.root.json": b'{"a" : [1,  2]}', "timestamp.json": b"{}", "12.models.json": b'{"\\u00e9":1}'}
    assert unpack_metadata(pack_metadata(files)) == files


MALICIOUS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no object": lambda: b"[1]",
    "not JSON": lambda: b"\xff\xfe",
    "too large": lambda: b" " * (MAX_METADATA_BYTES + 1),
    "deeper than any parser goes": lambda: b'{"timestamp.json":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "another folder": lambda: b'{"../root.json": {}}',
    "another file": lambda: b'{"root_history/1.root.json": {}}',
    "too many": lambda: json.dumps({f"{n}.root.json": {} for n in range(1, MAX_METADATA_FILES + 2)}).encode(),
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_malicious_metadata_are_refused_in_one_line(case: str) -> None:
    with pytest.raises(TrustError, match="signing metadata"):
        unpack_metadata(MALICIOUS[case]())
