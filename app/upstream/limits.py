"""How long a call may take."""

from __future__ import annotations

from dataclasses import dataclass

KEEP_ALIVE_S = 10.0
"""After so long without a word a stream gives a sign of life."""


@dataclass(frozen=True)
class Limits:
    """Seconds: until the first event (or a whole JSON answer), and between two events."""

    first_event_s: float
    idle_s: float

    @property
    def longest_s(self) -> float:
        """Of one read: that of all reads until the first event is gevent's, and between events Reply's."""
        return max(self.first_event_s, self.idle_s)
