"""The guides' code blocks, executed in order in one empty folder, as a reader would: own data, own network, exports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from device_runtime.cli import INTERRUPTED
from mas_edge.orchestrator.broker import EmbeddedBroker
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import Reader

GUIDES = ROOT / "docs" / "guides"
OWN_DATA, OWN_NETWORK, EXPORT = (GUIDES / f"{name}.md" for name in ("own-data", "own-network", "export"))


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads, modules = torch.get_num_threads(), set(sys.modules)
    torch.set_num_threads(1)  # on nets of this size threads only get into each other's way
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        if name.split(".")[0] == "pumps":
            del sys.modules[name]


@pytest.mark.e2e
@pytest.mark.usefixtures("empty_folder")
def test_the_guides_do_what_they_say(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    reader = Reader(tmp_path, embedded_broker.url)
    try:
        reader.follow(OWN_DATA)
    finally:
        reader.close()
    assert reader.exit_codes == [0, 4, 0]  # the second one checks a folder that was broken on purpose
    assert reader.interrupted == [INTERRUPTED]  # the device served until then
    reader.exit_codes.clear()
    reader.follow(OWN_NETWORK)
    reader.follow(EXPORT)
    assert reader.exit_codes == [0, 0]
    assert reader.done == sum(len(blocks(page)) for page in (OWN_DATA, OWN_NETWORK, EXPORT))
