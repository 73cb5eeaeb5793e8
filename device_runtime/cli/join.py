"""``mas-edge-device join``: become a member of a fleet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from device_runtime import identity
from device_runtime.identity import Record
from device_runtime.membership import default_state
from device_runtime.trust.anchor import has_trust
from mas_edge.protocol.enrolment import read_token

ASK_AGAIN_S = 5.0  # while the operator compares keys


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "join",
        help="join a fleet with a token of `mas-edge fleet invite`; the key is made here and stays here",
        epilog="example: mas-edge-device join - < token.txt",
    )
    parser.add_argument("token", metavar="TOKEN", help="the token; - reads it from the standard input")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where the identity, artifacts and models live")
    parser.add_argument("--board", action="store_true", help="for a microboard: say what to copy onto it")
    parser.add_argument("--json", action="store_true", help="print name, fleet, state and key as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Join, waiting for the operator's approval if the invitation asks for it."""
    word: str = args.token
    invitation = read_token(sys.stdin.readline() if word == "-" else word)
    state = args.state or default_state(invitation.name)
    key = identity.fingerprint(state, invitation)[:16]  # to be compared with what the operator sees
    print(f"key {key} of {invitation.name}", file=sys.stderr if args.json else sys.stdout, flush=True)
    told: list[str] = []

    def wait(reason: str) -> None:
        if reason not in told:
            told.append(reason)
            print(reason, file=sys.stderr, flush=True)
        time.sleep(ASK_AGAIN_S)

    joined = identity.join(state, invitation, wait).record
    if args.json:
        member = {"name": joined.name, "fleet": joined.fleet, "state": str(state), "key": key}
        print(json.dumps({**member, "signed": has_trust(state)}))
        return 0
    if args.board:
        print(_for_board(identity.write_request(state).parent, joined))
        return 0
    where = f" --state {state}" if args.state else ""
    start = f"mas-edge-device run --name {joined.name}{where} --data DIR"
    signed = ", and takes only plans that it signs" if has_trust(state) else ""
    print(f"{joined.name} is in fleet {joined.fleet}{signed}; start it: {start}")
    return 0


def _for_board(folder: Path, joined: Record) -> str:
    """What to copy onto a microboard, and what to write into its micro.json: see docs/devices/microboard.md."""
    names = {"ca": "ca.pem", "certificate": "device.pem", "request": "device.csr"}
    told: dict[str, str | int] = {"broker": joined.host, "port": joined.port, "enrolment": joined.enrolment}
    told |= {"fleet": joined.fleet, "name": joined.name, "client": f"{joined.name}.{joined.suffix}"}
    told |= {key: f"/flash/{name}" for key, name in names.items()}
    return (
        f"copy {', '.join(names.values())} of {folder} into /flash of the board, and write into its micro.json:\n"
        + (json.dumps(told, indent=1))
    )
