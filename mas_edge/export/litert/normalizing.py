"""Group norm by means, as training needs the mean and the spread of each group as well.

litert-torch 0.10 lays a group norm behind a convolution out anew and forgets both: a step whose second pass goes on
from the first (affinity by lookahead) ended with an error there.
"""

from __future__ import annotations

from torch import Tensor


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, samples: int, channels: int, _places: int, groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """``aten.native_group_norm``: the result like ``x`` [N, C, *], mean and 1 / spread [N, G]."""
    grouped = x.reshape(samples, groups, -1)
    mean = grouped.mean(2, keepdim=True)
    centred = grouped - mean
    inverse = ((centred * centred).mean(2, keepdim=True) + eps).rsqrt()
    found = (centred * inverse).reshape(x.shape)
    per_channel = (1, channels, *[1] * (x.dim() - 2))
    if weight is not None:
        found = found * weight.reshape(per_channel)
    if bias is not None:
        found = found + bias.reshape(per_channel)
    return found, mean.reshape(samples, groups), inverse.reshape(samples, groups)
