"""``mas-edge doctor``: what the server can do here: brokers, exports, engines; and what to do about the rest."""

from __future__ import annotations

import argparse
import json
import subprocess
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from device_runtime.cli.doctor import WIDTH, engine_lines, library_lines, machine_lines, to_do_lines
from device_runtime.diagnosis import BASE, OF_ENGINES, Diagnosis, examine, versions
from mas_edge.cli.progress import if_slow
from mas_edge.export.targets import TARGETS, Target
from mas_edge.job import DEFAULT_ENGINES
from mas_edge.orchestrator.broker.embedded import is_installed
from mas_edge.orchestrator.broker.managed import find_mosquitto
from mas_edge.protocol.errors import BrokerError, ServerError

OF_SERVER = (
    "onnx", "onnxscript", "rich", "matplotlib", "iotcore", "torchao", "litert-torch", "tflite-micro", "seglearn",
)  # fmt: skip
SERVER = "pip install 'mas-edge[server]'"
NO_BROKER = (
    "no broker is installed: apt install mosquitto, or for a first look pip install 'mas-edge[broker]'; one that runs "
    "elsewhere is given with --broker URL"
)


class Broker(msgspec.Struct, frozen=True):
    """One that is installed."""

    mode: str  # as ``serve --broker`` takes it
    what: str


class Exports(msgspec.Struct, frozen=True):
    """Whether groups can be exported to a target from here."""

    target: str
    suffix: str
    precisions: tuple[str, ...]
    trains: str  # "yes", "no", "experimental"
    missing: list[str]  # packages
    install: str


class ServerDiagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``doctor`` says about a server beside what it says about a device."""

    device: Diagnosis
    libraries: dict[str, str]
    brokers: list[Broker]
    exports: list[Exports]
    problems: list[str]  # why it cannot do its job
    exit_code: int


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="say what is installed here: brokers, exports, engines, each engine measured",
        description="Say what is installed here, what it can export to, which brokers it can start, and let every "
        "engine do one training step with a known answer. Ends with 0 if this machine can run jobs, with 6 if it "
        "cannot make or check the programs of a job, with 5 if only a broker is missing.",
        epilog="example: mas-edge doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found; return 0 if this machine can run jobs."""
    with if_slow("letting every engine do a training step"):
        found = look()
    if args.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        print("\n".join(page(found)))
    return found.exit_code


def look() -> ServerDiagnosis:
    """Everything that a server needs, and every engine tested."""
    device = examine()
    brokers = _brokers()
    problems = _problems(device)
    code = ServerError.exit_code if problems else 0 if brokers else BrokerError.exit_code
    if not brokers:
        problems.append(NO_BROKER)
    return ServerDiagnosis(
        device=device, libraries=versions(BASE + OF_ENGINES + OF_SERVER), brokers=brokers,
        exports=[_exports(target) for target in TARGETS.values()], problems=problems, exit_code=code,
    )  # fmt: skip


def _problems(device: Diagnosis) -> list[str]:
    """What stands in the way of a job for the usual engines: to trace it, to emit it, and to run it once as a check."""
    missing = [package for package in ("torch", *TARGETS["onnx"].packages) if find_spec(package) is None]
    if missing:
        return [f"{', '.join(missing)} not installed: {SERVER}"]
    broken = [report.name for report in device.engines if report.name in DEFAULT_ENGINES and not report.trains]
    return [f"programs for {engine} cannot be checked here, as it does not work" for engine in broken]


def _brokers() -> list[Broker]:
    found = []
    mosquitto = find_mosquitto()
    if mosquitto is not None:
        found.append(Broker("managed", f"{_mosquitto_version(mosquitto)}, {mosquitto}"))
    if is_installed():
        found.append(
            Broker("embedded", f"iotcore {versions(['iotcore']).get('iotcore', '')}, for a first look".strip())
        )
    return found


def _mosquitto_version(program: Path) -> str:
    """Its first line of help, such as "mosquitto version 2.0.11"."""
    try:
        done = subprocess.run([program, "-h"], capture_output=True, timeout=5, check=False)  # noqa: S603 - found by us
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"mosquitto that does not start ({type(error).__name__})"
    return done.stdout.decode(errors="replace").partition("\n")[0].strip() or "mosquitto"


def _exports(target: Target) -> Exports:
    trains = "no" if not target.emitter else "experimental" if target.experimental else "yes"
    missing = [package for package in target.packages if find_spec(package) is None]
    return Exports(target.name, target.suffix, target.precisions, trains, missing, target.install)


def page(found: ServerDiagnosis) -> list[str]:
    """Everything, for people, in 80 columns."""
    end = (
        f"This machine cannot run jobs: {'; '.join(found.problems)}."
        if found.problems
        else "This machine can run jobs."
    )
    advice = [report.advice for report in found.device.engines if report.test is not None and report.advice]
    advice += [f"export to {e.target} needs {', '.join(e.missing)}: {e.install}" for e in found.exports if e.missing]
    return [
        *machine_lines(found.device.machine), *library_lines(found.libraries), *_broker_lines(found.brokers),
        *_export_lines(found.exports), *engine_lines(found.device.engines), *to_do_lines(advice), "",
        *textwrap.wrap(end, WIDTH, break_long_words=False, break_on_hyphens=False),
    ]  # fmt: skip


def _broker_lines(brokers: list[Broker]) -> list[str]:
    lines = [f"  {broker.mode:<12} {broker.what}" for broker in brokers]
    return ["", "Brokers", *lines, "  external     any MQTT broker, by --broker URL"]


def _export_lines(exports: list[Exports]) -> list[str]:
    rows: list[Any] = [("target", "here", "trains", "models")]
    for one in exports:
        models = " ".join([f".{one.suffix}", *one.precisions])
        rows.append((one.target, "no" if one.missing else "yes", one.trains, models))
    return ["", "Exports", *("  {:<12} {:<12} {:<13} {}".format(*row) for row in rows)]
