"""One worker is one event loop: whoever has worked for a while gives the others their turn.

Greenlets change only where they wait. Work that never waits (requests that lie ready, an upstream that sends without
pause) would hold all the streams of its worker up, keep every gevent.Timeout from firing, and at last the heartbeat.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from gevent import get_hub
from gevent.hub import Waiter

EVERY_S = 0.01

_last = 0.0
"""In monotonic seconds, when somebody went on who had waited for a turn: since then nobody may have given one."""
_is_turn_of_others = False
"""Of those that have little to do: see _Queue."""


def give_turn(*, is_large: bool = False) -> None:
    """Lets the others work if somebody has worked for EVERY_S since the last turn. Call it where work goes round.
    What `is_large` has much to do yet: it waits behind all that do nothing but work."""
    global _last
    if monotonic() - _last < EVERY_S and not (is_large and _is_turn_of_others):
        return
    hub = get_hub()
    queue: _Queue | None = getattr(hub, "dragoman_turns", None)
    if queue is None:
        queue = hub.dragoman_turns = _Queue(hub.loop)
    queue.wait(is_large)
    _last = monotonic()


class _Queue:
    """In each round of the loop, behind all those for whom something has arrived, one goes on of those that work
    without an end. Others wait only because somebody had worked when they came, as small requests do: they go on in
    every second round, together, for as long as one may work.

    gevent.sleep(0) lets nobody look for what has arrived, and a plain timer comes before it: whoever sleeps so gives
    every second turn to himself.
    """

    def __init__(self, loop: Any) -> None:
        self._others: deque[Any] = deque()
        self._workers: deque[Any] = deque()
        self._goes_on = False
        """Somebody does who has waited here: if he comes again now, he has done nothing but work."""
        self._is_for_others = True
        self._timer = loop.timer(0, priority=loop.MINPRI)

    def wait(self, is_large: bool) -> None:
        waiter = Waiter()
        (self._workers if is_large or self._goes_on else self._others).append(waiter)
        self._go_round()
        waiter.get()

    def _go_round(self) -> None:
        if not self._timer.active:
            self._timer.start(self._next)

    def _next(self) -> None:
        if self._others and (self._is_for_others or not self._workers):
            self._is_for_others = False
            ends = monotonic() + EVERY_S
            for _ in range(len(self._others)):
                self._let_go_on(self._others)
                if monotonic() >= ends:
                    break
        elif self._workers:
            self._is_for_others = True
            self._let_go_on(self._workers)
        if self._others or self._workers:
            self._go_round()

    def _let_go_on(self, waiting: deque[Any]) -> None:
        global _is_turn_of_others
        self._goes_on = True
        _is_turn_of_others = waiting is self._others
        waiting.popleft().switch(None)  # returns when he waits: here, or for anything else
        self._goes_on = _is_turn_of_others = False
