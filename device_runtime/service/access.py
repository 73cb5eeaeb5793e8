"""As whom a service of the system runs, and whether that user gets at all it needs; asked before it is installed."""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_IROTH, S_IRUSR, S_IXOTH, S_IXUSR

from mas_edge.protocol.errors import DeviceError


def owner_of(data: Path) -> int | None:
    """The owner of the data folder, as whom the agent runs; None for root's: then systemd makes up a user.

    Raises:
        DeviceError: the folder cannot be looked at.
    """
    try:
        owner = data.stat().st_uid
    except OSError as error:
        message = f"data folder {data} cannot be looked at: {error.strerror}; correct --data, or who may look"
        raise DeviceError(message) from None
    return owner or None


def check_access(words: Sequence[str], data: Path, state: Path, own: Path) -> None:
    """Check that the user of the service may read every path among ``words``, and the data, and write its state.

    ``own`` is the state directory that systemd makes for the service, and gives to its user.

    Raises:
        DeviceError: something is closed to that user, or the state directory is somebody else's.
    """
    user = owner_of(data)
    named = [Path(word) for word in words if word.startswith("/") and Path(word) != state]
    for path in (data, *named, *data.glob("*")):
        for closed in _closed(path, user):
            message = (
                f"the service would run as {_name(user)}, who may not read {closed}, which {path} needs: "
                + _remedy(closed, user, data)
            )
            raise DeviceError(message)
    if state != own and (user is None or not state.is_dir() or state.stat().st_uid != user):
        message = (
            f"the service would run as {_name(user)}, to whom {state} does not belong: leave --state out (then it is "
            f"{own}), or give it to the owner of {data}"
        )
        raise DeviceError(message)


def _closed(path: Path, user: int | None) -> Iterator[Path]:
    """The folders on the way to ``path`` that the user may not enter, and itself if it may not be read."""
    for each in {path.absolute(), path.resolve()}:
        for folder in reversed(each.parents):
            if folder.is_dir() and not _may(folder, user, S_IXUSR, S_IXOTH):
                yield folder
        if each.exists() and not _may(each, user, S_IRUSR, S_IROTH):
            yield each


def _may(path: Path, user: int | None, if_own: int, if_other: int) -> bool:
    """By its mode alone. A user made up is in no group of ours; for another one any right of a group is believed."""
    found = path.stat()
    if user is not None and found.st_uid == user:
        return bool(found.st_mode & if_own)
    of_group = if_other << 3 if user is not None else 0
    return bool(found.st_mode & (if_other | of_group))


def _remedy(closed: Path, user: int | None, data: Path) -> str:
    if closed == data or data in closed.parents:
        return f"sudo chown -R USER {data}, with the name of who shall run it"
    if user is None:
        return f"move it to where everybody may read, such as /srv or /opt, or: sudo chown -R USER {data}"
    return f"move it to where that user may read, or: sudo chmod o+rx {closed}"


def _name(user: int | None) -> str:
    if user is None:
        return "a user of its own, as the data folder is root's"
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
