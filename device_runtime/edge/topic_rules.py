"""What may stand in a topic that is published to, and in a filter that is subscribed to."""

from __future__ import annotations

from mas_edge.protocol.errors import BrokerError


def check_topic(topic: str) -> None:
    """Raise BrokerError if nothing can be published to ``topic``."""
    if not topic or any(character in topic for character in "+#\0"):
        message = f"cannot publish to the topic {topic!r}: expected a text without '+', '#' and NUL"
        raise BrokerError(message)


def check_filter(topic: str) -> None:
    """Raise BrokerError if ``topic`` is not a valid filter."""
    levels = topic.split("/")
    misplaced = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels) or "#" in levels[:-1]
    if misplaced or not topic or "\0" in topic:
        message = f"cannot subscribe to {topic!r}: '+' stands for one whole level and '#' for all the last ones"
        raise BrokerError(message)
