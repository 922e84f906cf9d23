"""When a worker looks for circles among all that it holds.

Python does so by itself whenever so many objects were made, in whatever thread that happens: while a large request is
made into objects it looks through all of them again and again, and for up to 113 ms nobody else had a turn. A worker
looks in moments in which there is little to look through. Nothing that it does is known to leave many circles.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevent import Greenlet

_LOOKS_EVERY_S = 0.2
_EVERY_S = (0.0, 2.0, 30.0)
"""The objects of each generation, together with the younger ones."""
_FEW = (20_000, 20_000, 60_000)
"""To look through so many took up to 10 ms, and 30."""
_WAITS_S = 30.0


def begin() -> None:
    """What is there now will live on: no collection looks at it again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def watch() -> Greenlet[..., None]:
    """Until it is killed, this process collects here alone."""
    import gevent

    collect = Collecting()

    def forever() -> None:
        gc.disable()
        try:
            while True:
                gevent.sleep(_LOOKS_EVERY_S)
                collect()
        finally:
            gc.enable()

    return gevent.spawn(forever)


class Collecting:
    """Call it some times a second."""

    def __init__(self) -> None:
        self._done_at = [time.monotonic()] * len(_EVERY_S)

    def __call__(self) -> None:
        now = time.monotonic()
        due = max(n for n, every_s in enumerate(_EVERY_S) if now - self._done_at[n] >= every_s)
        if _held(due) <= _FEW[due]:
            gc.collect(due)
            self._done_at[: due + 1] = [now] * (due + 1)
            if due == 2 and _held(due) > _FEW[due] // 2:  # they have come to stay, as what libraries keep
                gc.freeze()
        elif now - self._done_at[0] >= _WAITS_S:  # what is there all the time is never looked at
            gc.freeze()
            self._done_at = [now] * len(_EVERY_S)


def _held(generation: int) -> int:
    """Objects of a generation and of the younger ones; gc.get_count() does not say it, where older ones have gone."""
    return sum(len(gc.get_objects(generation=each)) for each in range(generation + 1))
