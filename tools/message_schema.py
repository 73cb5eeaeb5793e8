"""The contract for devices that are not written in Python, made from the types that the code checks with.

python tools/message_schema.py > messages.schema.json   # the JSON Schema of every control message
python tools/message_schema.py --asyncapi               # the AsyncAPI document: docs/protocol/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, get_args

import msgspec

from mas_edge.protocol.messages import (
    MAX_MESSAGE_BYTES,
    Ack,
    AnyMessage,
    Birth,
    Cancel,
    Commit,
    FromDevice,
    FromOrchestrator,
    Offer,
    OrchestratorState,
    Plan,
    Rebirth,
    Receipt,
    Refusal,
    SignedPlan,
    Status,
    Want,
)
from mas_edge.protocol.topics import NAME, Topics

# Leaf, from the device or to it, what it carries, retained, QoS. No message types: frames of bytes.
_OF_DEVICE = (
    ("birth", "send", (Birth,), True, 1),
    ("status", "send", (Status,), True, 1),
    ("command", "receive", (Plan, SignedPlan, Want, Receipt, Cancel), False, 1),
    ("response", "send", (Ack, Refusal, Want, Offer, Commit), False, 1),
    ("chunk", "receive", (), False, 0),
    ("upload", "send", (), False, 0),
)
_OF_ALL = (
    ("commandAll", Topics.command_all, (Rebirth,), False, 1),
    ("orchestrator", Topics.orchestrator, (OrchestratorState,), True, 1),
)
_FRAME = "Chunk"


def schema(reference: str = "#/$defs/{name}") -> dict[str, Any]:
    """One definition a message and part of a message, under ``$defs``; a message is any one of them with a ``type``."""
    messages = sorted(get_args(AnyMessage), key=lambda message: str(message.__name__))
    one_of, definitions = msgspec.json.schema_components(messages, ref_template=reference)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mas-edge control messages, version 1",
        "oneOf": list(one_of),
        "$defs": definitions,
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of a device: what it sends and receives, on which topics, and of what form.

    The words of ``docs/protocol/README.md`` (order, repeats, states) are no part of it: AsyncAPI has no form for them.
    """
    channels = {name: _channel(address, messages) for name, address, messages in _addresses()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "mas-edge device",
            "version": "1",
            "description": (
                "The wire contract between an orchestrator and the devices of a fleet, as a device sees it. MQTT 5 or "
                f"3.1.1; control messages are JSON of at most {MAX_MESSAGE_BYTES} bytes. States, repeats and files: "
                "README.md beside this file; byte-exact examples: the folder vectors."
            ),
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(),
        "components": {
            "messages": {name: _message(name) for name in _message_names()},
            "schemas": schema("#/components/schemas/{name}")["$defs"],
        },
    }


def _addresses() -> list[tuple[str, str, list[str]]]:
    """Every channel: its name, its topic with parameters, and its messages."""
    topics, artifact = Topics("F"), "a" * 64
    device = [(leaf, getattr(topics, leaf)("D"), _names(messages)) for leaf, _, messages, _, _ in _OF_DEVICE]
    every = [
        (name, str(prop.fget(topics) if prop.fget else ""), _names(messages)) for name, prop, messages, _, _ in _OF_ALL
    ]
    found = [*device, *every, ("broadcast", topics.broadcast(artifact), [_FRAME])]
    levels = {"F": "{fleet}", "D": "{device}", artifact[:32]: "{artifact}"}
    return [(n, "/".join(levels.get(level, level) for level in topic.split("/")), m) for n, topic, m in found]


def _names(messages: tuple[type[Any], ...]) -> list[str]:
    return [message.__name__ for message in messages] or [_FRAME]


def _channel(address: str, messages: list[str]) -> dict[str, Any]:
    name = f"a name, {NAME.pattern}"
    told = {"fleet": name, "device": name, "artifact": "the first 32 hex digits of the artifact's sha256"}
    return {
        "address": address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "parameters": {key: {"description": text} for key, text in told.items() if f"{{{key}}}" in address},
    }


def _operations() -> dict[str, Any]:
    of_all = [(name, "receive", retained, qos) for name, _, _, retained, qos in _OF_ALL]
    rows = [(leaf, action, retained, qos) for leaf, action, _, retained, qos in _OF_DEVICE]
    return {
        f"{action}{name[0].upper()}{name[1:]}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {"qos": qos, "retain": retained}},
        }
        for name, action, retained, qos in [*rows, *of_all, ("broadcast", "receive", False, 0)]
    }


def _message_names() -> list[str]:
    return [message.__name__ for union in (FromDevice, FromOrchestrator) for message in get_args(union)] + [_FRAME]


def _message(name: str) -> dict[str, Any]:
    if name == _FRAME:
        payload = {"type": "string", "format": "binary", "description": "24 bytes of header, then the data"}
        return {"name": name, "contentType": "application/octet-stream", "payload": payload}
    return {"name": name, "payload": {"$ref": f"#/components/schemas/{name}"}}


if __name__ == "__main__":
    print(json.dumps(asyncapi() if "--asyncapi" in sys.argv[1:] else schema(), indent=2))
