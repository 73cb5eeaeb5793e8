"""Errors as problem details (RFC 9457): one shape for everything that is refused."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"
_CACHE = "no-store"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """``detail`` is for people: what was expected, what came, what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str = ""


def problem(status: int, detail: str = "", instance: str = "") -> Problem:
    """The problem of an HTTP status, by its registered name."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance)


class RefusedError(Exception):
    """A request that is answered with a problem; ``headers`` go with it."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def body_of(found: Problem) -> tuple[bytes, dict[str, Any]]:
    """Its bytes, and the headers that go with every problem."""
    return msgspec.json.encode(found), {"content-type": MEDIA_TYPE, "cache-control": _CACHE}
