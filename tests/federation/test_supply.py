"""Who gets what: programs by engine, models by what a device can run, and what has to be made first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.federation.flow import GroupState, Provided, RoundWork
from mas_edge.federation.supply import Supply, Wanted
from mas_edge.job import ENGINES, Data, Federation, Job, Task
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Birth, Manifest, SampleCount
from mas_edge.protocol.models import ENGINE_OF

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


def birth(engine: str, *engines: str, shape: int = 3) -> Birth:
    return Birth(
        sender="pi", boot_id="b", seq=1, runtime="0", python="3", machine="m", cores=1, memory_bytes=1, engine=engine,
        engines=list(engines or [engine]), input_shape=[shape], tasks={"a": SampleCount(train=1, test=1)},
    )  # fmt: skip


FLEET = {
    "both": birth("torch", "torch", "onnxruntime"),
    "board": birth("executorch"),
    "phone": birth("litert"),
    "laptop": birth("torch"),
    "camera": birth("onnxruntime", shape=4),
}


def test_a_training_round_gives_each_device_the_program_of_its_engine_and_nothing_has_to_be_made() -> None:
    supply = Supply(JOB)
    assert supply.served(TRAIN, GROUP, FLEET) == {"both": "torch", "board": "executorch", "laptop": "torch"}
    assert supply.lacking(TRAIN, GROUP, FLEET) == []


def test_a_deployment_gives_each_device_a_model_that_it_can_run() -> None:
    assert Supply(JOB).served(DEPLOY, GROUP, FLEET) == {"both": "onnx", "board": "pte", "phone": "tflite"}


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
    assert supply.why_no_model(FLEET["phone"], ["group-0"]) == (
        "it needs the model as .tflite, which cannot be made: exporting to litert needs litert_torch"
    )
    assert supply.why_no_model(FLEET["phone"], ["group-1"]) == ""
    assert supply.why_no_model(FLEET["both"], ["group-0"]) == ""


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
        assert ENGINE_OF[form] in {fleet[name].engine, *fleet[name].engines}
    for name, there in fleet.items():
        shown = supply.why_no_model(there, ["group-0"]) == "" and there.input_shape == [3]
        assert shown == (name in served)
