"""TOML as people write it; what would take the reader's memory or stack is refused before it is parsed."""

from __future__ import annotations

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A key of n parts costs the parser n * n / 2 references: one of 30 kilobytes would take gigabytes.
MAX_DOTS = 200
MAX_ERROR = 200  # characters of the parser's own words, which may hold the text itself


def parse_toml(text: str) -> dict[str, Any]:
    """The tree of a TOML text.

    Raises:
        ValueError: it is not TOML; the message is one line.
    """
    if any(part.count(".") > MAX_DOTS for part in re.split(r"[\n,=]", text)):
        message = f"a line holds a key of more than {MAX_DOTS} parts"
        raise ValueError(message)
    try:
        return tomllib.loads(text)
    except RecursionError:
        message = "it has brackets in brackets without end"
        raise ValueError(message) from None
    except ValueError as error:  # also for a number of 5000 digits, which is none of tomllib's own errors
        raise ValueError(str(error)[:MAX_ERROR]) from None
