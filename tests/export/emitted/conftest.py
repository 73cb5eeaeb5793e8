"""Every test of this folder, once for each engine that programs are emitted for."""

from __future__ import annotations

import pytest

from tests.export.emitted.against_eager import EMITTERS


@pytest.fixture(params=sorted(EMITTERS))
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
