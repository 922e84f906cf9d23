"""When a worker looks for circles among all that it holds.

Python does so by itself whenever so many objects were made, in whatever thread that happens: while a large request is
made into objects it looks through all of them again and again, and for up to 113 ms nobody else had a turn. A worker
looks in moments in which there is little to look through, or nobody waits. There is no hurry: few requests leave a
circle, and the largest that is known is a refusal's, of 17 objects.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevent import Greenlet

_LOOKS_EVERY_S = 0.2
_EVERY_S = (0.0, 2.0, 30.0)
"""The objects of each generation, together with the younger ones."""
_FEW = (20_000, 20_000, 60_000)
"""To look through so many took up to 10 ms, and 30."""
_PATIENCE_S = 30.0
_BEARABLE = 100_000
"""Takes 50 ms: when there were never few for so long. Where no answer is under way, all are."""
_TOO_MANY_BLOCKS = 5_000_000
"""Of memory, some 500 MB, since the last full collection: there may be circles after all, and nobody could go on."""


def begin() -> None:
    """What is there now will live on: no collection looks at it again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def watch(is_idle: Callable[[], bool]) -> Greenlet[..., None]:
    """Until it is killed, this process collects here alone. `is_idle` says whether no answer is under way."""
    import gevent

    collect = Collecting(is_idle)

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

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        self._is_idle = is_idle
        self._blocks = sys.getallocatedblocks()
        self._done_at = [time.monotonic()] * len(_EVERY_S)

    def __call__(self) -> None:
        now = time.monotonic()
        for generation in reversed(range(len(_EVERY_S))):
            late_s = now - self._done_at[generation] - _EVERY_S[generation]
            if late_s >= 0 and _are_at_most(self._most(generation, late_s), generation):
                gc.collect(generation)
                self._done_at[: generation + 1] = [now] * (generation + 1)
                if generation == 2:
                    self._blocks = sys.getallocatedblocks()
                if generation == 2 and not _are_at_most(_FEW[2] // 2, 2):  # come to stay, as what libraries keep
                    gc.freeze()
                return

    def _most(self, generation: int, late_s: float) -> int:
        if late_s < _PATIENCE_S:
            return _FEW[generation]
        has_grown = sys.getallocatedblocks() - self._blocks > _TOO_MANY_BLOCKS
        return sys.maxsize if has_grown or self._is_idle() else _BEARABLE


def _are_at_most(most: int, generation: int) -> bool:
    """Objects of a generation and of the younger ones."""
    # So many more were made than went since the last collection, and some that went are older: there are at least as
    # many young ones. To list them takes 30 ms for each million.
    if gc.get_count()[0] > most:
        return False
    held = 0
    for each in range(generation + 1):
        held += len(gc.get_objects(generation=each))
    return held <= most
