"""Multiply-accumulates of traced steps, against what one counts by hand."""

from __future__ import annotations

import msgspec
import pytest
from torch import nn

from mas_edge.export.cost import with_costs
from mas_edge.export.trace import trace_program
from mas_edge.job import Affinity, Data, Federation, Job, Method, Network, Task
from mas_edge.mas.limits import Costs
from mas_edge.orchestrator.workshop import group_costs, make_programs
from mas_edge.protocol import program as program_format

BATCH, INPUTS, FEATURES = 6, 5, 7
SIZE, CHANNELS, WIDTH = 8, 3, 4


def dense(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], FEATURES), nn.Tanh())


def convolved(input_shape: tuple[int, ...]) -> nn.Module:
    """The second convolution halves each side."""
    first, second = (
        nn.Conv2d(input_shape[0], WIDTH, 3, padding=1),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
    )
    return nn.Sequential(first, nn.GroupNorm(2, WIDTH), nn.ReLU(), second, nn.Flatten())


def outputs(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    return nn.Linear(feature_shape[0], task.classes or task.shape[0])


def a_task(name: str, size: int) -> Task:
    return Task(name=name, kind="value", shape=[size], head=f"{__name__}:outputs")


def a_job(encoder: str, shape: list[int], tasks: list[Task]) -> Job:
    return Job(
        name="counted", data=Data(input_shape=shape), tasks=tasks, network=Network(encoder=f"{__name__}:{encoder}"),
        federation=Federation(rounds=2, merge_rounds=1, groups=1, batch_size=BATCH), engines=["torch"],
    )  # fmt: skip


DENSE = a_job("dense", [INPUTS], [a_task("a", 2), a_task("b", 3)])
CONVOLVED = a_job("convolved", [CHANNELS, SIZE, SIZE], [a_task("a", 2)])


def counted(job: Job, *methods: str) -> dict[str, int]:
    """For one sample, by method."""
    program = trace_program(job, "merged", [task.name for task in job.tasks], methods)
    assert all(program.methods[name].multiply_accumulates % BATCH == 0 for name in methods)
    return {name: program.methods[name].multiply_accumulates // BATCH for name in methods}


def test_linear_layers_forward_and_in_a_train_step() -> None:
    """Backward: a gradient of the weights in each layer, one of the inputs in all but the first."""
    encoder, heads = INPUTS * FEATURES, FEATURES * (2 + 3)
    found = counted(DENSE, "infer", "evaluate", "train_step")
    assert found["infer"] == found["evaluate"] == encoder + heads
    assert found["train_step"] == 2 * encoder + 3 * heads


def test_convolutions_forward_and_in_a_train_step() -> None:
    first = SIZE**2 * 9 * CHANNELS * WIDTH
    second = (SIZE // 2) ** 2 * 9 * WIDTH * 2 * WIDTH
    head = 2 * WIDTH * (SIZE // 2) ** 2 * 2
    found = counted(CONVOLVED, "infer", "train_step")
    assert found["infer"] == first + second + head
    assert found["train_step"] == 2 * first + 3 * (second + head)


def test_the_batch_is_what_counts_are_taken_of() -> None:
    double = msgspec.structs.replace(
        DENSE, federation=msgspec.structs.replace(DENSE.federation, batch_size=2 * BATCH)
    )  # fmt: skip
    one, two = (trace_program(job, "merged", ["a", "b"], ["train_step"]) for job in (DENSE, double))
    assert two.methods["train_step"].multiply_accumulates == 2 * one.methods["train_step"].multiply_accumulates


def test_affinity_by_lookahead_costs_more_than_to_first_order_and_that_more_than_at_the_features() -> None:
    """n tasks: n encoders backward and n forward again; n backward; none backward."""
    kinds = ("lookahead", "first_order", "features")
    jobs = [msgspec.structs.replace(CONVOLVED, tasks=[a_task("a", 2), a_task("b", 3)])] * 3
    costs = [
        counted(msgspec.structs.replace(job, affinity=Affinity(kind=kind)), "affinity")["affinity"]  # type: ignore[arg-type]
        for job, kind in zip(jobs, kinds, strict=True)
    ]
    assert costs[0] > costs[1] > costs[2] > counted(jobs[0], "infer")["infer"]


def test_gradnorm_needs_no_product_more_as_it_looks_at_the_features() -> None:
    balanced = msgspec.structs.replace(CONVOLVED, method=Method(name="all-in-one", balance="gradnorm"))
    assert counted(balanced, "train_step") == counted(CONVOLVED, "train_step")


IMAGE = Job(
    name="E5", data=Data(input_shape=[3, 32, 32]), network=Network(family="image"),
    federation=Federation(rounds=48, merge_rounds=14, batch_size=BATCH), engines=["torch"],
    tasks=[
        Task(name="depth", kind="value", shape=[32, 32]), Task(name="more", kind="value", shape=[32, 32]),
        Task(name="segmentation", kind="dense_class", shape=[32, 32], classes=8),
    ],
)  # fmt: skip


def test_the_image_encoder_takes_6_71_million_and_a_dense_head_a_tenth_of_it() -> None:
    """Pixels x 9 x channels in x channels out, layer by layer, at widths 8, 24 and 48."""
    stem, middle = 32**2 * 9 * 3 * 8, 16**2 * 9 * (8 * 24 + 2 * 24 * 24)
    deep = 8**2 * (9 * (24 * 48 + 2 * 48 * 48) + 48 * 24)
    head = {out: 16**2 * (9 * 24 * 12 + 12 * 4 * out) for out in (1, 8)}
    alone = {
        task: trace_program(IMAGE, task, [task], ["infer"]).methods["infer"].multiply_accumulates // BATCH
        for task in ("depth", "segmentation")
    }
    encoder = alone["depth"] - head[1]
    assert encoder == stem + middle + deep == 6_709_248
    assert alone["segmentation"] - encoder == head[8]
    assert (head[1] / encoder, head[8] / encoder) == pytest.approx((0.101, 0.114), abs=5e-4)


def test_a_program_for_another_engine_carries_what_the_graph_costs() -> None:
    both = msgspec.structs.replace(DENSE, engines=["torch", "onnxruntime"])
    programs = {name: program_format.load(made) for name, made in make_programs(both, "group-0", ["a", "b"]).items()}
    counts = [{m: each.multiply_accumulates for m, each in p.methods.items()} for p in programs.values()]
    assert counts[0] == counts[1]
    assert counts[0]["train_step"] == BATCH * (2 * INPUTS * FEATURES + 3 * FEATURES * 5)


def test_what_an_emitter_left_out_is_taken_from_the_trace() -> None:
    traced = trace_program(DENSE, "merged", ["a", "b"], ["evaluate"])
    bare = msgspec.structs.replace(
        traced,
        methods={
            name: msgspec.structs.replace(method, memory_bytes=0, multiply_accumulates=0)
            for name, method in traced.methods.items()
        },
    )
    assert with_costs(bare, traced) == traced


def test_the_costs_of_a_group_add_up_from_its_encoder_and_its_heads() -> None:
    costs = group_costs(DENSE)
    assert costs["parameters"] == Costs(
        INPUTS * FEATURES + FEATURES, {"a": 2 * FEATURES + 2, "b": 3 * FEATURES + 3}
    )  # fmt: skip
    work = costs["multiply_accumulates"]
    assert work.encoder == pytest.approx(2 * INPUTS * FEATURES)
    assert work.heads == pytest.approx({"a": 3 * FEATURES * 2, "b": 3 * FEATURES * 3})
    merged = trace_program(DENSE, "merged", ["a", "b"], ["train_step"]).methods["train_step"]
    assert costs["memory_bytes"].of(["a", "b"]) == pytest.approx(merged.memory_bytes)


def test_a_job_of_one_task_has_no_encoder_to_tell_apart() -> None:
    one = msgspec.structs.replace(DENSE, tasks=DENSE.tasks[:1])
    work = group_costs(one)["multiply_accumulates"]
    assert (work.encoder, work.of(["a"])) == (0, 2 * INPUTS * FEATURES + 3 * FEATURES * 2)
