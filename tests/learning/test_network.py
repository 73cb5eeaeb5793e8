from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from mas_edge.job import Job, Task
from mas_edge.job import Network as Family
from mas_edge.learning import Network, build, layout_of, load_vector, vector_of
from mas_edge.protocol.errors import JobError, WeightsError
from tests.learning.jobs import KINDS, OWN, image_job, job, own_job, series_job

LABEL = Task(name="label", kind="class", classes=3)


def part(network: Network, name: str) -> list[float]:
    layout, vector = layout_of(network), vector_of(network)
    places = layout.slices()
    return [float(x) for entry in layout.entries if entry.part == name for x in vector[places[entry.name]]]


def test_the_layout_is_encoder_then_heads_in_task_order_then_buffers() -> None:
    tasks = [Task(name=name, kind="value", head=f"{OWN}:flat_head") for name in ("b", "a")]
    layout = layout_of(build(own_job("depthwise", tasks, [3, 4, 4]), ["b", "a"]))
    assert [(entry.name, entry.part) for entry in layout.entries if entry.trainable] == [
        ("encoder.widen.weight", "encoder"), ("encoder.widen.bias", "encoder"),
        ("encoder.norm.weight", "encoder"), ("encoder.norm.bias", "encoder"),
        ("encoder.depthwise.weight", "encoder"), ("encoder.depthwise.bias", "encoder"),
        ("heads.b.1.weight", "b"), ("heads.b.1.bias", "b"), ("heads.a.1.weight", "a"), ("heads.a.1.bias", "a"),
    ]  # fmt: skip
    kept = [entry.name for entry in layout.entries if not entry.trainable]
    assert kept == ["encoder.norm.running_mean", "encoder.norm.running_var"]
    assert [entry.trainable for entry in layout.entries] == [True] * 10 + [False] * 2


def test_a_frozen_parameter_travels_behind_the_trained_ones() -> None:
    network = build(series_job(), ["label"])
    next(network.encoder.parameters()).requires_grad_(False)
    layout = layout_of(network)
    assert layout.entries[-1].name == "encoder.0.0.weight"
    assert not layout.entries[-1].trainable
    assert vector_of(network)[-layout.entries[-1].size :].any()


def test_a_part_begins_the_same_in_every_group_and_differs_between_seeds_and_tasks() -> None:
    made = series_job([*KINDS, Task(name="label2", kind="class", classes=3)])
    merged, alone = build(made, [task.name for task in made.tasks]), build(made, ["label"])
    assert part(merged, "label") == part(alone, "label")
    assert part(merged, "encoder") == part(alone, "encoder")
    assert part(merged, "label") != part(merged, "label2")
    assert part(build(made, ["label"], seed=1), "encoder") != part(alone, "encoder")
    assert part(build(msgspec.structs.replace(made, seed=1), ["label"]), "label") != part(alone, "label")


def test_building_leaves_the_random_numbers_of_the_caller_alone() -> None:
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    build(series_job(), ["label"])
    assert torch.equal(torch.rand(1), first)


def test_a_vector_loaded_comes_back() -> None:
    network = build(image_job(), ["label", "depth"])
    vector = np.arange(layout_of(network).size, dtype=np.float32)
    load_vector(network, vector)
    assert np.array_equal(vector_of(network), vector)
    assert network.encoder.stem[0].weight.flatten()[1] == 1  # type: ignore[index, union-attr]
    with pytest.raises(WeightsError, match="the vector has shape"):
        load_vector(network, vector[:-1])


def test_building_leaves_batch_statistics_at_their_start() -> None:
    network = build(own_job("depthwise", [Task(name="t", kind="value", head=f"{OWN}:flat_head")], [3, 4, 4]), ["t"])
    assert not network.encoder.norm.running_mean.any()  # type: ignore[union-attr, operator]
    assert network.training
    assert all(module.training for module in network.modules())


def own(encoder: str) -> Job:
    return own_job(encoder, [LABEL], [3, 4, 4])


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (own("missing"), "network.encoder is .*own_parts:missing.* holds no such name"),
        (own("not_a_module"), "network.encoder: .*not_a_module returned int, expected a torch.nn.Module"),
        (own("fails"), "network.encoder: .*fails with {} failed: OSError: the disk of weights is not mounted"),
        (own("depthwise"), r"series heads take features of shape \[channels, length\], the encoder gives \[4, 4, 4\]"),
        (
            series_job([Task(name="t", kind="value", shape=[2], head=f"{OWN}:nothing")]),
            r"tasks\[t\].head gives shape \[2, 16, 2\] for a batch of 2; the loss 'l1' of kind 'value' needs \[2, 2\]",
        ),
        (
            series_job([Task(name="t", kind="value", head_args={"depth": 2})]),
            r"tasks\[t\].head: mas_edge.zoo.series:head with {'depth': 2} failed: TypeError",
        ),
        (series_job([Task(name="update", kind="value")]), "task name 'update' is an attribute of every torch module"),
        (
            job([LABEL], [2, 16], Family(family="tabular")),
            "network.family is 'tabular'; allowed: image, series",
        ),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_built_says_which_key_and_why(broken: Job, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        build(broken, [broken.tasks[0].name])
