"""When a process looks for circles among all that it holds.

Python does so by itself whenever a quarter more has come to live long, which a large request makes happen while it is
worked on and all of it is there: a full collection took up to 95 ms, in which nobody else had a turn. Young objects
are looked through as ever; the old ones in a quiet moment.
"""

from __future__ import annotations

import gc
import sys
import time

_NEVER = 2**30
_EVERY_S = 30.0
_AT_THE_LATEST_S = 600.0
"""By then much that is held is held by circles, or by what stays."""
_FEW_BLOCKS = 150_000
"""Of memory, more than there were the last time: to look through them takes up to 30 ms."""
_LONG_S = 0.015


def begin() -> None:
    """What is there now will live on: no collection looks at it again, and none at all that has grown old by itself."""
    gc.enable()
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


class Collecting:
    """Call it now and then."""

    def __init__(self) -> None:
        self._at_rest = sys.getallocatedblocks()
        self._done_at = time.monotonic()

    def __call__(self) -> None:
        since_s = time.monotonic() - self._done_at
        is_quiet = sys.getallocatedblocks() - self._at_rest < _FEW_BLOCKS
        if since_s < (_EVERY_S if is_quiet else _AT_THE_LATEST_S):
            return
        began_s = time.thread_time()
        gc.collect()
        if time.thread_time() - began_s > _LONG_S:  # so much is left that it has come to stay, as what libraries keep
            gc.freeze()
        self._at_rest = sys.getallocatedblocks()
        self._done_at = time.monotonic()
