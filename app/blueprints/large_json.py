"""A body of many megabytes, or of many values, read so that others have their turns meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import orjson

from app.errors import InvalidRequest

MOST_PIECES = 500_000
"""Parsing so many takes up to 60 ms, in which nobody else has a turn; a conversation of 2,000 messages has 30,000."""
_HARMLESS_BYTES = 500_000
_LOOKED_AT_ONCE = 2_000
_COUNTED_AT_ONCE = 4 * 1024 * 1024
_PARSED_AT_ONCE = 512 * 1024
"""Bytes. They take half a millisecond, or ten where they hold many small messages."""
_BETWEEN_MESSAGES = (b'},{"role"', b'}, {"role"')


def check_pieces(raw: bytes, pause: Callable[[], None]) -> None:
    """Raises InvalidRequest for more than MOST_PIECES arrays, objects and their members. What is no JSON may pass."""
    if len(raw) <= _HARMLESS_BYTES:
        return
    most = 0
    for start in range(0, len(raw), _COUNTED_AT_ONCE):
        most += _separators(raw, start, start + _COUNTED_AT_ONCE)
        pause()
    if most <= MOST_PIECES:
        return
    # Many of them may be commas of prose: those in strings do not count.
    pieces, at, rounds = 0, 0, 0
    while True:
        begin = raw.find(b'"', at)
        pieces += _separators(raw, at, begin if begin >= 0 else len(raw))
        if pieces > MOST_PIECES:
            raise InvalidRequest(
                f"The body of your request holds more than {MOST_PIECES:,} JSON values.", code="too_many_values"
            )
        if begin < 0:
            return
        at = _end_of_string(raw, begin + 1)
        rounds += 1
        if rounds % _LOOKED_AT_ONCE == 0:
            pause()


def _separators(raw: bytes, start: int, end: int) -> int:
    return raw.count(b",", start, end) + raw.count(b"[", start, end) + raw.count(b"{", start, end)


def _end_of_string(raw: bytes, at: int) -> int:
    while (end := raw.find(b'"', at)) >= 0:
        first = end
        while first > at and raw[first - 1] == 0x5C:
            first -= 1
        if (end - first) % 2 == 0:  # not escaped
            return end + 1
        at = end + 1
    return len(raw)


def loads(raw: bytes, pause: Callable[[], None]) -> Any:
    """As orjson does, but of many messages some at a time. Raises orjson.JSONDecodeError."""
    if len(raw) > 2 * _PARSED_AT_ONCE:
        body = _loads_by_messages(raw, pause)
        if body is not None:
            return body
    return orjson.loads(raw)


def _loads_by_messages(raw: bytes, pause: Callable[[], None]) -> dict[str, Any] | None:
    """None where it does not work out. Where a string that looks like the end of a message is none, one of the parts
    is no JSON by itself; and where all are, and what is left without them has a place for them among its messages,
    the whole is JSON and means the same."""
    cuts = _cuts(raw, pause)
    pause()
    if len(cuts) < 2:
        return None
    place = os.urandom(16).hex()
    try:
        messages = []
        for start, end in pairwise(cuts):
            messages += orjson.loads(b"[%b]" % raw[start + 1 : end])
            pause()
        body = orjson.loads(b'%b,"%b",%b' % (raw[: cuts[0]], place.encode(), raw[cuts[-1] + 1 :]))
        at = body["messages"].index(place)
    except (ValueError, KeyError, TypeError, AttributeError):  # orjson's error is a ValueError
        return None
    body["messages"][at : at + 1] = messages
    return body if isinstance(body, dict) else None


def _cuts(raw: bytes, pause: Callable[[], None]) -> list[int]:
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
