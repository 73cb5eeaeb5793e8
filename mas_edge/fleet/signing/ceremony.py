"""What the keyholders sign: a new repository, the next year, new online keys, a new keyholder.

A ceremony stages what is to be signed in ``staged/``: the next root, the next list of targets, and new online keys if
there are any. Keyholders add their signatures one by one, each with only their own key at hand. As soon as there are
enough, all of it is published; if that is cut off, the next `approve` ends it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Snapshot, Targets, Timestamp

from mas_edge.fleet.folder import Secret, no_secret, write_private
from mas_edge.fleet.signing.keys import NAME, name_of, new_key, read_key, require_no_key
from mas_edge.fleet.signing.repository import ONLINE, Repository
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.signed import ISSUED, MODELS, MODELS_PATTERN

# Who keeps keys in drawers is asked once a year; `sign status` and `serve` say it two months before.
OFFLINE_LIFE = timedelta(days=365)
OFFLINE_NOTICE = timedelta(days=60)


def create(
    folder: Path, offline: Path, keyholders: int, threshold: int, clock: Callable[[], float] = time.time,
    secret: Secret = no_secret,
) -> Repository:  # fmt: skip
    """Make a repository in ``folder`` and the keys of ``keyholders`` in ``offline``, ``threshold`` of whom must agree.

    ``secret`` gives the passphrase by which a keyholder's key is encrypted.

    Raises:
        ServerError: there is one, the numbers are odd, or nothing can be written there.
    """
    if not 1 <= threshold <= keyholders:
        message = f"{threshold} of {keyholders} keyholders cannot sign: expected 1 to {keyholders}"
        raise ServerError(message)
    _require_no_repository(folder)
    places = [offline / f"keyholder-{number}.pem" for number in range(1, keyholders + 1)]
    for place in places:
        require_no_key(place)
    _make_folders(folder, offline)
    holders = [new_key(place, secret) for place in places]
    models, freshness = (new_key(folder / "online" / f"{name}.pem") for name in ONLINE)
    repository = _Beginning(folder, clock)
    root = Root(consistent_snapshot=True)
    for holder in holders:
        root.add_key(holder.public_key, "root")
        root.add_key(holder.public_key, "targets")
    for role in ("root", "targets"):
        root.roles[role].threshold = threshold
    _delegate_freshness(root, freshness)
    targets = Targets()
    _delegate_models(targets, models)
    _stage(repository, Metadata(root), Metadata(targets), step=0)
    approve(repository, holders)
    return Repository(folder, clock)


def renew(repository: Repository) -> None:
    """Stage another year of the same keys.

    Raises:
        ServerError: something else is staged, or an online key is lost; `rotate_online` signs for a year, too.
    """
    repository.require_online_keys()
    _require_nothing_staged(repository)
    _stage(repository, repository.root, repository.targets)


def rotate_online(repository: Repository) -> None:
    """Stage new online keys, because the old ones are lost, or somebody else has them.

    What the old keys signed is worth nothing afterwards: the list of models begins empty, and an orchestrator lists
    again what it is about to use.
    """
    _require_nothing_staged(repository)
    root, targets = repository.root, repository.targets
    models, freshness = (new_key(_staged(repository, f"{name}.pem")) for name in ONLINE)
    for keyid in list(root.signed.roles["timestamp"].keyids):
        root.signed.revoke_key(keyid, "timestamp")
        root.signed.revoke_key(keyid, "snapshot")
    _delegate_freshness(root.signed, freshness)
    _delegate_models(targets.signed, models)
    _stage(repository, root, targets)


def replace_keyholder(repository: Repository, name: str, key: Path, secret: Secret = no_secret) -> CryptoSigner:
    """Stage a new key, written to ``key``, in the place of the keyholder called ``name``; ``secret`` as in ``create``.

    Returns the key, which is at hand to sign.

    Raises:
        ServerError: there is no such keyholder, another has the name of the file, there is a file at ``key``, or an
            online key is lost.
    """
    repository.require_online_keys()
    root = repository.root
    held = [keyid for keyid, public in root.signed.keys.items() if public.unrecognized_fields.get(NAME) == name]
    if not held:
        known = ", ".join(sorted(keyholders(root.signed).values()))
        message = f"there is no keyholder {name!r}; there are {known}"
        raise ServerError(message)
    if key.stem != name and key.stem in keyholders(root.signed).values():
        message = f"another keyholder is called {key.stem}, and a key is called as its file: name the file otherwise"
        raise ServerError(message)
    _require_nothing_staged(repository)
    signer = new_key(key, secret)
    for role in ("root", "targets"):
        for keyid in held:
            root.signed.revoke_key(keyid, role)
        root.signed.add_key(signer.public_key, role)
    _stage(repository, root, repository.targets)
    return signer


def approve(repository: Repository, signers: Sequence[CryptoSigner]) -> str:
    """Sign what is staged; returns "" if it is published now, else what is missing, in words.

    Raises:
        ServerError: nothing is staged, a key has no say in it, or it cannot be published for want of an online key.
    """
    root, targets = staged(repository)
    previous, known = _previous(repository, root.signed), entitled(repository)
    for signer in signers:
        if signer.public_key.keyid not in known:
            message = f"the key {name_of(signer)} is no keyholder's; see: mas-edge sign status {repository.folder}"
            raise ServerError(message)
        root.sign(signer, append=True)
        if signer.public_key.keyid in root.signed.roles["targets"].keyids:
            targets.sign(signer, append=True)
    _write_staged(repository, root, targets)
    result = root.signed.get_root_verification_result(previous, root.signed_bytes, root.signatures)
    listed = root.signed.get_verification_result("targets", targets.signed_bytes, targets.signatures)
    missing = max(result.first.missing, result.second.missing, listed.missing)
    if missing:
        unsigned = {**result.first.unsigned, **result.second.unsigned, **listed.unsigned}
        names = sorted(str(key.unrecognized_fields.get(NAME, key.keyid[:12])) for key in unsigned.values())
        return f"{missing} more signature{'s' if missing > 1 else ''} needed, of {', '.join(names)}"
    _require_keys_to_publish(repository, root.signed, targets.signed)
    _publish(repository, root, targets)
    return ""


def entitled(repository: Repository) -> set[str]:
    """The keys that may sign what is staged; if nothing is, those that may sign what will be."""
    if not is_staged(repository):
        return set(repository.root.signed.roles["root"].keyids)
    root = staged(repository)[0].signed
    previous = _previous(repository, root)
    return {*root.roles["root"].keyids, *(previous.roles["root"].keyids if previous else [])}


def _previous(repository: Repository, root: Root) -> Root | None:
    """The root before the staged one; None at the beginning."""
    if isinstance(repository, _Beginning):
        return None
    newest = repository.root.signed
    if newest.version == root.version:  # cut off while it was published
        return repository.read(f"{newest.version - 1}.root.json", Root).signed
    return newest


def _require_keys_to_publish(repository: Repository, root: Root, targets: Targets) -> None:
    """Raise ServerError before anything of it is out: half of it would hold, and nothing could lead on."""
    lost = [name for name in repository.unusable_keys(root, targets) if not _staged(repository, f"{name}.pem").exists()]
    if lost:
        message = (
            f"what waits cannot be published, the online keys for it are lost ({' and '.join(lost)}): delete "
            f"{repository.folder / 'staged'}, then mas-edge sign rotate {repository.folder}"
        )
        raise ServerError(message)


def staged(repository: Repository) -> tuple[Metadata[Root], Metadata[Targets]]:
    """What waits for signatures. Raises ServerError if nothing does."""
    if not is_staged(repository):
        message = f"nothing waits for signatures in {repository.folder}: mas-edge sign renew, rotate or replace begins"
        raise ServerError(message)
    return repository.read("../staged/root.json", Root), repository.read("../staged/targets.json", Targets)


def is_staged(repository: Repository) -> bool:
    """Whether something waits for signatures."""
    return _staged(repository, "root.json").exists()


def keyholders(root: Root) -> dict[str, str]:
    """The names of the keyholders by key."""
    keyids = root.roles["root"].keyids
    return {keyid: str(root.keys[keyid].unrecognized_fields.get(NAME, keyid[:12])) for keyid in keyids}


class _Beginning(Repository):
    """A repository that has no metadata yet."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.folder, self.clock = folder, clock


def _require_no_repository(folder: Path) -> None:
    if not (folder / "metadata").exists():
        return
    if any((folder / "metadata").glob("*.root.json")):
        message = f"{folder} holds a signing repository already; its devices trust that one: choose another directory"
    else:
        message = (
            f"{folder} holds no root, after an init that was interrupted, or because it was lost: restore it from a "
            "copy; if no device trusts it yet, delete the directory and its keyholders' keys, or choose another one"
        )
    raise ServerError(message)


def _make_folders(folder: Path, offline: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metadata").mkdir()
    except OSError as error:
        message = f"cannot make {folder}: {error.strerror}; choose another directory"
        raise ServerError(message) from None
    _make_private(folder / "online")
    if not offline.is_dir() or not any(offline.iterdir()):  # else others may use it; the keys themselves are private
        _make_private(offline)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        message = f"cannot make {folder}: {error.strerror}; choose another directory"
        raise ServerError(message) from None


def _delegate_freshness(root: Root, signer: CryptoSigner) -> None:
    root.add_key(signer.public_key, "timestamp")
    root.add_key(signer.public_key, "snapshot")


def _delegate_models(targets: Targets, signer: CryptoSigner) -> None:
    # Terminating: what the orchestrator does not list below models/ is listed by nobody.
    role = DelegatedRole(MODELS, [signer.public_key.keyid], 1, terminating=True, paths=[MODELS_PATTERN])
    targets.delegations = Delegations({signer.public_key.keyid: signer.public_key}, {MODELS: role})


def _require_nothing_staged(repository: Repository) -> None:
    if is_staged(repository):
        message = (
            f"something else waits for signatures: mas-edge sign approve {repository.folder}, "
            f"or drop it by deleting {repository.folder / 'staged'}"
        )
        raise ServerError(message)
    shutil.rmtree(repository.folder / "staged", ignore_errors=True)  # keys of a ceremony that was cut off
    _staged(repository, "").mkdir(mode=0o700)


def _stage(repository: Repository, root: Metadata[Root], targets: Metadata[Targets], step: int = 1) -> None:
    _staged(repository, "").mkdir(mode=0o700, exist_ok=True)
    for metadata in (root, targets):
        metadata.signed.version += step
        metadata.signed.expires = repository.now + OFFLINE_LIFE
        metadata.signatures.clear()
    root.signed.unrecognized_fields[ISSUED] = int(repository.now.timestamp())
    _write_staged(repository, root, targets)


def _write_staged(repository: Repository, root: Metadata[Root], targets: Metadata[Targets]) -> None:
    write_private(_staged(repository, "targets.json"), targets.to_bytes())
    write_private(_staged(repository, "root.json"), root.to_bytes())  # last: it says that something is staged


def _staged(repository: Repository, name: str) -> Path:
    return repository.folder / "staged" / name


def _publish(repository: Repository, root: Metadata[Root], targets: Metadata[Targets]) -> None:
    """Each step may be done already: whoever is cut off in here begins again."""
    repository.write(f"{targets.signed.version}.targets.json", targets.to_bytes())
    repository.write(f"{root.signed.version}.root.json", root.to_bytes())
    _make_private(repository.folder / "online")  # a copy that is restored has none
    for name in ONLINE:
        made = _staged(repository, f"{name}.pem")
        if made.exists():
            write_private(repository.folder / "online" / made.name, read_key(made).private_bytes)
    _lead_to(repository, targets)
    shutil.rmtree(repository.folder / "staged")


def _lead_to(repository: Repository, targets: Metadata[Targets]) -> None:
    """Have the online roles lead to a new list of the keyholders; begin them where there are none."""
    if not repository.file("timestamp.json").exists():
        repository.write("1.snapshot.json", Metadata(Snapshot()).to_bytes())
        repository.write("timestamp.json", Metadata(Timestamp()).to_bytes())
    models = Metadata(Targets())
    if f"{MODELS}.json" in repository.snapshot.signed.meta:
        models = repository.models
        if repository.online_key("models").public_key.keyid not in models.signatures:
            models.signed.targets.clear()  # signed by a key that nobody is to believe any more
    repository.sign_list(models, targets.signed.version)
