# mypy: ignore-errors
"""A board's side of the contract: messages, frames and the time go in, callbacks come out. No sockets and no clock.

One plan is worked on at a time, one artifact is fetched at a time and one window of chunks is asked for at a time.
``now`` is in milliseconds and only grows.
"""

import json
import os

from . import wire
from .flash import Refused, make_folder, remove

OFFER_REPEAT_MS, OFFER_REPEAT_MAX_MS = 2000, 30000  # docs/protocol, A round
WANT_REPEAT_MS, WANT_REPEAT_MAX_MS = 2000, 15000  # docs/protocol, Pulling
WINDOW = 32 * 1024  # bytes that are asked for at a time: a second of a slow radio, and never kept in memory
MAX_ERRANDS = 4  # plans that wait: a board serves one network, and its orchestrator sends one plan a round
MIN_CHECKIN_MS = 10000
MAX_CORRUPT = 5  # chunks in a row that are not what the manifest says: whoever sends them has no others


class Errand:
    """A plan on its way to its offer."""

    def __init__(self, plan, now):
        self.plan, self.began, self.fetched = plan, now, 0
        self.deadline = now + int(plan["deadline_s"] * 1000)
        self.received = 0
        self.stage = "fetch"


class Offer:
    """Finished work whose receipt has not come."""

    def __init__(self, body, manifest):
        self.body, self.manifest = body, manifest  # the manifest of the update, None if there is none
        self.next, self.repeat = 0, OFFER_REPEAT_MS


class Agent:
    """One board.

    Args:
        name, boot_id: of the device, and of this life.
        birth: returns the fields of the birth message beside the sender's.
        store, folder: artifacts; where offers are kept.
        say: ``say(message, topic)`` publishes a dict on ``response``, ``birth`` or ``status``.
        send_chunk: ``send_chunk(manifest, index)`` publishes one frame.
        why_not: ``why_not(plan)`` is the reason to refuse a plan; empty to take it.
    """

    def __init__(self, name, boot_id, birth, store, folder, say, send_chunk, why_not):
        self.name, self.boot_id = name, boot_id
        self._birth, self._store, self._folder = birth, store, folder
        self._say, self._send_chunk, self._why_not = say, send_chunk, why_not
        self._seq = 0
        self.errands, self._offers = [], []
        self._part, self._asked, self._want_at, self._want_repeat = None, [], 0, WANT_REPEAT_MS
        self._corrupt, self._anew = 0, ""
        self._checkin, self._next_checkin = 0, 0
        self._accepted = []
        make_folder(folder)
        self._restore()  # what came of artifacts stays as well: the plan that named them comes again

    # ---------------------------------------------------------------- events

    def on_connected(self, now):
        """The broker is there: say who we are, and take up every conversation."""
        self.introduce()
        for offer in self._offers:
            offer.next, offer.repeat = now, OFFER_REPEAT_MS
        self._want_at, self._want_repeat, self._asked = now, WANT_REPEAT_MS, []
        self.poll(now)

    def introduce(self):
        """Say who we are."""
        self._tell("birth", self._birth(), "birth")
        self._tell("status", {"online": True, "reason": ""}, "status")

    def status(self, online, reason):
        """The status message, also for the last will."""
        return self._message("status", {"online": online, "reason": reason})

    def on_message(self, data, now):
        """A control message arrived; one that is no message is answered with a refusal where it names its round."""
        try:
            message = wire.decode(data)
        except Refused as error:
            self._refuse_damaged(data, str(error))
            return
        kind = message["type"]
        if kind == "plan":
            self._on_plan(message, now)
        elif kind == "want":
            self._on_want(message, now)
        elif kind in ("receipt", "cancel"):
            self._pace(message["next_checkin_s"], now)
            if kind == "receipt" and message["verdict"] in ("accepted", "duplicate"):
                done = (message["boot_id"], message["job"], message["round_id"])
                self._accepted.append(done)
                self._accepted = self._accepted[-MAX_ERRANDS:]
            self._forget(message)
        elif kind == "rebirth":
            self.introduce()
        elif kind == "orchestrator":
            share = (sum(self.name.encode()) % 101) / 200 + 0.75  # of our own, from 0.75 to 1.25: it is told to all
            self._pace(message["next_checkin_s"] * share, now)

    def on_frame(self, length, reader, now):
        """A frame arrived: ``reader(view)`` gives its bytes, ``length`` of them."""
        if length <= wire.HEADER:
            return
        header = bytearray(wire.HEADER)
        reader(memoryview(header))
        part = self._part
        prefix, index, count = wire.read_frame_header(header)
        if part is None or not part.manifest["artifact"].startswith(prefix) or count != length - wire.HEADER:
            return
        before = part.received
        good = part.write(index, count, reader)
        for errand in self.errands:
            if errand.stage == "fetch":
                errand.received += part.received - before
                break
        if index in self._asked:
            self._asked.remove(index)
        self._corrupt = 0 if good else self._corrupt + 1
        if self._corrupt >= MAX_CORRUPT:
            self._give_up("%d chunks of %s came damaged" % (MAX_CORRUPT, part.manifest["artifact"][:12]))
            return
        if good:
            self._want_repeat = WANT_REPEAT_MS
        self._want_at = now + self._want_repeat
        if not self._asked:
            self._fetch(now)

    def poll(self, now):
        """What is due by the clock."""
        for errand in [each for each in self.errands if now >= each.deadline]:
            self._drop(errand)
        for offer in self._offers:
            if now >= offer.next:
                offer.next = now + offer.repeat
                offer.repeat = min(2 * offer.repeat, OFFER_REPEAT_MAX_MS)
                self._tell("offer", offer.body)
        if self._part is not None and now >= self._want_at:
            self._asked, self._want_repeat = [], min(2 * self._want_repeat, WANT_REPEAT_MAX_MS)
        if self._part is None or now >= self._want_at:
            self._fetch(now)
        if self._checkin and now >= self._next_checkin:
            self._next_checkin = now + self._checkin
            self.introduce()

    def work(self):
        """The plan that can be carried out now, marked as at work; None if there is none."""
        for errand in self.errands:
            if errand.stage == "work":
                return None
        for errand in self.errands:
            if errand.stage == "ready":
                errand.stage = "work"
                return errand
        return None

    def on_finished(self, errand, report, manifest, now):
        """The work is done: keep its offer until the receipt comes. ``manifest``: of the update, or None."""
        if errand not in self.errands:
            return  # cancelled meanwhile
        self.errands.remove(errand)
        report["received_bytes"] = errand.received
        report["seconds"]["fetch"] = errand.fetched / 1000
        plan = errand.plan
        body = {"job": plan["job"], "round_id": plan["round_id"], "report": report}
        if manifest is not None:
            body["manifest"] = wire.manifest_json(manifest)
        self._leave_other_jobs(plan["job"])
        with open(self._offer_path(plan["round_id"]), "w") as file:
            json.dump(body, file)
        offer = Offer(body, manifest)
        offer.next = now
        self._offers.append(offer)
        self.poll(now)

    def on_flash_failed(self, error, now):
        """The flash is full or broken: what is fetched is given up, and what nobody needs any more removed."""
        self._give_up("the flash refuses: %s" % error)
        self._tidy()

    def _give_up(self, reason, name=""):
        self._corrupt = 0
        if self._part is not None:
            name = self._part.manifest["artifact"]
        for errand in [each for each in self.errands if each.stage == "fetch"]:
            if not name or name in [each["artifact"] for each in _named(errand.plan)]:
                self.on_failed(errand, reason)

    def on_failed(self, errand, reason):
        """The work cannot be done: say why."""
        if errand in self.errands:
            self._drop(errand)
            self._refuse(errand.plan, reason)

    def next_poll(self, now):
        """When ``poll`` may have something, if no event comes before."""
        times = [errand.deadline for errand in self.errands] + [offer.next for offer in self._offers]
        if self._part is not None:
            times.append(self._want_at)
        if self._checkin:
            times.append(self._next_checkin)
        return min(times) if times else now + WANT_REPEAT_MAX_MS

    # ---------------------------------------------------------------- plans

    def _on_plan(self, plan, now):
        key = (plan["boot_id"], plan["job"], plan["round_id"])
        if key in self._accepted:
            return
        for offer in self._offers:
            if _same(offer.body, plan):
                offer.next = now
                self.poll(now)
                return
        for errand in self.errands:
            if _same(errand.plan, plan):
                self._tell("ack", _round(plan))
                return
        reason = self._why_not(plan)
        for errand in [each for each in self.errands if each.plan["job"] != plan["job"]]:
            self._drop(errand)
        if not reason and len(self.errands) >= MAX_ERRANDS:
            reason = "this board already holds %d plans" % MAX_ERRANDS
        if reason:
            self._refuse(plan, reason)
            return
        self.errands.append(Errand(plan, now))
        self._tell("ack", _round(plan))
        self._tidy()
        self.poll(now)

    def _fetch(self, now):
        """Go on with the artifact that comes, or begin with the next that a plan lacks."""
        if self._part is not None:
            if self._ask(now):
                return
            part, self._part = self._part, None
            whole, name = part.finish(), part.manifest["artifact"]
            if not whole and self._anew == name:
                self._give_up("%s came twice, and is not what its chunks make" % name[:12], name)
            # Once it is begun anew: a note may have been of a chunk that was not written
            self._anew = "" if whole or self._anew == name else name
        for errand in self.errands:
            if errand.stage != "fetch":
                continue
            lacking = [each for each in _named(errand.plan) if not self._store.has(each["artifact"])]
            if lacking:
                self._part = self._store.begin(lacking[0])
                self._fetch(now)
                return
            errand.stage, errand.fetched = "ready", now - errand.began

    def _ask(self, now):
        """Ask for chunks, if none are on their way; False when there is none to ask for."""
        if self._asked:
            return True
        manifest = self._part.manifest
        self._asked = self._part.missing(max(1, WINDOW // manifest["chunk_size"]))
        if not self._asked:
            return False
        self._want_at = now + self._want_repeat
        self._tell(
            "want", {"artifact": manifest["artifact"], "ranges": wire.to_ranges(self._asked), "broadcast": False}
        )
        return True

    def _drop(self, errand):
        if errand in self.errands:
            self.errands.remove(errand)
        names = [each["artifact"] for other in self.errands for each in _named(other.plan)]
        if self._part is not None and self._part.manifest["artifact"] not in names:
            self._part.close()
            self._part, self._asked = None, []

    def _on_want(self, want, now):
        for offer in self._offers:
            manifest = offer.manifest
            if manifest is None or manifest["artifact"] != want["artifact"]:
                continue
            try:
                ranges = wire.check_ranges(want["ranges"], wire.chunks(manifest))
            except Refused:
                return
            offer.next, offer.repeat = now + OFFER_REPEAT_MS, OFFER_REPEAT_MS
            for start, stop in ranges:
                for index in range(start, stop):
                    self._send_chunk(manifest, index)
            commit = _round(offer.body)
            commit["artifact"] = want["artifact"]
            self._tell("commit", commit)

    # ---------------------------------------------------------------- offers

    def _forget(self, message):
        for offer in [each for each in self._offers if _same(each.body, message)]:
            self._offers.remove(offer)
            remove(self._offer_path(message["round_id"]))
        if message["type"] == "cancel":
            for errand in [each for each in self.errands if _same(each.plan, message)]:
                self._drop(errand)

    def _leave_other_jobs(self, job):
        for offer in [each for each in self._offers if each.body["job"] != job]:
            self._offers.remove(offer)
            remove(self._offer_path(offer.body["round_id"]))

    def _offer_path(self, round_id):
        return self._folder + "/" + round_id

    def _restore(self):
        """The offers of an earlier life; one that the power cut off is forgotten: its plan comes again."""
        for name in os.listdir(self._folder):
            try:
                with open(self._offer_path(name)) as file:
                    body = json.load(file)
                manifest = body.get("manifest") and wire._checked("manifest", body["manifest"], "manifest")
                said = body["round_id"] == name and isinstance(body["job"], str) and isinstance(body["report"], dict)
                if not said or (manifest and not self._store.has(manifest["artifact"])):
                    raise Refused
                self._offers.append(Offer(body, manifest))
            except (Refused, ValueError, KeyError, TypeError, AttributeError, OSError):
                remove(self._offer_path(name))

    def _tidy(self):
        """Remove the artifacts that nothing names any more: flash is small."""
        wanted = {each["artifact"] for errand in self.errands for each in _named(errand.plan)}
        wanted |= {offer.manifest["artifact"] for offer in self._offers if offer.manifest}
        self._store.keep(wanted)

    # ---------------------------------------------------------------- words

    def _pace(self, seconds, now):
        if seconds > 0:
            self._checkin = max(int(seconds * 1000), MIN_CHECKIN_MS)
            self._next_checkin = now + self._checkin

    def _refuse(self, plan, reason):
        body = _round(plan)
        body["reason"] = reason
        self._tell("refusal", body)

    def _refuse_damaged(self, data, reason):
        try:
            said = json.loads(str(data, "utf-8"))
            plan = {"job": said["job"], "round_id": wire.check_name(said["round_id"], "round")}
            if said.get("type") == "plan" and isinstance(plan["job"], str):
                self._refuse(plan, reason)
        except (ValueError, UnicodeError, KeyError, TypeError, AttributeError, Refused):
            pass

    def _tell(self, kind, body, topic="response"):
        self._say(self._message(kind, body), topic)

    def _message(self, kind, body):
        self._seq += 1
        message = {"type": kind, "sender": self.name, "boot_id": self.boot_id, "seq": self._seq}
        message.update(body)
        return message


def _round(body):
    return {"job": body["job"], "round_id": body["round_id"]}


def _same(body, other):
    return body["job"] == other["job"] and body["round_id"] == other["round_id"]


def _named(plan):
    """Every manifest that a plan has to be carried out with."""
    if plan["undo"]:
        return []
    found = [plan["program"]]
    if plan["weights"]:
        found.append(plan["weights"]["manifest"])
    if plan["health"]:
        found.append(plan["health"]["golden"])
    return found
