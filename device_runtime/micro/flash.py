# mypy: ignore-errors
"""What a board keeps: artifacts by their sha256, two model slots a group, and a state that a power cut does not spoil.

The state is written in turn into ``state.0`` and ``state.1``, each a line of JSON and a line with serial number and
CRC-32 of both: the good one with the larger number counts, and a torn one is as if it had not been written. No file is
overwritten by a rename, which FAT cannot do; a slot is written only while it is not the one in use.
"""

import binascii
import hashlib
import json
import os

from .wire import Refused, check_name, chunk_length, chunks

PIECE = 1024  # bytes of a copy or a hash at a time
MAX_REFUSED = 8  # digests of models that failed here; the oldest are forgotten
MAX_STARTS = 2  # of a model that was neither committed nor refused: it took the board down with it


def sync():
    """Everything that was written, on the flash; a board writes when it closes."""
    if hasattr(os, "sync"):
        os.sync()


def size_of(path):
    """Bytes of a file; -1 if there is none."""
    try:
        return os.stat(path)[6]
    except OSError:
        return -1


def remove(path):
    """Remove a file that may not be there."""
    try:
        os.remove(path)
    except OSError:
        pass


def make_folder(path):
    """Make a folder that may be there."""
    try:
        os.mkdir(path)
    except OSError:
        pass


def digest_of_file(path):
    """sha256 of a file in hex, read piece by piece; empty if it cannot be read."""
    whole = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while True:
                piece = file.read(PIECE)
                if not piece:
                    return str(binascii.hexlify(whole.digest()), "ascii")
                whole.update(piece)
    except OSError:
        return ""


class State:
    """A dict that survives a power cut at any moment."""

    def __init__(self, folder):
        self._paths = (folder + "/state.0", folder + "/state.1")
        found = [read for read in map(_read_copy, self._paths) if read]
        self._serial, self.values = max(found, key=lambda each: each[0]) if found else (0, {})

    def save(self):
        """Write the older of the two copies."""
        self._serial += 1
        line = json.dumps(self.values)
        with open(self._paths[self._serial & 1], "w") as file:
            file.write("%s\n%d %08x\n" % (line, self._serial, _check(line, self._serial)))
        sync()


def _check(line, serial):
    return binascii.crc32(("%s\n%d" % (line, serial)).encode()) & 0xFFFFFFFF


def _read_copy(path):
    try:
        with open(path) as file:
            line, last = file.read().split("\n")[:2]
        serial, check = last.split()
        if int(check, 16) == _check(line, int(serial)):
            return int(serial), json.loads(line)
    except (OSError, ValueError, UnicodeError):
        pass
    return None


class Part:
    """An artifact on its way into the flash; every chunk is checked as it is written."""

    def __init__(self, path, manifest):
        self.manifest, self.received = manifest, 0
        self._path = path
        self._count = chunks(manifest)
        self._held = bytearray(-(-self._count // 8))
        self._file = _open_for_update(path + ".part")
        self._restore()
        self._map = open(path + ".map", "ab")

    def _restore(self):
        """What an earlier life noted. A note may be torn, or of a chunk that was not written: ``finish`` looks."""
        try:
            with open(self._path + ".map", "rb") as file:
                notes = file.read(2 * self._count)
        except OSError:
            return
        for place in range(0, len(notes) - 1, 2):
            index = notes[place] << 8 | notes[place + 1]
            if index < self._count:
                self._held[index >> 3] |= 1 << (index & 7)

    def holds(self, index):
        """Whether chunk ``index`` is here."""
        return bool(self._held[index >> 3] >> (index & 7) & 1)

    def missing(self, most):
        """Up to ``most`` chunks that are not here, ascending."""
        found = []
        for index in range(self._count):
            if not self.holds(index):
                found.append(index)
                if len(found) == most:
                    break
        return found

    def write(self, index, length, reader):
        """Take the data of a chunk out of ``reader(view)``; False if it is not what the manifest says."""
        if index >= self._count or length != chunk_length(self.manifest, index):
            message = "chunk %d with %d bytes is none of %s" % (index, length, self.manifest["artifact"][:12])
            raise Refused(message)
        if self.holds(index):
            return True
        digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
        self._file.seek(index * self.manifest["chunk_size"])
        while length:
            view = buffer[: min(length, PIECE)]
            reader(view)
            digest.update(view)
            self._file.write(view)
            length -= len(view)
            self.received += len(view)
        if digest.digest() != self.manifest["chunk_digests"][32 * index : 32 * index + 32]:
            return False
        self._file.flush()
        self._held[index >> 3] |= 1 << (index & 7)
        self._map.write(bytes((index >> 8, index & 255)))
        self._map.flush()
        return True

    def finish(self):
        """Give the whole its name. False: it is not what the manifest says, and begins anew."""
        self.close()
        sync()
        if digest_of_file(self._path + ".part") == self.manifest["artifact"]:
            os.rename(self._path + ".part", self._path)
            remove(self._path + ".map")
            sync()
            return True
        remove(self._path + ".part")
        remove(self._path + ".map")
        return False

    def close(self):
        """Let go of the files; what is here stays."""
        self._file.close()
        self._map.close()


def _open_for_update(path):
    try:
        return open(path, "r+b")
    except OSError:
        return open(path, "w+b")


class Store:
    """Artifacts by their name, and what finished work waits for its receipt."""

    def __init__(self, folder, models=None):
        make_folder(folder)
        self.folder, self._models = folder, models
        for name in os.listdir(
            folder
        ):  # once a life; of what came in part each chunk is checked, and the whole at the end
            if "." not in name and digest_of_file(self.path(name)) != name:
                remove(self.path(name))

    def path(self, artifact):
        """Where an artifact lies."""
        return self.folder + "/" + artifact

    def has(self, artifact):
        """Whether it is here, whole; a model may lie in its slot already."""
        return size_of(self.path(artifact)) >= 0 or (self._models is not None and self._models.holds(artifact))

    def begin(self, manifest):
        """Begin to receive, or go on."""
        return Part(self.path(manifest["artifact"]), manifest)

    def keep(self, wanted):
        """Remove every artifact, whole or in part, whose name is not in ``wanted``."""
        for name in os.listdir(self.folder):
            if name.split(".")[0] not in wanted:
                remove(self.folder + "/" + name)

    def put(self, pieces, chunk_size):
        """Write an artifact from an iterable of bytes; its manifest. The name is known only at the end."""
        path = self.folder + "/new"
        whole, chunk, digests, size, filled = hashlib.sha256(), hashlib.sha256(), b"", 0, 0
        with open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)
                whole.update(piece)
                size += len(piece)
                view = memoryview(piece)
                while len(view):
                    part = view[: chunk_size - filled]
                    chunk.update(part)
                    filled += len(part)
                    view = view[len(part) :]
                    if filled == chunk_size:
                        digests, chunk, filled = digests + chunk.digest(), hashlib.sha256(), 0
        if filled:
            digests += chunk.digest()
        artifact = str(binascii.hexlify(whole.digest()), "ascii")
        sync()
        remove(self.path(artifact))
        os.rename(path, self.path(artifact))
        return {"artifact": artifact, "size": size, "chunk_size": chunk_size, "chunk_digests": digests}


class Models:
    """The models of every group; ``state`` knows what lies where."""

    def __init__(self, folder, state):
        self._folder, self._state = folder, state
        self._known = state.values.setdefault("models", {})
        for group in list(self._known):  # once a life: within one a trial goes on
            slots = self.slots(group)
            slots.give_up()
            slots.forget_damaged()

    def slots(self, group):
        """The two places of a group's model."""
        return Slots(self._folder, self._state, check_name(group, "group"))

    def holds(self, digest):
        """Whether this model is in use, or lies on trial because a power cut came between."""
        return any([self.slots(group).holds(digest) for group in list(self._known)])

    def bring(self, digest, path):
        """Have a model at ``path`` for a group to try that another group holds already."""
        for group in list(self._known) if size_of(path) < 0 else ():
            slots = self.slots(group)
            if slots.digest == digest:
                _copy(slots.path(self._known[group]["active"]), path)

    def in_use(self):
        """By group, the digest of the model in use."""
        found = {group: self.slots(group).digest for group in list(self._known)}
        return {group: digest for group, digest in found.items() if digest}


def _copy(source, target):
    with open(source, "rb") as file, open(target + ".part", "wb") as copy:
        while True:
            piece = file.read(PIECE)
            if not piece:
                break
            copy.write(piece)
    os.rename(target + ".part", target)


class Slots:
    """Two places for a group's model: one in use, one to try the next in, where the one before it lies until then.

    A model is counted as started before it is loaded; one that took the board down MAX_STARTS times, or failed its
    health check, is refused by its digest from then on. The one in use is never written to.
    """

    def __init__(self, folder, state, group):
        self._folder, self._state, self._group = folder, state, group
        slots = state.values.setdefault("models", {}).setdefault(
            group, {"active": "", "digests": {"a": "", "b": ""}, "trial": "", "starts": 0, "refused": []}
        )
        self._slots = slots

    def give_up(self):
        """At the start of a life: refuse a model on trial that has ended so many lives."""
        if self._slots["trial"] and self._slots["starts"] >= MAX_STARTS:
            self.refuse("started %d times and never came to an end" % self._slots["starts"])

    def forget_damaged(self):
        """At the start of a life: what the flash has damaged is not said to be here, so that it can come again."""
        slots = self._slots
        if slots["trial"] and digest_of_file(self.path(slots["trial"])) != slots["digests"][slots["trial"]]:
            self.refuse("damaged", for_ever=False)
        if slots["active"] and self.active() is None:
            slots["digests"][slots["active"]], slots["active"] = "", ""
            self._state.save()

    def path(self, slot):
        """The file of slot ``a`` or ``b``."""
        return self._folder + "/" + self._group + "." + slot

    def active(self):
        """The file of the model in use, whole by its digest, else of the other that was good; None if there is none."""
        slots = self._slots
        for slot in (slots["active"], _other(slots["active"])):
            digest = slot and slot != slots["trial"] and slots["digests"][slot]
            if digest and digest_of_file(self.path(slot)) == digest:
                if slot != slots["active"]:
                    slots["active"] = slot
                    self._state.save()
                return self.path(slot)
        return None

    @property
    def digest(self):
        """Of the model in use; empty if there is none."""
        slots = self._slots
        return slots["digests"][slots["active"]] if slots["active"] else ""

    def why_refused(self, digest):
        """Why a model is never tried again; empty if it may be."""
        for refused, why in self._slots["refused"]:
            if refused == digest:
                return why
        return ""

    def put_on_trial(self, path, digest):
        """Move the model at ``path`` into the slot that is not in use; its path there, once more counted as started."""
        slots = self._slots
        slot = slots["trial"] or _other(slots["active"]) or "a"
        if slots["trial"] != slot or slots["digests"][slot] != digest or size_of(self.path(slot)) < 0:
            slots["digests"][slot], slots["trial"] = "", ""
            self._state.save()
            remove(self.path(slot))
            os.rename(path, self.path(slot))
            sync()
            slots["digests"][slot], slots["trial"], slots["starts"] = digest, slot, 0
        slots["starts"] += 1
        self._state.save()
        return self.path(slot)

    def holds(self, digest):
        """Whether this model is in use, or lies on trial because a power cut came between."""
        slots = self._slots
        return any(slot and slots["digests"][slot] == digest for slot in (slots["active"], slots["trial"]))

    def commit(self):
        """The model on trial is the one in use."""
        slots = self._slots
        slots["active"], slots["trial"], slots["starts"] = slots["trial"], "", 0
        self._state.save()

    def roll_back(self):
        """The model before is in use again, and this one gone; False where there is none, or the flash damaged it."""
        slots = self._slots
        gone, before = slots["active"], _other(slots["active"])
        digest = slots["digests"].get(before)
        if not digest or before == slots["trial"] or digest_of_file(self.path(before)) != digest:
            return False
        slots["active"], slots["digests"][gone] = before, ""
        self._state.save()
        remove(self.path(gone))
        return True

    def refuse(self, why, for_ever=True):
        """The model on trial is gone, and never tried again unless the fault is not its own; the one in use stays."""
        slots = self._slots
        slot = slots["trial"]
        if for_ever:
            slots["refused"] = (slots["refused"] + [[slots["digests"][slot], why]])[-MAX_REFUSED:]
        slots["digests"][slot], slots["trial"], slots["starts"] = "", "", 0
        self._state.save()
        remove(self.path(slot))


def _other(slot):
    return {"a": "b", "b": "a"}.get(slot, "")
