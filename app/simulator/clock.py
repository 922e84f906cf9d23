"""What time it is for threads and caches; tests move it with `POST /_sim/clock {"forward_s": 301}`."""

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds that never go back; their zero means nothing."""

    ahead_s: float = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.ahead_s
