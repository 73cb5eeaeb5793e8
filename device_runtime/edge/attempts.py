"""Attempts to be let in by one broker: why each ended, in words for people, and what the next one does differently.

No clock, no sockets and not the client library: what happened goes in, with the reason codes of MQTT 5 (section 2.4).
"""

from __future__ import annotations

from device_runtime.edge.address import (
    BAD_VERSION,
    ENDED_BY_BROKER,
    HUNG_UP,
    REFUSED_FOR_GOOD,
    TOO_LARGE,
    Address,
)

CONNACK_S = 10.0  # how long a broker may take to answer: it may have a thousand devices to greet
# ... while we do not know its version yet: amqtt 0.12 neither answers a CONNECT of MQTT 5 nor hangs up (measured).
FIRST_CONNACK_S = 3.0

# Whether each broker last took MQTT 5: to find out may cost seconds, and a process has several links to one broker.
_took_five: dict[str, bool] = {}


class Attempts:
    """The attempts of the client ``name``; one is going on at a time.

    Attributes:
        five: whether it speaks MQTT 5, else 3.1.1.
        settled: whether the broker has taken this version before.
        answered: whether the broker has answered the present attempt, with yes or no.
        ended: why the present one ended; "" while nobody has said.
        too_large: whether it ended because of the size of a packet, as the broker says.
        other_version: whether the next one should try the other version.
    """

    def __init__(self, address: Address, name: str) -> None:
        self._address, self._name = address, name
        chosen = {"5": True, "3.1.1": False}.get(address.version)
        self.five = _took_five.get(str(address), True) if chosen is None else chosen
        self.settled = False
        self._unanswered = 0
        self.begin()

    def begin(self) -> None:
        """A new one."""
        self.ended, self.answered, self.too_large, self.other_version = "", False, False, False

    @property
    def patience_s(self) -> float:
        """How long to wait for an answer; both versions get the same time, more at each turn.

        So a broker that is only slow is not given up.
        """
        return CONNACK_S if self.settled else min(CONNACK_S, FIRST_CONNACK_S * 2 ** (self._unanswered // 2))

    def let_in(self) -> None:
        """The broker has said yes."""
        self.answered = self.settled = True
        _took_five[str(self._address)] = self.five

    def refused(self, code: int, text: str) -> bool:
        """The broker has said no, for the reason ``code``, which the library calls ``text``; returns if for good."""
        self.answered = True
        if code == BAD_VERSION:
            self.ended = f"the broker at {self._address} does not speak MQTT 5; trying MQTT 3.1.1"
            self.other_version = True
            return False
        for_good = REFUSED_FOR_GOOD.get(code)
        self.ended = (for_good or f"the broker refuses the connection ({text}); trying again").format(name=self._name)
        return for_good is not None

    def ended_by_broker(self, code: int, text: str) -> None:
        """The broker has said goodbye, for the reason ``code``, which the library calls ``text``."""
        known = ENDED_BY_BROKER.get(code, f"the broker ended the connection ({text})")
        self.ended, self.too_large = known.format(name=self._name), code == TOO_LARGE

    def hung_up(self) -> None:
        """The connection was closed without a word; before it was answered, some brokers mean the version by that."""
        if not self.answered:
            self.ended, self.other_version = HUNG_UP.format(address=self._address), not self.settled

    def silent(self) -> None:
        """The broker was waited for long enough."""
        self.ended = f"{self._address} lets us connect but does not answer; is it an MQTT broker?"
        self.other_version = not self.settled
        self._unanswered += 1

    def failed(self, why: str) -> None:
        """It ended for a reason that has nothing to do with the version."""
        self.ended, self.other_version = why, False

    def switch_version(self) -> None:
        """The next ones speak the other version."""
        self.five, self.settled = not self.five, False
