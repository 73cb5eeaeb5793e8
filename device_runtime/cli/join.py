"""``mas-edge-device join``: become a member of a fleet."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from device_runtime import identity
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Join, waiting for the operator's approval if the invitation asks for it."""
    word: str = args.token
    invitation = read_token(sys.stdin.readline() if word == "-" else word)
    state = args.state or default_state(invitation.name)
    print(f"key {identity.fingerprint(state)[:16]} of {invitation.name}", flush=True)
    told: list[str] = []

    def wait(reason: str) -> None:
        if reason not in told:
            told.append(reason)
            print(reason, file=sys.stderr, flush=True)
        time.sleep(ASK_AGAIN_S)

    joined = identity.join(state, invitation, wait).record
    where = f" --state {state}" if args.state else ""
    start = f"mas-edge-device run --name {joined.name}{where} --data DIR"
    signed = ", and takes only plans that it signs" if has_trust(state) else ""
    print(f"{joined.name} is in fleet {joined.fleet}{signed}; start it: {start}")
    return 0
