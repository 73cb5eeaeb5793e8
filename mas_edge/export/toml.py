"""Writing TOML: the standard library only reads it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as a TOML document: text, numbers, booleans, lists, tables and lists of tables; no None.

    Plain values come before tables, as in TOML what follows a table's heading belongs to it.
    """
    return "\n".join(_lines(tree, "")).strip() + "\n"


def _lines(tree: Mapping[str, Any], path: str) -> Iterator[str]:
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping) or _is_tables(value)}
    for key, value in tree.items():
        if key not in tables:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in tables.items():
        place = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            yield from ("", f"[{place}]", *_lines(value, place))
        else:
            for item in value:
                yield from ("", f"[[{place}]]", *_lines(item, place))


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """JSON's escapes are TOML's too, but for the one control character that JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else str(value)
        case str():
            return _text(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():  # in a list beside other values
            return f"{{ {', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())} }}"
    message = f"TOML has no form for {value!r}"
    raise TypeError(message)
