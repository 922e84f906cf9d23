"""A body of many megabytes, or of many values, read so that others have their turns meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson

_PARSED_AT_ONCE = 512 * 1024
"""Bytes. They take half a millisecond, or ten where they hold many small messages."""
_BETWEEN_MESSAGES = (b'},{"role"', b'}, {"role"')


def loads(raw: bytes | bytearray, pause: Callable[[], None]) -> Any:
    """As orjson does, but of many messages some at a time. Raises orjson.JSONDecodeError."""
    if len(raw) > 2 * _PARSED_AT_ONCE:
        body = _loads_by_messages(raw, pause)
        if body is not None:
            return body
    return orjson.loads(raw)


def _loads_by_messages(raw: bytes | bytearray, pause: Callable[[], None]) -> dict[str, Any] | None:
    """None where it does not work out. Where a string that looks like the end of a message is none, one of the parts
    is no JSON by itself; and where all are, and what is left without them has a place for them among its messages,
    the whole is JSON and means the same."""
    cuts = _cuts(raw, pause)
    pause()
    if len(cuts) < 2:
        return None
    place = os.urandom(16).hex()
    view = memoryview(raw)
    try:
        messages = []
        for start, end in pairwise(cuts):
            messages += orjson.loads(b"".join((b"[", view[start + 1 : end], b"]")))
            pause()
        body = orjson.loads(b"".join((view[: cuts[0]], b',"%b",' % place.encode(), view[cuts[-1] + 1 :])))
        at = body["messages"].index(place)
    except (ValueError, KeyError, TypeError, AttributeError):  # orjson's error is a ValueError
        return None
    body["messages"][at : at + 1] = messages
    return body if isinstance(body, dict) else None


def _cuts(raw: bytes | bytearray, pause: Callable[[], None]) -> list[int]:
    """Where commas between messages seem to stand, _PARSED_AT_ONCE apart."""
    firsts = {}
    for between in _BETWEEN_MESSAGES:
        first = raw.find(between)
        pause()
        if first >= 0:
            firsts[first] = between
    cuts: list[int] = []
    if firsts:
        between = firsts[min(firsts)]
        at = _PARSED_AT_ONCE
        while (found := raw.find(between, at)) >= 0:
            cuts.append(found + 1)
            at = found + _PARSED_AT_ONCE
    return cuts
