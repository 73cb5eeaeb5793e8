"""Hypothesis strategies for broken input: damaged bytes, odd values in sound messages, odd topics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

HUGE = [0, -1, 1, 2, 63, 64, 255, 1024, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**62, 2**64, 10**30, -(2**62)]
TEXTS = ["", "a", "..", "../..", "/etc/passwd", "#", "+", "$SYS", "\x00", "\n", "\x1b[2J", "\u202e", "x" * 300, "é"]

numbers = st.sampled_from(HUGE) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
words = st.sampled_from(TEXTS) | st.text(max_size=12)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def damaged(draw: st.DrawFn, sound: Sequence[bytes]) -> bytes:
    """A sound file with bytes changed, cut out, put in, repeated, or with its end or beginning missing."""
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 8, 64]))
        how = draw(st.sampled_from(["change", "number", "cut", "put", "repeat", "end", "beginning"]))
        if how == "change":
            data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == "number":  # where a size or an offset may stand
            data[place : place + 4] = (draw(st.sampled_from(HUGE)) & 0xFFFFFFFF).to_bytes(4, "little")
        elif how == "cut":
            del data[place : place + length]
        elif how == "put":
            data[place:place] = draw(st.binary(max_size=length))
        elif how == "repeat":
            data[place:place] = data[place : place + length] * 3
        elif how == "end":
            del data[place:]
        else:
            del data[:place]
    return bytes(data)


@st.composite
def spoiled(draw: st.DrawFn, sound: Sequence[bytes]) -> bytes:
    """A sound JSON object in which some values, at any depth, are others."""
    tree = json.loads(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 3))):
        place = tree
        while True:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or draw(st.booleans()):
                place[key] = draw(json_values)
                break
            place = inner
    return json.dumps(tree).encode()


def messages(sound: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Whatever may arrive where a message is expected: sound, spoiled, damaged, anything."""
    anything = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
    return st.one_of(st.sampled_from(sound), spoiled(sound), damaged(sound), anything)
