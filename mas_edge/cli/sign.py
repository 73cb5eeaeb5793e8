"""``mas-edge sign``: the keys and metadata by which devices know what they may take."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mas_edge.cli.passphrase import PASSPHRASE, chosen, known
from mas_edge.protocol.errors import ServerError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from mas_edge.fleet.signing.repository import Repository

_Verbs = argparse._SubParsersAction
EXAMPLES = {  # what follows the folder
    "init": " --offline /media/stick", "renew": " --offline /media/stick", "rotate": " --offline /media/stick",
    "replace": " keyholder-2 keys/keyholder-4.pem --offline /media/stick", "approve": " --offline /media/stick",
}  # fmt: skip


def add_parser(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser(
        "sign",
        help="make signing keys for plans and models, renew them, replace lost or stolen ones",
        epilog="example: mas-edge sign init signing --offline /media/stick && "
        "mas-edge serve job.toml --state runs/job --sign signing",
    )
    adding = parser.add_subparsers(dest="sign_verb", required=True, metavar="VERB")
    _add_init(adding)
    status = _add(adding, "status", _status, "show who signs, until when, and what waits for signatures")
    status.add_argument("--quiet", action="store_true", help="only what has to be done")
    _add_signed(adding, "renew", _renew, "sign for another year with the same keys")
    _add_signed(adding, "rotate", _rotate, "make new online keys, because the old ones are lost or stolen")
    replace = _add_signed(adding, "replace", _replace, "put a new key in the place of a keyholder's")
    replace.add_argument("name", metavar="NAME", help="as `status` calls the keyholder")
    replace.add_argument("key", type=Path, metavar="FILE", help="where the new key is written (FILE.pem)")
    _add_passphrase(replace)
    _add_signed(adding, "approve", _approve, "add a keyholder's signature to what waits for it")


def _add_init(adding: _Verbs[argparse.ArgumentParser]) -> None:
    parser = _add(adding, "init", _init, "make a signing repository and its keys")
    parser.add_argument("--offline", type=Path, metavar="DIR", help="where keyholders' keys go (default: DIR/offline)")
    _add_passphrase(parser)
    parser.add_argument("--keyholders", type=int, default=3, metavar="N", help="their number (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=int, default=2, metavar="N", help="how many of them must agree (default: %(default)s)"
    )


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase", action="store_true",
        help=f"encrypt keyholders' keys; each is asked for, or all are taken from {PASSPHRASE}",
    )  # fmt: skip


def _add_signed(adding: _Verbs[argparse.ArgumentParser], name: str, run: object, what: str) -> argparse.ArgumentParser:
    parser = _add(adding, name, run, what)
    parser.add_argument(
        "--offline", type=Path, action="append", default=[], metavar="FILE",
        help="a keyholder's key, or a directory of some; again for further ones",
    )  # fmt: skip
    return parser


def _add(adding: _Verbs[argparse.ArgumentParser], name: str, run: object, what: str) -> argparse.ArgumentParser:
    example = f"example: mas-edge sign {name} signing{EXAMPLES.get(name, '')}"
    parser = adding.add_parser(name, help=what, epilog=example)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the signing repository")
    parser.add_argument("--json", action="store_true", help="print who signs, until when, what waits: one JSON object")
    parser.set_defaults(run=run)
    return parser


def _init(args: argparse.Namespace) -> int:
    offline = args.offline or args.folder / "offline"
    secret = {"secret": chosen} if args.passphrase else {}
    _ceremony().create(args.folder, offline, args.keyholders, args.threshold, **secret)
    if args.json:
        return _print_standing(args)
    print(f"signing repository in {args.folder}; devices trust {args.folder / 'metadata' / '1.root.json'}")
    print(f"give each key in {offline} to another person, on another medium, and delete it here:")
    print(f"{args.threshold} of {args.keyholders} are needed once a year, and when an online key is lost or stolen")
    print(f"back up {args.folder} without the keys in it: metadata that are lost are trusted no more")
    return 0


def _status(args: argparse.Namespace) -> int:
    if args.json:
        return _print_standing(args)
    found = _standing(_repository(args.folder))
    if not args.quiet:
        print(f"keyholders  {found['threshold']} of {', '.join(found['keyholders'])}")
        for role, signed in found["roles"].items():
            print(f"{role:<11} version {signed['version']}, until {signed['expires'][:16].replace('T', ' ')} UTC")
        print(f"listed      {found['listed_artifacts']} artifacts")
    if found["renew_before"]:
        print(f"to do: mas-edge sign renew {args.folder} (the keyholders' signatures end on {found['renew_before']})")
    if found["lost_keys"] and not found["waits_for"]:
        lost = " and ".join(found["lost_keys"])
        why = f"online keys are lost, damaged or not those that devices know: {lost}; nothing can be signed anew"
        print(f"to do: mas-edge sign rotate {args.folder} ({why})")
    if found["waits_for"]:
        print(f"waits: {found['waits_for']}")
    return 0


def _print_standing(args: argparse.Namespace) -> int:
    print(json.dumps(_standing(_repository(args.folder)), indent=2))
    return 0


def _standing(repository: Repository) -> dict[str, Any]:
    """Who signs, until when, and what has to be done; times are RFC 3339."""
    ceremony, root = _ceremony(), repository.root.signed
    expires = min(root.expires, repository.targets.signed.expires)
    roles = {
        "root": repository.root.signed, "targets": repository.targets.signed, "models": repository.models.signed,
        "snapshot": repository.snapshot.signed, "timestamp": repository.timestamp.signed,
    }  # fmt: skip
    return {
        "keyholders": sorted(ceremony.keyholders(root).values()),
        "threshold": root.roles["root"].threshold,
        "roles": {
            role: {"version": each.version, "expires": f"{each.expires:%Y-%m-%dT%H:%M:%SZ}"}
            for role, each in roles.items()
        },
        "lost_keys": repository.lost_keys,
        "listed_artifacts": len(repository.models.signed.targets),
        "renew_before": f"{expires:%Y-%m-%d}" if expires - repository.now < ceremony.OFFLINE_NOTICE else "",
        "waits_for": _waits_for(repository),
    }


def _waits_for(repository: Repository) -> str:
    """What a ceremony that was begun waits for; one that was cut off when all had signed is ended here."""
    ceremony = _ceremony()
    if not ceremony.is_staged(repository):
        return ""
    try:
        return ceremony.approve(repository, []) or "published now"
    except ServerError as error:
        return str(error)


def _renew(args: argparse.Namespace) -> int:
    return _staged(args, _ceremony().renew)


def _rotate(args: argparse.Namespace) -> int:
    return _staged(args, _ceremony().rotate_online)


def _replace(args: argparse.Namespace) -> int:
    key = args.key.with_suffix(".pem")

    def replace(repository: Repository) -> CryptoSigner:
        secret = {"secret": chosen} if args.passphrase else {}
        signer: CryptoSigner = _ceremony().replace_keyholder(repository, args.name, key, **secret)
        said = f"the new key is in {key}: give it to its holder, who is called {key.stem} from now on"
        print(said, file=sys.stderr if args.json else sys.stdout)
        return signer

    return _staged(args, replace)


def _approve(args: argparse.Namespace) -> int:
    return _staged(args, lambda _: None)


def _staged(args: argparse.Namespace, stage: Callable[[Repository], CryptoSigner | None]) -> int:
    """Stage what is to be signed, and sign it; nothing is staged if a key that was named cannot be used."""
    repository = _repository(args.folder)
    from mas_edge.fleet.signing.keys import read_keys

    found = {place: read_keys(place, known) for place in args.offline}
    with repository.locked():
        signers = [signer for place in found for signer in _entitled(repository, place, found[place])]
        if made := stage(repository):
            signers.append(made)
        missing = _ceremony().approve(repository, signers)
    if args.json:
        return _print_standing(args)
    if missing:
        print(f"{missing}: mas-edge sign approve {args.folder} --offline KEY")
    else:
        print(
            f"published: root version {repository.root.signed.version}; an orchestrator that runs sends it from now on"
        )
    return 0


def _entitled(repository: Repository, place: Path, found: list[CryptoSigner]) -> list[CryptoSigner]:
    """Those of the keys in ``place`` that may sign; in a directory replaced ones may lie beside them."""
    from mas_edge.fleet.signing.keys import name_of

    known = _ceremony().entitled(repository)
    entitled = [signer for signer in found if signer.public_key.keyid in known]
    strangers = ", ".join(name_of(signer) for signer in found if signer not in entitled)
    if strangers and not (place.is_dir() and entitled):
        message = f"no keyholder's key in {place}: {strangers}; see: mas-edge sign status {repository.folder}"
        raise ServerError(message)
    if strangers:
        print(f"passed over, no keyholder's: {strangers} in {place}", file=sys.stderr)
    return entitled


def _repository(folder: Path) -> Repository:
    _ceremony()  # says what is missing, if a package is
    from mas_edge.fleet.signing.repository import Repository

    return Repository(folder)


def _ceremony() -> ModuleType:
    try:
        from mas_edge.fleet.signing import ceremony
    except ImportError:
        message = "signing needs the package tuf: pip install 'mas-edge[server,secure]'"
        raise ServerError(message) from None
    return ceremony
