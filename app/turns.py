"""One worker is one event loop: whoever has worked for a while gives the others their turn.

Greenlets change only where they wait. Work that never waits (requests that lie ready, an upstream that sends without
pause) would hold all the streams of its worker up, keep every gevent.Timeout from firing, and at last the heartbeat.
"""

from __future__ import annotations

import gc
from collections import deque
from time import monotonic
from typing import Any

from gevent import get_hub
from gevent.hub import Waiter

EVERY_S = 0.01

_last = 0.0


def give_turn() -> None:
    """Lets the others work if somebody has worked for EVERY_S since the last turn. Call it where work goes round."""
    global _last
    if monotonic() - _last < EVERY_S:
        return
    hub = get_hub()
    queue: _Queue | None = getattr(hub, "dragoman_turns", None)
    if queue is None:
        queue = hub.dragoman_turns = _Queue(hub.loop)
    queue.wait()
    _last = monotonic()


class _Queue:
    """Of the greenlets that have worked for a while one goes on in each round of the loop, behind all those for whom
    something has arrived. gevent.sleep(0) lets nobody look for what has arrived, and a plain timer comes before it:
    whoever sleeps so gives every second turn to himself."""

    def __init__(self, loop: Any) -> None:
        self._waiting: deque[Any] = deque()
        self._timer = loop.timer(0, priority=loop.MINPRI)

    def wait(self) -> None:
        waiter = Waiter()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._timer.start(self._next)
        waiter.get()

    def _next(self) -> None:
        waiter = self._waiting.popleft()
        if self._waiting:
            self._timer.start(self._next)
        waiter.switch(None)


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
