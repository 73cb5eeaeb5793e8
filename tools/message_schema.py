"""The JSON Schema of every control message, for devices that are not written in Python.

python tools/message_schema.py > messages.schema.json
"""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec

from mas_edge.protocol.messages import AnyMessage


def schema() -> dict[str, Any]:
    """One definition a message and part of a message, under ``$defs``; a message is any one of them with a ``type``."""
    messages = sorted(get_args(AnyMessage), key=lambda message: str(message.__name__))
    one_of, definitions = msgspec.json.schema_components(messages, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mas-edge control messages, version 1",
        "oneOf": list(one_of),
        "$defs": definitions,
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
