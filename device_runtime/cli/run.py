"""``mas-edge-device run``: serve a fleet until told to stop."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
import time
from functools import partial
from pathlib import Path

import msgspec

from device_runtime import logs
from device_runtime.cli import INTERRUPTED
from device_runtime.edge.notify import Heartbeat
from device_runtime.engines import NAMES
from device_runtime.engines.choice import AUTO, choose
from device_runtime.holdings import look
from device_runtime.home_assistant import DEFAULT_PREFIX, topics_of
from device_runtime.membership import ANY_FLEET, default_state, membership
from device_runtime.memory import parse_size
from device_runtime.policy.file import Policy, read_policy
from device_runtime.policy.processor import apply
from device_runtime.runtime import Runtime, Settings
from device_runtime.trust.anchor import install, read_root, take_root
from mas_edge.protocol.errors import DeviceError, MessageError
from mas_edge.protocol.topics import check_name


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="connect to a broker and train, evaluate and deploy when asked",
        epilog="example: mas-edge-device run --broker mqtt://192.0.2.7:1883 --name pi-kitchen --data ~/recordings",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the agent is run with."""
    parser.add_argument(
        "--broker", default="", metavar="URL",
        help="mqtt[s]://[user:password@]host[:port] (default: that of the fleet which this device has joined)",
    )  # fmt: skip
    parser.add_argument("--name", required=True, type=device_name, help="this device's name in the fleet")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data folder (see `check`)")
    parser.add_argument(
        "--fleet", default=ANY_FLEET, type=device_name,
        help="the fleet's name, as in the job file (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--state", type=Path, metavar="DIR", help="where artifacts and models live")
    parser.add_argument(
        "--engine", default=AUTO, metavar="NAME",
        help=f"{AUTO} (the fastest that works here), or one of {', '.join(NAMES)}; torch takes the graphics processor "
        "if there is one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=_threads, metavar="N",
        help="CPU threads to train with, no more than there are cores (default: the engine's)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=_size, default=0, metavar="SIZE",
        help="memory that the process may hold, such as 96M: it asks for batches that fit (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="the owner's rules: when to train, and how much of the processor"
    )
    parser.add_argument(
        "--trust", type=Path, metavar="FILE",
        help="take only plans that this root (of `mas-edge sign init`) leads to; once given, it stays so",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", default="", metavar="URL",
        help="a web server with the folder `metadata` of the signing repository: a second way beside the broker",
    )  # fmt: skip
    parser.add_argument(
        "--home-assistant", nargs="?", const=DEFAULT_PREFIX, default="", metavar="PREFIX",
        help="let Home Assistant find this device and show its training, by MQTT discovery below this topic "
        "(default: not at all; without PREFIX: %(const)s)",
    )  # fmt: skip
    parser.add_argument(
        "--trial", default="auto", choices=("auto", "apart", "here"),
        help="try a new model in a process of its own (apart), where its crash is harmless, or in the agent's (here); "
        "auto: apart if there is memory for it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="say what is going on")
    parser.add_argument("--log-json", action="store_true", help="log one JSON object a line")
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE",
        help="log into this file too; it begins anew at 1 MB, and the two before it are kept",
    )  # fmt: skip


def words_of(args: argparse.Namespace) -> list[str]:
    """Return the options of ``add_options`` as they would be given on a command line; paths are absolute."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    words: list[str] = []
    for action in parser._actions:  # argparse has no public list of them
        value = getattr(args, action.dest)
        if value is True:
            words.append(action.option_strings[0])
        elif value not in (None, False, action.default):
            words += [action.option_strings[0], str(value.absolute() if isinstance(value, Path) else value)]
    return words


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    level = logging.INFO if args.verbose else logging.WARNING
    logs.configure(args.name, level, as_json=args.log_json, file=args.log_file)
    policy = read_policy(args.policy) if args.policy else Policy()
    processor = policy.processor
    if args.threads:
        processor = msgspec.structs.replace(processor, threads=args.threads)
    apply(processor)  # before an engine is imported: they read it once
    state = args.state or default_state(args.name)
    # What is wrong with the command line is said before engines are tested.
    member = membership(args.name, args.fleet, args.broker, state)
    if args.home_assistant:
        topics_of(args.home_assistant, member.fleet, args.name)
    if args.trust:
        install(state, read_root(args.trust))
    data = look(args.data)
    choice = choose(args.engine, state, memory=args.memory)
    print(choice.line, flush=True)
    site = member.identity.site if member.identity else None
    settings = Settings(
        args.name, member.fleet, member.broker, state, choice.engine, choice.works, args.memory, policy, site,
        args.home_assistant, args.trial,
    )  # fmt: skip
    runtime = Runtime(settings, data)
    stop = threading.Event()
    if member.identity is not None:
        keeping = (stop, time.time, partial(take_root, state, runtime.verifier))
        threading.Thread(target=member.identity.keep_fresh, args=keeping, name="certificate", daemon=True).start()
    if runtime.verifier is not None and args.metadata:
        asking = (args.metadata, stop)
        threading.Thread(target=runtime.verifier.keep_fresh, args=asking, name="metadata", daemon=True).start()
    received: list[int] = []

    def leave(number: int, _frame: object) -> None:
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    runtime.run(stop, Heartbeat().beat)
    return INTERRUPTED if signal.SIGINT in received else 0


def device_name(text: str) -> str:
    """The name of a device or a fleet, as an argument of a command."""
    try:
        return check_name(text, "the name")
    except MessageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        message = f"{text!r} is no number of threads; expected 1 or more"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except DeviceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
