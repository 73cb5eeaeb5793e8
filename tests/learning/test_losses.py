from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from mas_edge.job import Task
from mas_edge.learning import LOSSES, METRICS, loss_of, masked_mean, metric_of
from mas_edge.protocol.errors import JobError
from tests.learning.jobs import OWN

MEASURES = {**LOSSES, **METRICS}
INDEXED = {"cross_entropy", "accuracy"}


def sample(name: str, batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(batch)
    if name in INDEXED:
        return torch.randn(batch, 4, 5), torch.randint(0, 4, (batch, 5))
    return torch.randn(batch, 3, 5), torch.randn(batch, 3, 5)


@pytest.mark.parametrize("name", sorted(MEASURES))
@given(valid=st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_masked_sample_counts_as_if_it_were_not_there(name: str, valid: list[bool]) -> None:
    output, target = sample(name, len(valid))
    keep = torch.tensor(valid)
    masked = MEASURES[name](output, target, keep.float())
    if not any(valid):
        assert masked == 0
    else:
        alone = MEASURES[name](output[keep], target[keep], torch.ones(sum(valid)))
        assert torch.allclose(masked, alone, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_batch_without_labels_has_no_loss_and_no_gradient(name: str) -> None:
    output, target = sample(name, 3)
    output.requires_grad_()
    loss = LOSSES[name](output, target, torch.zeros(3))
    loss.backward()
    assert loss == 0
    assert output.grad is not None
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_an_element_mask_picks_the_places_that_count() -> None:
    output, target = torch.tensor([[1.0, 5.0], [2.0, 0.0]]), torch.zeros(2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert LOSSES["l1"](output, target, mask) == 1.0
    assert LOSSES["l2"](output, target, mask) == 1.0
    # all places of the first sample count, the second has none and is left out
    assert LOSSES["l1_all"](output, target, mask) == 0.5


def test_the_cosine_loss_knows_angles_and_no_lengths() -> None:
    output = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    each = [float(LOSSES["cosine"](output, target, mask)) for mask in torch.eye(3)]
    assert each == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)
    angles = [float(METRICS["angle_degrees"](output, target, mask)) for mask in torch.eye(3)]
    assert angles == pytest.approx([0.0, 90.0, 180.0], abs=0.1)


def test_a_vector_that_lacks_a_component_is_not_compared() -> None:
    output, target = torch.randn(1, 3, 2), torch.randn(1, 3, 2)
    mask = torch.ones(1, 3, 2)
    mask[0, 1, 0] = 0
    alone = LOSSES["cosine"](output[:, :, 1:], target[:, :, 1:], torch.ones(1))
    assert torch.allclose(LOSSES["cosine"](output, target, mask), alone)


def test_known_values() -> None:
    logits, index = torch.tensor([[0.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1])
    assert float(LOSSES["cross_entropy"](logits, index, torch.ones(2))) == pytest.approx(0.5 * 0.693147, abs=1e-5)
    assert METRICS["accuracy"](logits, torch.tensor([1, 1]), torch.ones(2)) == 0.5
    values = torch.tensor([3.0, -4.0])
    assert float(METRICS["root_mean_square_error"](values, torch.zeros(2), torch.ones(2))) == pytest.approx(12.5**0.5)
    assert float(LOSSES["huber"](values, torch.zeros(2), torch.ones(2))) == pytest.approx((2.5 + 3.5) / 2)
    assert masked_mean(values, torch.tensor([1.0, 0.0])) == 3.0


def test_an_unknown_loss_names_the_task_and_what_is_allowed() -> None:
    with pytest.raises(JobError, match=r"tasks\[t\]\.loss is 'l3'; allowed: cosine, cross_entropy, huber, l1"):
        loss_of(Task(name="t", kind="value", loss="l3"))
    with pytest.raises(JobError, match=r"tasks\[t\]\.metric is 'l3'; allowed: accuracy"):
        metric_of(Task(name="t", kind="value", metric="l3"))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("no_such_package:loss", "importing 'no_such_package' failed: ModuleNotFoundError"),
        (f"{OWN}:no_such_loss", "holds no such name"),
        (f"{OWN}:A_NUMBER", "holds a int of that name; expected a function"),
    ],
)
def test_a_function_that_is_not_found_says_why(reference: str, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        loss_of(Task(name="t", kind="value", loss=reference))


def test_a_function_of_ones_own_is_found() -> None:
    task = Task(name="t", kind="value", loss=f"{OWN}:log_cosh", metric=f"{OWN}:log_cosh")
    assert loss_of(task) is metric_of(task)


CLASSES = {
    "class": Task(name="t", kind="class", classes=4),
    "dense_class": Task(name="t", kind="dense_class", shape=[5], classes=4),
}
NUMBERS = {
    "value": Task(name="t", kind="value", shape=[3, 5]),
    "direction": Task(name="t", kind="direction", shape=[3, 5]),
}


@pytest.mark.parametrize("kind", [*CLASSES, *NUMBERS])
def test_the_loss_of_a_class_task_is_divided_by_its_unit_and_no_other(kind: str) -> None:
    task = (CLASSES | NUMBERS)[kind]
    in_units = replace(task, unit=4.0)
    output, target = sample("cross_entropy" if kind in CLASSES else "l1", 3)
    plain, divided = (float(loss_of(each)(output, target, torch.ones(3))) for each in (task, in_units))
    assert divided == pytest.approx(plain / 4 if kind in CLASSES else plain)
    assert loss_of(in_units).__name__ == loss_of(task).__name__  # by which errors call it
    assert metric_of(in_units) is metric_of(task)


def test_a_loss_of_ones_own_is_divided_too() -> None:
    own = Task(name="t", kind="class", classes=4, loss=f"{OWN}:log_cosh", unit=2.0)
    output, target = torch.randn(3, 4), torch.randn(3, 4)
    expected = loss_of(replace(own, unit=1.0))(output, target, torch.ones(3)) / 2
    assert torch.equal(loss_of(own)(output, target, torch.ones(3)), expected)
