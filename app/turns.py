"""One worker is one event loop: whoever has worked for a while gives the others their turn.

Greenlets change only where they wait. Work that never waits (requests that lie ready, an upstream that sends without
pause) would hold all the streams of its worker up, keep every gevent.Timeout from firing, and at last the heartbeat.
"""

from __future__ import annotations

import gc
from time import monotonic

import gevent

EVERY_S = 0.01
_AS_SOON_AS_POSSIBLE_S = 1e-9
"""Not 0: gevent goes fifty times round those who sleep so before it looks for what has arrived."""

_last = 0.0


def give_turn() -> None:
    """Lets the others work if somebody has worked for EVERY_S since the last turn. Call it where work goes round."""
    global _last
    if monotonic() - _last >= EVERY_S:
        gevent.sleep(_AS_SOON_AS_POSSIBLE_S)
        _last = monotonic()


class _WithoutCollector:
    """Around work that may make hundreds of thousands of objects, which are all in use: each time it looks for garbage
    among them, Python's collector holds everybody up for a tenth of a second."""

    _at_work = 0

    def __enter__(self) -> None:
        self._at_work += 1
        gc.disable()

    def __exit__(self, *_: object) -> None:
        self._at_work -= 1
        if not self._at_work:
            gc.enable()


without_collector = _WithoutCollector()
