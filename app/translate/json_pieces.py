"""How many values JSON holds: what counts is not its bytes but the objects that reading it makes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.translate.pause import Pause, paced

_COUNTED_AT_ONCE = 4 * 1024 * 1024
_LOOKED_AT_ONCE = 64 * 1024
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


def are_more_than(most: int, raw: bytes | bytearray, pause: Pause) -> bool:
    """Whether it holds more than `most` arrays, objects and their members. What is no JSON may pass, or not."""
    if len(raw) <= most:
        return False
    upper = sum(_separators(raw, *part) for part in paced(_parts(raw), pause))
    return upper > most and _are_more_outside_strings(most, raw, pause)  # they may be commas of prose


def has_more_escapes_than(most: int, raw: bytes | bytearray, pause: Pause) -> bool:
    """Whether more than `most` backslashes stand in it: reading and writing strings costs most where characters are
    escaped."""
    if len(raw) <= most:
        return False
    return sum(raw.count(b"\\", *part) for part in paced(_parts(raw), pause)) > most


def _parts(raw: bytes | bytearray) -> Iterator[tuple[int, int]]:
    return ((start, start + _COUNTED_AT_ONCE) for start in range(0, len(raw), _COUNTED_AT_ONCE))


def _are_more_outside_strings(most: int, raw: bytes | bytearray, pause: Pause) -> bool:
    pieces, strings, at = 0, 0, 0
    while True:
        pause()
        begin = raw.find(b'"', at)
        pieces += _separators(raw, at, begin if begin >= 0 else len(raw))
        strings += 1
        if pieces > most or strings > 2 * most + 2:  # a member is two strings at most
            return True
        if begin < 0:
            return False
        at = _end_of_string(raw, begin + 1, pause)


def _separators(raw: bytes | bytearray, start: int, end: int) -> int:
    return raw.count(b",", start, end) + raw.count(b"[", start, end) + raw.count(b"{", start, end)


def _end_of_string(raw: bytes | bytearray, at: int, pause: Pause) -> int:
    while at < len(raw):
        end = next(_REST_OF_STRING.finditer(raw, at, at + _LOOKED_AT_ONCE)).end()
        if raw[end : end + 1] == b'"':
            return end + 1
        if end == at:  # a backslash is the last of all
            break
        at = end
        pause()
    return len(raw)
