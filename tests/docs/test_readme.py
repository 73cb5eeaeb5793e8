"""The README, the guides for newcomers and operators, and what all pages name: links, folders, fields, exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import device_runtime.cli
import mas_edge.cli
from device_runtime.cli import INTERRUPTED
from mas_edge.cli.serve import ABORTED
from mas_edge.datasets.constant import constant_losses
from mas_edge.federation.flow import PHASES, JobState
from mas_edge.job import Federation, load_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker import EmbeddedBroker
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, Traffic
from mas_edge.orchestrator.result import result_of
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.errors import EdgeError
from tests.docs.pages import LINK, ROOT, anchors, blocks, in_ticks, pages, prose, rows, section
from tests.docs.reader import Reader
from tests.docs.typed import check_extras
from tests.reporting.small_runs import MERGED, REST, write_run

README, GUIDES = ROOT / "README.md", ROOT / "docs" / "guides"
OPERATE, FIRST = GUIDES / "operate.md", GUIDES / "first-ten-minutes.md"
USAGE = 2


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was exported for one page: the same job is not exported again for the next."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exports: Path) -> Path:
    """A folder with what a reader of a page has in a clone, a demo behind them; it is the working directory."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "runs" / "watch").mkdir(parents=True)
    (tmp_path / "runs" / "watch" / "exports").symlink_to(exports)
    write_run(tmp_path / "demo-out" / "state", MERGED + REST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Each page is read with an orchestrator and a device that really run. What comes out, page by page: of commands that
# end by themselves, and of what Ctrl-C ends. The second orchestrator of operate.md goes on where the first was stopped.
CODES = {
    README: ([0, 0, 0], [INTERRUPTED] * 2),
    OPERATE: ([0, 0, 0, 0, 0], [INTERRUPTED] * 3),
    FIRST: ([0, 0, 0, 0, 0, 3, 0], [INTERRUPTED] * 3),
}


@pytest.mark.e2e
@pytest.mark.parametrize("page", CODES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, clone: Path, embedded_broker: EmbeddedBroker) -> None:
    reader = Reader(clone, embedded_broker.url)
    try:
        reader.follow(page)
    finally:
        reader.close()
    assert (reader.exit_codes, reader.interrupted) == CODES[page]


def test_the_readme_shows_the_losses_of_the_best_constants(clone: Path) -> None:
    assert mas_edge.cli.main(["data", "watch", "--out", "data"]) == 0
    known = constant_losses(load_job(Path("models/watch.toml")), sorted(Path("data").glob("watch-*/")))
    shown = {name: float(re.findall(rf"^  {name} +(\S+)", README.read_text(), re.MULTILINE)[0]) for name in known}
    assert shown == {name: round(loss, 4) for name, loss in known.items()}


def test_every_link_leads_somewhere() -> None:
    for page in pages():
        for link in LINK.findall(prose(page)):
            path, _, anchor = link.partition("#")
            if "://" not in link:
                target = page.parent / path if path else page
                assert target.exists(), f"{page}: {link}"
                assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_source_file_that_a_page_names_exists() -> None:
    for page in pages():
        for name in re.findall(r"`((?:mas_edge|device_runtime|broker|models|tools|docs|tests)/[\w./-]+)`", prose(page)):
            below_a_run = name.startswith(("models/GROUP", "broker/mosquitto.log"))
            assert below_a_run or (ROOT / name).exists(), f"{page}: {name}"


def test_the_map_of_the_readme_is_the_tree() -> None:
    [tree] = [block.text for block in blocks(README) if block.text.startswith("mas_edge/")]
    named, top = set(), ""
    for indent, name in re.findall(r"^( *)(\w+)/", tree, re.MULTILINE):
        top = top if indent else name
        named.add(f"{top}/{name}" if indent else name)
    packages = [p.parent for kind in ("mas_edge", "device_runtime") for p in (ROOT / kind).glob("*/__init__.py")]
    content = [ROOT / name for name in ("mas_edge", "device_runtime", "broker", "models", "tools", "tests", "docs")]
    assert named == {str(path.relative_to(ROOT)) for path in packages + content}


def test_the_readme_names_every_extra_and_no_other() -> None:
    extras = {name for row in rows(section(README, "A fleet of your own")) for name in in_ticks(row[0])}
    check_extras(",".join(extras))
    assert extras == {
        "torch", "onnx", "executorch", "litert", "tflite", "server", "executorch-export", "litert-export", "broker",
        "demo", "dev",
    }  # fmt: skip


def test_the_first_screen_of_the_readme_stays_short() -> None:
    assert len(README.read_text().splitlines()) < 150


def test_the_guide_names_the_exit_codes_of_the_code() -> None:
    documented = {int(row[0]) for row in rows(section(OPERATE, "Exit codes"))}
    assert documented == {0, USAGE, ABORTED, INTERRUPTED} | {error.exit_code for error in EdgeError.__subclasses__()}


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize(
    ("main", "command", "code"),
    [
        (mas_edge.cli.main, "serve none.toml --state run", 3),
        (device_runtime.cli.main, "check --data none", 4),
        (mas_edge.cli.main, "serve models/watch.toml --state run --broker mosquito", 5),
        (mas_edge.cli.main, "status --state none", 6),
    ],
)
def test_a_command_ends_with_the_code_of_who_has_to_act(
    main: Callable[[list[str]], int], command: str, code: int
) -> None:
    assert main(command.split()) == code


def test_a_wrong_command_line_ends_with_the_code_for_usage() -> None:
    with pytest.raises(SystemExit) as end:
        mas_edge.cli.main(["fly"])
    assert end.value.code == USAGE


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """A run that has just begun."""
    store = Store(tmp_path)
    store.begin(load_job(ROOT / "models" / "watch.toml"), JobState(run_id="watch-1"))
    store.close()
    return view.read(tmp_path)


def test_the_guide_names_the_fields_of_the_result_and_no_other(snapshot: Snapshot) -> None:
    documented = [name for row in rows(section(OPERATE, "result.json"), 0) for name in in_ticks(row[0])]
    assert documented == list(result_of(snapshot))


def test_the_guide_names_the_fields_of_a_round_and_no_other() -> None:
    table = rows(section(OPERATE, "result.json"), 1)
    documented = {name for row in table for name in in_ticks(row[0])}
    assert documented == {*RoundRecord.__struct_fields__, "sent_bytes", "received_bytes"}
    [traffic] = [row[1] for row in table if row[0] == "`traffic`"]
    assert tuple(in_ticks(traffic)) == Traffic.__struct_fields__


def test_the_guide_names_the_keys_of_rounds_with_the_defaults_that_the_job_has() -> None:
    elsewhere = {"rounds", "merge_rounds", "groups", "at_most", "local_epochs", "batch_size"}
    told = {in_ticks(key)[0]: default for key, default, _ in rows(section(OPERATE, "Rounds"))}
    fields = {each.name: each.default for each in msgspec.structs.fields(Federation)}
    assert told.keys() == fields.keys() - elsewhere
    assert told == {name: msgspec.json.encode(fields[name]).decode() for name in told}


def test_the_guide_names_the_fields_of_a_device_and_no_other() -> None:
    [devices] = [row[1] for row in rows(section(OPERATE, "result.json")) if row[0] == "`devices`"]
    assert {"name", *in_ticks(devices)} == set(DeviceRecord.__struct_fields__)


def test_the_guide_names_the_parts_of_the_status_and_the_phases() -> None:
    watch = section(OPERATE, "Watch")
    assert set(Snapshot.__struct_fields__) <= set(in_ticks(watch))
    assert re.findall(r"`(\w+)`", watch.partition("Phases come in this order:")[2])[: len(PHASES)] == list(PHASES)
