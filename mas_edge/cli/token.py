"""``mas-edge token``: who may use the API of a run from other machines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mas_edge.protocol.errors import ServerError
from mas_edge.web.tokens import ROLES, TokenStore


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "token",
        help="make, list and revoke the tokens of a run's page and API",
        epilog="example: mas-edge token runs/watch new grafana --role read",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run")
    parser.add_argument("verb", nargs="?", choices=("list", "new", "revoke"), default="list", help="default: list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the token: who or what uses it")
    parser.add_argument("--role", choices=ROLES, default="read", help="read, or also place orders (default: read)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; a new token is printed once, on standard output."""
    if (args.verb == "list") == (args.name is not None):
        message = f"{args.verb} takes {'no name' if args.verb == 'list' else 'the name of a token'}"
        raise ServerError(message)
    if not args.state.is_dir():
        message = f"there is no directory {args.state}; give the --state of a run"
        raise ServerError(message)
    store = TokenStore(args.state, create=args.verb == "new")
    try:
        if args.verb == "new":
            text = store.new(args.name, args.role)
            print("keep it: it is shown only now", file=sys.stderr)
            print(json.dumps({"name": args.name, "role": args.role, "token": text}) if args.json else text)
        elif args.verb == "revoke":
            store.revoke(args.name)
            print(f"{args.name} is revoked", file=sys.stderr)
            if args.json:
                print(json.dumps({"name": args.name, "revoked": True}))
        else:
            _show(store, as_json=args.json)
    finally:
        store.close()
    return 0


def _show(store: TokenStore, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([token._asdict() for token in store.all()], indent=2))
        return
    tokens = store.all()
    if not tokens:
        print("no token yet: mas-edge token RUN new NAME", file=sys.stderr)
    for token in tokens:
        print(f"{token.name:<24} {token.role:<8} {time.strftime('%Y-%m-%d %H:%M', time.localtime(token.made))}")
