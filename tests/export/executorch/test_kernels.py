from __future__ import annotations

import importlib
import warnings

import pytest
import torch

from mas_edge.export.executorch.emitter import DEFINITIONS
from mas_edge.export.executorch.kernels import KERNELS, kernel_of, outputs_of

ATEN = torch.ops.aten


def test_every_kernel_is_in_the_released_runtime() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runtime = importlib.import_module("executorch.extension.pybindings.portable_lib")
    assert not {f"aten::{kernel}" for kernel in KERNELS} - set(runtime._get_operator_names())


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_every_kernel_is_an_out_variant_of_pytorch(kernel: str) -> None:
    name, _, overload = kernel.partition(".")
    assert outputs_of(getattr(getattr(ATEN, name), overload)) >= 1


@pytest.mark.parametrize("operator", ["convolution", "convolution_backward", "max_pool2d_with_indices_backward"])
def test_what_is_slow_or_wrong_is_never_called_and_has_a_definition(operator: str) -> None:
    assert not [kernel for kernel in KERNELS if kernel.partition(".")[0] == operator]
    target = getattr(ATEN, operator).default
    assert kernel_of(target) is None
    assert target in DEFINITIONS


def test_an_operator_finds_the_kernel_with_its_arguments() -> None:
    found = {
        ATEN.add.Tensor: ATEN.add.out, ATEN.sum.dim_IntList: ATEN.sum.IntList_out, ATEN.gt.Scalar: ATEN.gt.Scalar_out,
        ATEN.index.Tensor: ATEN.index.Tensor_out, ATEN.max.dim: ATEN.max.dim_max,
    }  # fmt: skip
    assert {target: kernel_of(target) for target in found} == found
    assert kernel_of(ATEN.sort.default) is None
    assert outputs_of(ATEN.max.dim_max) == 2
