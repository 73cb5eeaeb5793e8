"""Model families: an encoder, and a head per kind of task.

Each family is a module with ``encoder(input_shape, **encoder_args)`` and ``head(feature_shape, task, **head_args)``,
the contract that an encoder or a head of one's own follows too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from mas_edge.protocol.errors import JobError
from mas_edge.zoo import image, series

FAMILIES: dict[str, ModuleType] = {"image": image, "series": series}


@dataclass(frozen=True)
class Family:
    """The two functions of a model family."""

    encoder: Callable[..., nn.Module]
    head: Callable[..., nn.Module]


def family(name: str) -> Family:
    """The family called ``name``. Raises JobError for an unknown one."""
    if name not in FAMILIES:
        message = f"network.family is {name!r}; allowed: {', '.join(sorted(FAMILIES))}"
        raise JobError(message)
    module = FAMILIES[name]
    return Family(module.encoder, module.head)


__all__ = ["FAMILIES", "Family", "family"]
