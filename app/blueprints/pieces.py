"""How many JSON values a body may hold: what many small ones cost has little to do with their bytes."""

from __future__ import annotations

from collections.abc import Callable

from app.errors import InvalidRequest

MOST_PIECES = 500_000
"""Parsing so many takes up to 60 ms, in which nobody else has a turn; a conversation of 2,000 messages has 30,000."""
_HARMLESS_BYTES = 500_000
_LOOKED_AT_ONCE = 2_000


def check_pieces(raw: bytes, pause: Callable[[], None]) -> None:
    """Raises InvalidRequest for more than MOST_PIECES arrays, objects and their members. What is no JSON may pass."""
    if len(raw) <= _HARMLESS_BYTES or _separators(raw, 0, len(raw)) <= MOST_PIECES:
        return
    pause()
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
