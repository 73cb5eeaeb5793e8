"""``mas-edge fleet``: who belongs to a fleet."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.cli.log import add_log_options, begin_log
from mas_edge.cli.passphrase import PASSPHRASE_FILE, add_passphrase_file, chosen_from, known_from
from mas_edge.protocol.enrolment import write_token
from mas_edge.protocol.errors import ServerError

if TYPE_CHECKING:
    from mas_edge.fleet.enrolment import Enrolment
    from mas_edge.fleet.folder import Fleet
    from mas_edge.fleet.shelf import Shelf

_Verbs = argparse._SubParsersAction


def add_parser(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "fleet",
        help="make a fleet, invite devices to it, revoke them",
        epilog="example: mas-edge fleet init fleet --host 192.0.2.7; mas-edge fleet invite fleet pi-kitchen",
    )
    adding = parser.add_subparsers(dest="fleet_verb", required=True, metavar="VERB")
    _add_init(adding)
    _add_invite(adding)
    for name, run, what in (
        ("list", _list, "show who is invited, waits, is enrolled or revoked"),
        ("serve", _serve, "let devices join and renew, without a job: beside a broker of your own"),
    ):
        sub = adding.add_parser(name, help=what, epilog=f"example: mas-edge fleet {name} fleet")
        _add_folder(sub)
        sub.set_defaults(run=run)
    _add_json(adding.choices["list"], "print one JSON list")
    sub.add_argument(
        "--sign", type=Path, metavar="DIR", help="hand out this signing repository: its root to who joins, its metadata"
    )
    add_log_options(sub)
    approve = adding.add_parser(
        "approve", help="let a device in that waits, after comparing its key",
        epilog="example: mas-edge fleet approve fleet pi-kitchen 0123456789abcdef",
    )  # fmt: skip
    _add_folder(approve)
    approve.add_argument("name", metavar="NAME")
    approve.add_argument("key", metavar="KEY", help="the 16 digits that `mas-edge-device join` shows")
    _add_json(approve, "print how the device stands as one JSON object")
    approve.set_defaults(run=_approve)
    phrase = adding.add_parser(
        "passphrase", help="encrypt the authority's key by a passphrase, or by another one",
        epilog="example: mas-edge fleet passphrase fleet",
    )  # fmt: skip
    _add_folder(phrase)
    add_passphrase_file(phrase, "--new-passphrase-file", "ca.key from now on")
    phrase.set_defaults(run=_passphrase)
    revoke = adding.add_parser(
        "revoke", help="shut a device out; a serving broker drops it within seconds",
        epilog="example: mas-edge fleet revoke fleet pi-kitchen",
    )  # fmt: skip
    _add_folder(revoke)
    revoke.add_argument("name", metavar="NAME")
    _add_json(revoke, "print how the device stands as one JSON object")
    revoke.set_defaults(run=_revoke)


def _add_init(adding: _Verbs[argparse.ArgumentParser]) -> None:
    parser = adding.add_parser(
        "init", help="make a certificate authority and the certificates of the servers",
        epilog="example: mas-edge fleet init fleet --host 192.0.2.7",
    )  # fmt: skip
    _add_folder(parser)
    parser.add_argument("--name", default="fleet", help="as `fleet` in the job file (default: %(default)s)")
    parser.add_argument(
        "--host", action="append", required=True, metavar="HOST",
        help="name or address of this machine for the devices; again for further ones",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8883, help="the broker's (default: %(default)s)")
    parser.add_argument("--enrolment-port", type=int, default=8884, help="for joining (default: %(default)s)")
    parser.add_argument(
        "--days", type=float, default=30.0, help="how long a device's certificate lasts; it renews (default: 30)"
    )
    parser.add_argument(
        "--passphrase", action="store_true",
        help="encrypt the authority's key (ca.key): it is asked for, here and by whatever lets devices join, or "
        f"taken from --passphrase-file, which asks for this as well, or the file in {PASSPHRASE_FILE}",
    )  # fmt: skip
    _add_json(parser, "print name, folder, authority and where devices join as one JSON object")
    parser.set_defaults(run=_init)


def _add_invite(adding: _Verbs[argparse.ArgumentParser]) -> None:
    parser = adding.add_parser(
        "invite", help="print a token, as text and QR code, with which one device joins once",
        epilog="example: mas-edge fleet invite fleet pi-kitchen",
    )  # fmt: skip
    _add_folder(parser)
    parser.add_argument("name", metavar="NAME", help="what the device will be called")
    parser.add_argument("--hold", action="store_true", help="ask for your approval of the device's key, too")
    parser.add_argument("--again", action="store_true", help="NAME is enrolled: replace it when the token is used")
    parser.add_argument("--hours", type=float, default=24.0, help="how long the token is good (default: %(default)g)")
    parser.add_argument("--no-qr", action="store_true", help="only the text")
    _add_json(parser, "print name, token and its end (seconds since 1970) as one JSON object, and no QR code")
    parser.set_defaults(run=_invite)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the fleet's directory")
    add_passphrase_file(parser)


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=what)


def open_fleet(folder: Path, passphrase: Path | None = None) -> Fleet:
    """The fleet in ``folder``; the ``passphrase`` of its authority's key is in a file, or asked for when it is needed.

    Raises:
        ServerError: there is none, or a package that it needs is missing.
    """
    try:
        from mas_edge.fleet.folder import Fleet
    except ImportError:
        message = "a fleet needs the package cryptography: pip install 'mas-edge[server,secure]'"
        raise ServerError(message) from None
    return Fleet(folder, secret=known_from(passphrase))


def root_of(signing: Path | None) -> Callable[[], bytes]:
    """What gives the newest root of a signing repository, again whenever it is asked for; nothing without one.

    Raises:
        ServerError: there is no such repository.
    """
    if signing is None:
        return lambda: b""
    from mas_edge.fleet.signing.roots import newest_root

    newest_root(signing)  # it is said at the start, not to the first device
    return partial(newest_root, signing)


def shelf_of(signing: Path | None, state: Path | None = None) -> Shelf | None:
    """What is handed out over HTTPS: metadata, and what they list of the artifacts of the run in ``state``."""
    from mas_edge.fleet.shelf import Shelf

    return Shelf(signing, state / "artifacts" if state else None) if signing else None


def _init(args: argparse.Namespace) -> int:
    try:
        from mas_edge.fleet.folder import Fleet, require_no_fleet
    except ImportError:
        message = "a fleet needs the package cryptography: pip install 'mas-edge[server,secure]'"
        raise ServerError(message) from None
    from mas_edge.fleet.settings import FleetSettings, check_settings

    settings = check_settings(FleetSettings(args.name, args.host, args.port, args.enrolment_port, args.days))
    require_no_fleet(args.folder)  # before somebody thinks of a passphrase
    encrypt = args.passphrase or args.passphrase_file
    fleet = Fleet.create(
        args.folder, settings, passphrase=chosen_from(args.passphrase_file, "ca.key") if encrypt else b""
    )
    if args.json:
        made = {"name": settings.name, "folder": str(args.folder), "authority": fleet.pin.hex()}
        print(json.dumps({**made, "join": fleet.enrolment_address}))
        return 0
    print(f"fleet {settings.name} in {args.folder}; its authority is {fleet.pin.hex()}")
    print(f"devices join at {fleet.enrolment_address} while mas-edge serve --fleet {args.folder} runs")
    whoever = "whoever has ca.key and its passphrase" if encrypt else "whoever has ca.key"
    print(f"keep a copy of {args.folder} where nobody else reads: {whoever} can invent devices")
    return 0


def _passphrase(args: argparse.Namespace) -> int:
    fleet = open_fleet(args.folder, args.passphrase_file)
    fleet.unlock()  # asks for the present one, if there is one
    fleet.encrypt(chosen_from(args.new_passphrase_file, "ca.key"))
    print(f"ca.key in {args.folder} is encrypted; copies that were made before are not")
    return 0


def _invite(args: argparse.Namespace) -> int:
    fleet = open_fleet(args.folder, args.passphrase_file)
    from mas_edge.fleet.enrolment import Enrolment

    invitation = Enrolment(fleet).invite(args.name, hold=args.hold, again=args.again, valid_s=args.hours * 3600)
    token = write_token(invitation)
    if args.json:
        print(json.dumps({"name": args.name, "token": token, "expires": time.time() + args.hours * 3600}))
        return 0
    if not args.no_qr:
        _show_qr(token)
    print(token)
    print(f"for one device, within {args.hours:g} h: mas-edge-device join TOKEN", file=sys.stderr)
    return 0


def _show_qr(token: str) -> None:
    try:
        import segno
    except ImportError:
        print("(no QR code: pip install segno)", file=sys.stderr)
        return
    # Low error correction: a screen has no stains, and a smaller code fits into more terminals.
    segno.make_qr(token, error="l").terminal(out=sys.stderr, compact=True)


def _list(args: argparse.Namespace) -> int:
    from_now = time.time()
    fleet = open_fleet(args.folder, args.passphrase_file)
    from mas_edge.fleet.enrolment import Enrolment

    members = Enrolment(fleet).members()
    if not fleet.is_encrypted:
        advice = f"mas-edge fleet passphrase {args.folder}"
        print(f"warning: ca.key is not encrypted, who reads it can invent devices; {advice}", file=sys.stderr)
    if args.json:
        print(json.dumps([member._asdict() for member in members], indent=2))
        return 0
    if not members:
        print(f"nobody yet: mas-edge fleet invite {args.folder} NAME", file=sys.stderr)
    for member in members:
        until = "" if member.state == "revoked" else _until(member.expires - from_now)
        print(f"{member.name:<24} {member.state:<9} {member.key[:16]:<16} {until}".rstrip())
    return 0


def _until(seconds: float) -> str:
    if seconds <= 0:
        return ""  # the state says it
    size, unit = next(
        (size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (0, "s")) if seconds > 2 * size
    )
    return f"{seconds / max(size, 1):.0f} {unit} left"


def _approve(args: argparse.Namespace) -> int:
    fleet = open_fleet(args.folder, args.passphrase_file)
    from mas_edge.fleet.enrolment import Enrolment

    enrolment = Enrolment(fleet)
    enrolment.approve(args.name, args.key)
    print(_standing(enrolment, args.name) if args.json else f"{args.name} may join: it asks again by itself")
    return 0


def _standing(enrolment: Enrolment, name: str, **more: int) -> str:
    """How a device stands, as JSON; who has been withdrawn before it had a certificate is not listed any more."""
    found = next((member._asdict() for member in enrolment.members() if member.name == name), {"name": name})
    return json.dumps({**found, **more})


def _revoke(args: argparse.Namespace) -> int:
    fleet = open_fleet(args.folder, args.passphrase_file)
    from mas_edge.fleet.enrolment import Enrolment

    enrolment = Enrolment(fleet)
    count = enrolment.revoke(args.name)
    if args.json:
        print(_standing(enrolment, args.name, certificates=count))
        return 0
    if not count:
        print(f"{args.name} has no certificate to be revoked; a token for it is worth nothing any more")
        return 0
    print(f"{args.name} is revoked ({count} certificates); a managed broker drops it now")
    print(f"a broker of your own has to load {fleet.file('crl.pem')} and end its connection", file=sys.stderr)
    return 0


def _serve(args: argparse.Namespace) -> int:
    begin_log(args)
    fleet = open_fleet(args.folder, args.passphrase_file)
    fleet.unlock()  # asks for the passphrase now, not when the first device comes
    from mas_edge.fleet.endpoint import ALL_INTERFACES, Endpoint
    from mas_edge.fleet.guard import Guard

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    serving = Endpoint(fleet, ALL_INTERFACES, root_of(args.sign), shelf_of(args.sign))
    with serving as endpoint, Guard(fleet, endpoint.renew_certificate):
        stop.wait()
    return 0
