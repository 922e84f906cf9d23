"""How much of requests' bodies a worker holds at once, for each who sends them: they come as slowly as their senders
like, and each may be of MAX_BODY_BYTES."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import TooManyRequests

MOST_AT_ONCE = 8
"""Times MAX_BODY_BYTES, for one key: what a team's program may send at the same moment."""
_SMALL_BYTES = 64 * 1024


class BodiesUnderWay:
    """Of one process."""

    def __init__(self, most_bytes: int) -> None:
        self._most = MOST_AT_ONCE * most_bytes
        self._held: dict[str, int] = {}

    @contextmanager
    def one(self, who: str, size: int) -> Iterator[None]:
        """While a body of up to `size` bytes is received and read. Raises TooManyRequests."""
        if size <= _SMALL_BYTES:
            yield
            return
        held = self._held.get(who, 0)
        if held + size > self._most:
            raise TooManyRequests(
                f"Too many large requests of yours are being received at once: more than {self._most} bytes together. "
                "Send them one after the other.",
                headers={"retry-after": "1", "retry-after-ms": "1000"},
            )
        self._held[who] = held + size
        try:
            yield
        finally:
            left = self._held[who] - size
            if left:
                self._held[who] = left
            else:
                del self._held[who]
