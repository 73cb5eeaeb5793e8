"""The TUF client, on a clock of ours.

python-tuf 7 asks the system for the time and has no public way to say another one. A board without a clock battery
wakes up in 1970, and a network may tell it any time: so the two private names that this needs, ``_load_root`` and
``_trusted_set``, are used here and nowhere else, and the dependency is held below 8.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from mas_edge.protocol.errors import DeviceError, TrustError
from mas_edge.protocol.signed import ISSUED, MAX_METADATA_BYTES, MAX_METADATA_FILES, MODELS

LIMITS = UpdaterConfig(
    max_root_rotations=MAX_METADATA_FILES,
    max_delegations=4,  # ours are two deep
    root_max_length=64 * 1024,  # ten keyholders are 5 KB
    timestamp_max_length=16 * 1024,  # 1 KB
    snapshot_max_length=64 * 1024,  # 1 KB
    targets_max_length=MAX_METADATA_BYTES,
)
_ANY_MODEL = "models/any/any/any"  # a name below the delegation: asking for it makes the client fetch the role


class Client(Updater):
    """Verifies metadata in ``directory``, beginning with the root ``anchor``; ``clock``: the time under a root.

    Raises:
        TrustError: ``anchor`` is no root.
    """

    def __init__(
        self, directory: Path, anchor: bytes, fetcher: FetcherInterface, url: str, clock: Callable[[Root], datetime]
    ) -> None:
        self._clock = clock
        try:
            super().__init__(str(directory), url, fetcher=fetcher, config=LIMITS, bootstrap=anchor)
        except (RepositoryError, ValueError, KeyError) as error:
            message = f"the root this device was handed is damaged: {error}"
            raise TrustError(message) from None

    def verify(self) -> None:
        """Fetch and verify all of it.

        Raises:
            TrustError: it is not what the trusted keys signed, too old, or cannot be had.
        """
        try:
            self.refresh()
            self.get_targetinfo(_ANY_MODEL)
            self.models  # noqa: B018 - raises KeyError if nobody delegates to it
        except (RepositoryError, DownloadError) as error:
            message = f"the signing metadata are refused: {_words(error)}"
            raise TrustError(message) from None
        except (OSError, MemoryError):
            raise
        except Exception as error:  # foreign bytes: whatever the parser raises is about them
            message = f"the signing metadata are refused: {type(error).__name__}: {_words(error)}"
            raise TrustError(message) from None

    def _load_root(self) -> None:
        super()._load_root()
        self._trusted_set.reference_time = self._clock(self.root)

    @property
    def root(self) -> Root:
        """The newest verified root."""
        return self._trusted_set.root

    @property
    def models(self) -> Targets:
        """The verified list of the orchestrator."""
        found = self._trusted_set[MODELS]
        if not isinstance(found, Targets):
            raise KeyError(MODELS)
        return found

    @property
    def until(self) -> datetime:
        """When the first of the verified signatures ends."""
        trusted = self._trusted_set
        held = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets, self.models)
        return min(each.expires for each in held)

    @property
    def issued(self) -> float:
        """When the timestamp was signed, in seconds since 1970; 0 if it does not say."""
        return issued_of(self._trusted_set.timestamp.unrecognized_fields)

    def plan_keys(self) -> dict[str, Key]:
        """The keys that may sign plans, by name: those of the role ``models``."""
        delegations = self._trusted_set.targets.delegations
        if delegations is None or delegations.roles is None or MODELS not in delegations.roles:
            return {}
        return {keyid: delegations.keys[keyid] for keyid in delegations.roles[MODELS].keyids}

    def target(self, name: str) -> tuple[str, int] | None:
        """The (sha256, bytes) of what is listed under ``name`` by whom it is delegated to; None if nothing is."""
        found = self.get_targetinfo(name)
        return (found.hashes.get("sha256", ""), found.length) if found else None


def issued_of(fields: dict[str, object]) -> float:
    """When metadata say that they were signed."""
    said = fields.get(ISSUED)
    return float(said) if isinstance(said, int) else 0.0


def root_version(data: bytes) -> int:
    """The version that a root says it is. Raises TrustError if it is none."""
    try:
        return int(Metadata[Root].from_bytes(data).signed.version)
    except (RepositoryError, ValueError, KeyError, AttributeError) as error:
        message = f"this is no root: {_words(error)}"
        raise TrustError(message) from None


def check_root(data: bytes) -> None:
    """Raise DeviceError if ``data`` is no root that its own keys have signed."""
    try:
        root = Metadata[Root].from_bytes(data)
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except (RepositoryError, ValueError, KeyError, AttributeError) as error:
        message = f"this is no root to trust: {_words(error)}; expected the file root.json of `mas-edge sign init`"
        raise DeviceError(message) from None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
