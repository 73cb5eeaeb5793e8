from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from mas_edge.export.card import (
    FORMAT,
    Board,
    Checked,
    DataCard,
    FileCard,
    InputCard,
    Measured,
    ModelCard,
    NetworkCard,
    TaskCard,
    TrainingCard,
    from_toml,
    to_toml_text,
)
from mas_edge.export.card_page import UNSAID, to_markdown
from mas_edge.export.report import Loss
from mas_edge.protocol.errors import ServerError

SEEN = Measured(stage="merged", loss=0.5, metric=0.75, samples=40, devices=3, lowest=0.5, highest=0.9)
CARD = ModelCard(
    format=FORMAT, name="watch group-0", job="watch", group="group-0", target="onnx", precision="int8",
    engine="onnxruntime", created="2026-01-02T03:04:05Z",
    tasks=[
        TaskCard(name="gait", kind="class", output=[3], classes=3, metric="accuracy", loss="cross_entropy",
                 measured=[SEEN, replace(SEEN, stage="split", metric=0.8)]),
        TaskCard(name="speed", kind="value", output=[], metric="own:error", loss="l1", unit="m/s | km/h"),
    ],
    input=InputCard(name="x", shape=[6, 64], dtype="float32", batch="any batch size"),
    network=NetworkCard(architecture="family series", weights=10, trained=9, parts={"encoder": 8, "gait": 2},
                        arguments={"width": 4}),
    training=TrainingCard(run="the run watch-1", rounds=6, devices=3, seconds=1.5),
    files=[FileCard(name="model.onnx", size=7, sha256="ab" * 32, content="the model")],
    versions={"torch": "2.13.0+cpu"},
    verification=[Checked(what="inference model", outputs=2, worst="gait", max_abs=1e-7, max_rel=2e-7, tolerance=1e-4)],
    quantization=[Loss(task="gait", relative_l2=0.0123, samples=40, metric="accuracy", fp32=0.8, int8=0.79,
                       labelled=40),
                  Loss(task="speed", relative_l2=0.5, samples=40)],
    data=DataCard(description="Ten\npeople.", licence="CC0", contact="a@b.example"), limits="None known.",
)  # fmt: skip


def tables(page: str) -> list[list[list[str]]]:
    """The cells of each table: lines that begin with a pipe, split at those that are not escaped."""
    found = re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()] for table in found]


def test_the_card_reads_back_from_toml_as_it_was() -> None:
    assert from_toml(to_toml_text(CARD)) == CARD
    bare = replace(CARD, quantization=[], data=DataCard(), limits="", verification=[], versions={})
    assert from_toml(to_toml_text(bare)) == bare
    board = replace(CARD, board=Board(flash=1000, arena=512, granularity=16, operators={"CONV_2D": 3}))
    assert from_toml(to_toml_text(board)) == board
    assert "1000 bytes of flash and an arena of 512 bytes of RAM" in to_markdown(board)


@pytest.mark.parametrize("text", ["not toml [", "format = 1", to_toml_text(CARD) + "\n[own]\nkey = 1\n"])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ServerError, match="not a model card"):
        from_toml(text)


def test_every_table_of_the_page_has_as_many_cells_in_each_row_as_in_its_heading() -> None:
    page = to_markdown(CARD)
    assert len(tables(page)) == 5
    for table in tables(page):
        assert len(table) > 2
        assert {len(row) for row in table} == {len(table[0])}, table[0]
        assert all(set(cell) <= {"-", ":"} for cell in table[1])
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# watch group-0", "## Tasks", "## Measured", "## What int8 costs", "## Network", "## Verification", "## Files",
        "## Data", "## Intended use and limits",
    ]  # fmt: skip


def test_the_page_shows_stages_as_columns_and_the_spread_of_the_devices() -> None:
    page = to_markdown(CARD)
    assert "| task | merged | split | by device |" in page
    assert "| gait, accuracy (share right) | 0.75 (0.5) | 0.8 (0.5) | 0.5 to 0.9 (3) |" in page
    assert "| speed, own:error | - | - | - |" in page
    assert "| gait | 1.23 % | accuracy | 0.8 | 0.79 | 40 |" in page
    assert "| speed | 50.00 % | - | - | - | 40 |" in page


def test_the_page_says_what_nobody_said() -> None:
    silent = replace(CARD, tasks=[replace(task, measured=[]) for task in CARD.tasks], data=DataCard(), limits="")
    page = to_markdown(replace(silent, quantization=[]))
    assert page.count(UNSAID) == 2
    assert "No measurement came with the weights." in page
    assert "Licence of the data: not stated in the job file." in page
    assert "int8 costs" not in page
