"""The policy file, read and checked: TOML with the tables ``[rules]``, ``[processor]`` and ``[power]``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from device_runtime.policy.processor import Processor
from device_runtime.policy.rules import Rules
from device_runtime.power.survey import PowerSettings
from mas_edge.protocol.errors import DeviceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 64 * 1024  # three small tables


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the owner says; without a file, nothing is asked for."""

    rules: Rules = Rules()
    processor: Processor = Processor()
    power: PowerSettings = PowerSettings()


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        DeviceError: it cannot be read, is no TOML, or says something that is not known.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"policy file {path} cannot be read: {error.strerror}; leave --policy out, or name the file"
        raise DeviceError(message) from None
    if len(data) > MAX_BYTES:
        message = f"policy file {path} is larger than {MAX_BYTES} bytes; expected three small tables"
        raise DeviceError(message)
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), Policy)
    except msgspec.ValidationError as error:
        problem = _in_plain_words(str(error))
    except UnicodeDecodeError:
        problem = "is no text in UTF-8"
    except (ValueError, RecursionError) as error:
        problem = f"is no TOML: {str(error).partition(chr(10))[0][:300]}"
    except DeviceError as error:
        problem = str(error)
    message = f"policy file {path}: {problem}"
    raise DeviceError(message)


def _in_plain_words(text: str) -> str:
    """Turn msgspec's "Object contains unknown field `x` - at `$.rules`" into the key and what is allowed."""
    problem, _, where = text.partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    if "unknown field" in problem:
        table = next((each for each in msgspec.structs.fields(Policy) if each.name == where), None)
        allowed = ", ".join(table.type.__struct_fields__ if table else Policy.__struct_fields__)
        return f"unknown key {problem.split('`')[1]!r}{f' in [{where}]' if where else ''}; allowed there: {allowed}"
    return f"{where or 'the file'}: {problem[0].lower()}{problem[1:].replace('`', '')}"
