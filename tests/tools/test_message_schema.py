from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

from mas_edge.protocol.messages import AnyMessage
from tests.docs.pages import ROOT


def test_the_schema_has_every_message_with_its_type_word_and_its_required_fields() -> None:
    command = [sys.executable, str(ROOT / "tools" / "message_schema.py")]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    definitions = {ref["$ref"].removeprefix("#/$defs/"): ref for ref in printed["oneOf"]}
    assert definitions.keys() == {message.__name__ for message in get_args(AnyMessage)}
    for message in get_args(AnyMessage):
        found = printed["$defs"][message.__name__]
        assert found["properties"]["type"]["enum"] == [message.__struct_config__.tag]
        assert {"type", "sender", "boot_id", "seq"} <= set(found["required"])
        assert set(message.__struct_fields__) == found["properties"].keys() - {"type"}
