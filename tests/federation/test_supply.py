"""Who gets what: programs by engine, models by what a device can run, and what has to be made first."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.federation.flow import GroupState, Provided, RoundWork
from mas_edge.federation.supply import Supply, Wanted, halves, program_called, program_name
from mas_edge.job import ENGINES, Data, Federation, Job, Task
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Birth, Manifest, SampleCount
from mas_edge.protocol.models import BOARD_ENGINE, BOARD_FORMAT, ENGINE_OF

JOB = Job(
    name="j",
    data=Data(input_shape=[3]),
    tasks=[Task(name="a", kind="value")],
    federation=Federation(rounds=2, merge_rounds=1, batch_size=8),
    engines=["torch", "onnxruntime", "executorch"],
)


def thing(name: str) -> Manifest:
    return describe(name.encode())


GROUP = GroupState(
    name="group-0", tasks=["a"], programs={engine: thing(engine) for engine in JOB.engines}, weights=thing("w"),
    next_round=1, end_round=2, models={"onnx": thing("model")}, golden=thing("golden"),
)  # fmt: skip
TRAIN = RoundWork("group-0-0001", "train", "group-0", 1, "group-0-0001")
DEPLOY = RoundWork("deploy-group-0", "deploy", "group-0", 2, "deploy-group-0")


def birth(engine: str, *engines: str, shape: int = 3, allows: int = 0) -> Birth:
    return Birth(
        sender="pi", boot_id="b", seq=1, runtime="0", python="3", machine="m", cores=1, memory_bytes=1, engine=engine,
        engines=list(engines or [engine]), input_shape=[shape], tasks={"a": SampleCount(train=1, test=1)},
        step_memory_bytes=allows,
    )  # fmt: skip


FLEET = {
    "both": birth("torch", "torch", "onnxruntime"),
    "board": birth("executorch"),
    "phone": birth("litert"),
    "laptop": birth("torch"),
    "camera": birth("onnxruntime", shape=4),
}
RUNS = {**ENGINE_OF, BOARD_FORMAT: BOARD_ENGINE}


def test_a_training_round_gives_each_device_the_program_of_its_engine_and_nothing_has_to_be_made() -> None:
    supply = Supply(JOB)
    assert supply.served(TRAIN, GROUP, FLEET) == {"both": "torch", "board": "executorch", "laptop": "torch"}
    assert supply.lacking(TRAIN, GROUP, FLEET) == []


def test_a_deployment_gives_each_device_a_model_that_it_can_run() -> None:
    assert Supply(JOB).served(DEPLOY, GROUP, FLEET) == {"both": "onnx", "board": "pte", "phone": "tflite"}


@pytest.mark.parametrize("trains_with", ["micro", ""])
def test_a_microboard_gets_a_model_of_its_own_whether_it_trains_or_not(trains_with: str) -> None:
    supply, fleet = Supply(JOB), {"esp": birth(trains_with, "micro")}
    assert supply.served(DEPLOY, GROUP, fleet) == {"esp": "int8"}
    assert supply.lacking(DEPLOY, GROUP, fleet) == [Wanted("group-0", "model", "int8")]
    assert supply.why_no_model(fleet["esp"], [GROUP]) == ""


def test_the_formats_that_devices_need_are_made_once_and_no_others() -> None:
    supply = Supply(JOB)
    wanted = supply.lacking(DEPLOY, GROUP, FLEET)
    assert wanted == [Wanted("group-0", "model", "pte"), Wanted("group-0", "model", "tflite")]
    made = replace(GROUP, models={**GROUP.models, "pte": thing("pte")})
    assert supply.lacking(DEPLOY, made, FLEET) == wanted[1:]
    assert supply.lacking(DEPLOY, GROUP, {"both": FLEET["both"]}) == []


def test_devices_whose_format_cannot_be_made_are_left_out_and_told_why() -> None:
    supply = Supply(JOB)
    supply.refuse(Wanted("group-0", "model", "tflite"), "exporting to litert needs litert_torch")
    assert "phone" not in supply.served(DEPLOY, GROUP, FLEET)
    assert [wanted.name for wanted in supply.lacking(DEPLOY, GROUP, FLEET)] == ["pte"]
    assert supply.why_no_model(FLEET["phone"], [GROUP]) == (
        "it needs the model as .tflite, which cannot be made: exporting to litert needs litert_torch"
    )
    assert supply.why_no_model(FLEET["phone"], [replace(GROUP, name="group-1")]) == ""
    assert supply.why_no_model(FLEET["both"], [GROUP]) == ""


def test_a_device_that_can_run_no_model_is_told_what_to_install() -> None:
    assert Supply(JOB).why_no_model(FLEET["laptop"], []) == (
        "it has torch, which runs no deployed model: install one of onnxruntime, executorch, litert"
    )


fleets = st.dictionaries(
    st.sampled_from([f"pi-{i}" for i in range(6)]),
    st.builds(birth, st.sampled_from(["", *ENGINES]), st.sampled_from(ENGINES), shape=st.sampled_from([3, 3, 4])),
)


@given(fleets, st.sets(st.sampled_from(["onnx", "pte", "tflite"])))
def test_once_everything_wanted_is_made_or_refused_every_device_that_is_served_gets_what_is_there(
    fleet: dict[str, Birth], impossible: set[str]
) -> None:
    supply, group = Supply(JOB), GROUP
    while wanted := supply.lacking(DEPLOY, group, fleet):
        if wanted[0].name in impossible:
            supply.refuse(wanted[0], "no")
        else:
            made = Provided(group.name, models={wanted[0].name: thing(wanted[0].name)})
            group = replace(group, models={**group.models, **made.models})
    served = supply.served(DEPLOY, group, fleet)
    for name, form in served.items():
        assert form in group.models
        assert RUNS[form] in {fleet[name].engine, *fleet[name].engines}
    for name, there in fleet.items():
        shown = supply.why_no_model(there, [group]) == "" and there.input_shape == [3]
        assert shown == (name in served)


# What the programs of a group take: 8 samples at once, and halves.
MEMORY = {
    "torch": {8: 1000, 4: 700, 2: 500, 1: 400},
    "onnxruntime": {8: 2000, 4: 1000, 2: 600, 1: 300},
    "executorch": {8: 900, 4: 500, 2: 300, 1: 200},
}
KNOWN = replace(GROUP, memory=MEMORY)


def test_what_programs_take_is_asked_for_when_the_first_device_with_a_limit_is_there_and_before_any_program() -> None:
    supply = Supply(JOB)
    fleet = {"free": birth("torch"), "small": birth("torch", allows=750), "other": birth("onnxruntime", allows=10**6)}
    assert supply.lacking(TRAIN, GROUP, {"free": fleet["free"]}) == []
    assert supply.lacking(TRAIN, GROUP, fleet) == [Wanted("group-0", "memory")]
    assert supply.served(TRAIN, GROUP, fleet) == {"free": "torch"}


def test_a_device_with_a_limit_gets_the_largest_batch_that_fits() -> None:
    supply = Supply(JOB)
    fleet = {
        "free": birth("torch"), "large": birth("torch", allows=1000), "small": birth("torch", allows=750),
        "board": birth("onnxruntime", allows=300),
    }  # fmt: skip
    wanted = [Wanted("group-0", "program", "onnxruntime@1"), Wanted("group-0", "program", "torch@4")]
    assert supply.lacking(TRAIN, KNOWN, fleet) == wanted
    made = replace(KNOWN, programs={**KNOWN.programs, **{each.name: thing(each.name) for each in wanted}})
    assert supply.lacking(TRAIN, made, fleet) == []
    assert supply.served(TRAIN, made, fleet) == {
        "free": "torch", "large": "torch", "small": "torch@4", "board": "onnxruntime@1",
    }  # fmt: skip


def test_a_device_for_which_no_batch_fits_is_left_out_and_told_why() -> None:
    supply = Supply(JOB)
    tiny = birth("torch", allows=399)
    assert supply.served(TRAIN, KNOWN, {"tiny": tiny}) == {}
    assert supply.lacking(TRAIN, KNOWN, {"tiny": tiny}) == []
    assert "a step on the smallest batch takes 0.0 MiB" in supply.why_not(tiny, [KNOWN])
    assert supply.why_not(tiny, [GROUP]) == "", "before it is known what a program takes there is no reason"
    smaller = replace(KNOWN, name="group-1", memory={"torch": {1: 300}})
    assert supply.why_not(tiny, [KNOWN, smaller]) == "", "it can serve another group"


def test_a_limit_is_no_reason_against_a_deployment() -> None:
    tiny = birth("onnxruntime", allows=1)
    assert Supply(JOB).served(DEPLOY, KNOWN, {"tiny": tiny}) == {"tiny": "onnx"}


def test_a_program_that_cannot_be_made_leaves_out_its_devices_with_the_reason() -> None:
    supply = Supply(JOB)
    fleet = {"free": birth("torch"), "small": birth("torch", allows=750)}
    supply.refuse(Wanted("group-0", "program", "torch@4"), "it differs by 0.1")
    assert supply.served(TRAIN, KNOWN, fleet) == {"free": "torch"}
    assert supply.lacking(TRAIN, KNOWN, fleet) == []
    reason = supply.why_not(fleet["small"], [KNOWN])
    assert reason == "it needs the program torch@4, which cannot be made: it differs by 0.1"


limits = st.dictionaries(
    st.sampled_from([f"pi-{i}" for i in range(6)]),
    st.builds(birth, st.sampled_from(JOB.engines), allows=st.integers(0, 2500)),
)


@given(limits)
def test_every_device_gets_a_program_it_has_room_for_and_is_left_out_only_if_there_is_none(
    fleet: dict[str, Birth],
) -> None:
    supply, group = Supply(JOB), GROUP
    for _ in range(40):
        wanted = supply.lacking(TRAIN, group, fleet)
        if not wanted:
            break
        if wanted[0].kind == "memory":
            group = replace(group, memory=MEMORY)
        else:
            group = replace(group, programs={**group.programs, wanted[0].name: thing(wanted[0].name)})
    assert supply.lacking(TRAIN, group, fleet) == []
    served = supply.served(TRAIN, group, fleet)
    for name, there in fleet.items():
        fits = there.step_memory_bytes == 0 or min(MEMORY[there.engine].values()) <= there.step_memory_bytes
        assert (name in served) == fits == (supply.why_not(there, [group]) == "")
        if fits:
            assert served[name] in group.programs
            engine, batch = program_called(served[name], JOB)
            assert engine == there.engine
            assert there.step_memory_bytes == 0 or MEMORY[engine][batch] <= there.step_memory_bytes


@given(st.sampled_from(ENGINES), st.integers(1, 4096))
def test_the_name_of_a_program_says_its_engine_and_batch(engine: str, batch: int) -> None:
    assert program_called(program_name(engine, batch, JOB), JOB) == (engine, batch)


@given(st.integers(1, 4096))
def test_halves_end_with_one_sample(batch: int) -> None:
    found = halves(batch)
    assert (found[0], found[-1]) == (batch, 1)
    assert all(later == earlier // 2 for earlier, later in itertools.pairwise(found))
