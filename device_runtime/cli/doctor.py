"""``mas-edge-device doctor``: what is installed here, what each engine can do, and what to do about the rest."""

from __future__ import annotations

import argparse
import json
import logging
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from device_runtime.cli.run import device_name
from device_runtime.diagnosis import Diagnosis, EngineReport, Machine, examine, memory_advice
from device_runtime.host import Host
from device_runtime.membership import state_of
from device_runtime.memory import in_units
from device_runtime.policy.file import Policy, read_policy
from device_runtime.remedies import Place, for_engine, kind_of
from device_runtime.surroundings import Finding, look_around
from device_runtime.vitals import PowerReading, Vitals, take
from mas_edge.protocol.errors import BrokerError, DeviceError

WIDTH = 80
_ROW = "  {:<12} {:<12} {:<7} {:<18} {:>8} {:>7} {:>7}"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "doctor",
        help="say what is installed here and what each engine can do, measured",
        description="Say what is installed here, let every engine do one training step with a known answer (each in a "
        "process of its own), and give the command that mends what is missing or broken. Ends with 0 if this device "
        "can do its work; with 7 if nothing here trains, or clock, membership or service are broken; with 5 if only "
        "its broker is not reached.",
        epilog="example: mas-edge-device doctor --json",
    )
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="the owner's rules, as `run` takes them: do they hold?"
    )
    parser.add_argument("--name", type=device_name, metavar="NAME", help="the device's name, to look at its own state")
    parser.add_argument("--state", type=Path, metavar="DIR", help="its --state, if it was given one")
    parser.add_argument(
        "--broker", default="", metavar="URL", help="try this broker (default: that of the fleet it has joined)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found; return 0 if this device can do its work, else the exit code of what is broken."""
    policy = read_policy(args.policy) if args.policy else Policy()
    logging.getLogger("device_runtime").addHandler(logging.NullHandler())  # what a connection says is told below
    state = args.state or (state_of(args.name) if args.name else None)
    host = Host()
    place = Place(kind_of(host), args.name or "NAME", args.state)
    found = msgspec.structs.replace(
        examine(), vitals=take(host, place, policy, state or Path.cwd()),
        surroundings=look_around(host, place, state, args.broker, time.time()),
    )  # fmt: skip
    advice = advice_on(found, place)
    code = exit_code(found)
    if args.json:
        board = {"ok": code == 0, "exit_code": code, "board": place.kind, "to_do": advice}
        print(json.dumps({**board, **msgspec.to_builtins(found)}, indent=2))
    else:
        print("\n".join(page(found, advice)))
    return code


def exit_code(found: Diagnosis) -> int:
    """0 if nothing keeps this device from its work; the broker alone is told apart, as it mostly mends by itself."""
    serious = [each.what for each in found.surroundings if each.serious]
    if not found.best or set(serious) - {"broker"}:
        return DeviceError.exit_code
    return BrokerError.exit_code if serious else 0


def advice_on(found: Diagnosis, place: Place) -> list[str]:
    """What to do, a line each: what keeps the device from its work first."""
    around = sorted(found.surroundings, key=lambda each: not each.serious)
    advice = [each.advice for each in around] + [
        for_engine(place.kind, report.name, report.advice) for report in found.engines
    ]
    advice.append(memory_advice(found.machine, found.engines, found.best, place.mend("swap")))
    return [text for text in [*advice, *(found.vitals.advice if found.vitals else ())] if text]


def page(found: Diagnosis, advice: Sequence[str]) -> list[str]:
    """Everything, for people, in 80 columns."""
    end = f"This device can train; --engine auto takes {found.best}." if found.best else "Nothing here can train."
    if serious := [each.what for each in found.surroundings if each.serious]:
        end = f"Not in order: {', '.join(serious)}. {end}"
    return [
        *machine_lines(found.machine), *surroundings_lines(found.surroundings),
        *(vitals_lines(found.vitals) if found.vitals else ()),
        *library_lines(found.libraries), *engine_lines(found.engines), *to_do_lines(advice), "",
        *textwrap.wrap(end, WIDTH),
    ]  # fmt: skip


def machine_lines(machine: Machine) -> list[str]:
    """Python, system, memory."""
    free = f", {machine.free_bytes / 1e9:.1f} GB of it free" if machine.free_bytes else ""
    board = f"{machine.model}, " if machine.model else ""
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    return [
        "This machine",
        f"  runtime  {machine.runtime}",
        f"  Python   {machine.python}, {machine.executable}",
        f"  system   {machine.system}",
        f"  machine  {board}{machine.architecture}, {cores}, {machine.memory_bytes / 1e9:.1f} GB memory{free}",
    ]


def surroundings_lines(found: Sequence[Finding]) -> list[str]:
    """Clock, broker, membership, service."""
    return ["", "What it depends on", *_wrapped([f"{each.what:<15} {each.text}" for each in found])] if found else []


def vitals_lines(vitals: Vitals) -> list[str]:
    """Power, heat, and whether the owner's rules hold."""
    now = vitals.conditions
    battery = f"{now.battery_percent or 0:.0f} %, {'plugged in' if now.plugged else 'not plugged in'}"
    told = {
        "temperature": "" if now.temperature_c is None else f"{now.temperature_c:.1f} °C",
        "battery": battery if now.battery else "" if "battery" in now.unknown else "none",
        "network": now.network or "",
        "memory": "" if now.free_memory is None else f"{in_units(now.free_memory)} free",
        "disk": "" if now.free_disk is None else f"{in_units(now.free_disk)} free",
        "other programs": "" if now.busy is None else f"{now.busy:.0%} of the processor",
        "today": f"{now.rounds_today} rounds, {now.joules_today:.0f} J",
    }
    lines = [_power_line(reading) for reading in vitals.power]
    if not any(reading.covers in ("board", "processor") and not reading.problem for reading in vitals.power):
        guess = f"estimated: {vitals.estimate}, {vitals.error:.0%} up or down" if vitals.estimate else "not told"
        lines.append(f"no sensor of the processor: joules are {guess}")
    lines += [f"{what:<15} {text or now.unknown.get(what, 'not known')}" for what, text in told.items()]
    rules = [f"does not hold   {text}" for text in vitals.broken] or ["all hold, or none are given"]
    return ["", "Power and heat", *_wrapped(lines), "", "The owner's rules", *_wrapped(rules)]


def _power_line(reading: PowerReading) -> str:
    if reading.watts is None:
        return f"{reading.source} ({reading.covers}): {reading.problem}"
    return f"{reading.source} ({reading.covers}): {reading.watts:.2f} W now, measured"


def _wrapped(texts: Sequence[str]) -> list[str]:
    return [
        line
        for text in texts
        for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", drop_whitespace=True)
    ]


def library_lines(libraries: Mapping[str, str]) -> list[str]:
    """Names and versions."""
    text = ", ".join(f"{name} {version}".replace(" ", "\0") for name, version in libraries.items())
    lines = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return ["", "Libraries", *(f"  {line}".replace("\0", " ") for line in lines)]


def engine_lines(engines: Sequence[EngineReport]) -> list[str]:
    """One row an engine; the numbers are those of its self-test."""
    rows = [_ROW.format("engine", "version", "trains", "answers with", "step", "memory", "ready"), *map(_row, engines)]
    return ["", "Engines", *(row.rstrip() for row in rows)]


def _row(report: EngineReport) -> str:
    answers = " ".join([report.form, *report.precisions]) if report.precisions and report.installed else "-"
    if report.test is None:
        return _ROW.format(report.name, "" if report.installed else "not here", "no", answers, "", "", "")
    if report.test.error:
        return _ROW.format(report.name, report.version, "broken", answers, "", "", "")
    test = report.test
    numbers = (f"{test.step_ms:.1f} ms", f"{test.memory_mb:.0f} MB", f"{test.ready_s:.2f} s")
    return _ROW.format(report.name, report.version, "yes", answers, *numbers)


def to_do_lines(advice: Sequence[str]) -> list[str]:
    """What to do about what is missing or broken; nothing if there is nothing to do."""
    lines = [
        line
        for text in advice
        for line in textwrap.wrap(
            text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    ]
    return ["", "To do, if you need it", *lines] if lines else []
