"""Find a function that a job names as ``package:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from mas_edge.protocol.errors import JobError


def find_function(reference: str, key: str) -> Callable[..., Any]:
    """Return the function that ``reference`` (``package:function``) names; ``key`` is its place in the job.

    Raises:
        JobError: the package does not import, or holds no such function.
    """
    package, _, name = reference.partition(":")
    try:
        module = importlib.import_module(package)
    except Exception as error:
        message = (
            f"{key} is {reference!r}, but importing {package!r} failed: {type(error).__name__}: {error}; "
            "the folder that holds it must be on PYTHONPATH or installed"
        )
        raise JobError(message) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = "holds no such name" if function is None else f"holds a {type(function).__name__} of that name"
        message = f"{key} is {reference!r}, but {package!r} {found}; expected a function"
        raise JobError(message)
    found_function: Callable[..., Any] = function
    return found_function
