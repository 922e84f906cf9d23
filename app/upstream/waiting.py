"""Waiting for the upstream without forgetting the client, nor that the process may have to stop.

gunicorn tells nobody that a client has left while nothing is written to it. Under gevent its socket can be watched: the
watch throws ClientGone into the request's greenlet, which unwinds and so closes the upstream. Arm it only around waits
for the upstream; a throw into a database driver would leave its connection unusable.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import gevent
from gevent import GreenletExit, monkey

from app.errors import ServiceUnavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_POLL_S = 1.0
_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class ClientGone(GreenletExit):  # type: ignore[misc]  # gevent comes without types here
    """The client closed its connection. A GreenletExit, so that gunicorn writes no error page into the stream."""


class Stopping(ServiceUnavailable):
    """The process stops before this answer could be finished."""

    code = "gateway_stopping"

    def __init__(self) -> None:
        super().__init__(
            "The gateway is being restarted and could not wait for this answer any longer. Send the request again.",
            headers={"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "true"},
        )


class ClientWatch:
    """`with watch:` around a wait; ClientGone, or Stopping, is thrown into it. Does nothing where the server gives no
    socket or runs without gevent."""

    _all: ClassVar[set[ClientWatch]] = set()
    _is_stopping: ClassVar[bool] = False

    @classmethod
    def end_all(cls) -> int:
        """The process must stop now: every wait ends with Stopping, those that are still to come, too. Answers how
        many there are."""
        cls._is_stopping = True
        for watch in cls._all:
            gevent.get_hub().loop.run_callback(watch._stop)
        return len(cls._all)

    @classmethod
    def are_none(cls) -> bool:
        """Whether no answer is waited for."""
        return not cls._all

    def __init__(self, environ: WSGIEnvironment) -> None:
        found = environ.get("gunicorn.socket") if monkey.is_module_patched("socket") else None
        self._socket: Any = found
        self._greenlet: Any = None
        self._watcher: Any = None
        self._timer: Any = None

    def __enter__(self) -> ClientWatch:
        if self._is_stopping:
            raise Stopping
        if self._socket is not None:
            self._greenlet = gevent.getcurrent()
            self._all.add(self)
            if self._timer is None:
                self._watcher = self._watcher or gevent.get_hub().loop.io(self._socket.fileno(), 1)
                self._watcher.start(self._readable)
            else:
                self._timer.start(self._poll)
        return self

    def __exit__(self, *_: object) -> None:
        self._all.discard(self)
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()

    def _stop(self) -> None:
        if self in self._all:  # it may have got what it waited for meanwhile
            self._greenlet.throw(Stopping())

    def _readable(self) -> None:
        try:
            gone = not self._raw().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._greenlet.throw(ClientGone())
            return
        # The next request of the same client lies there already and hides the end: look for that now and then.
        self._watcher.stop()
        self._timer = gevent.get_hub().loop.timer(_POLL_S, _POLL_S)
        self._timer.start(self._poll)

    def _poll(self) -> None:
        poll = monkey.get_original("select", "poll")()  # gevent's would wait, which the hub may not
        poll.register(self._socket.fileno(), select.POLLRDHUP)
        if any(event & _HUNG_UP for _, event in poll.poll(0)):
            self._greenlet.throw(ClientGone())

    def _raw(self) -> Any:
        """The plain socket beneath gevent's, which would wait."""
        return getattr(self._socket, "_sock", self._socket)

    def close(self) -> None:
        """Frees the watchers; call when the request is over."""
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.close()
        self._watcher = self._timer = self._socket = None


def is_silent_and_open(descriptor: int) -> bool:
    """Of a socket: nothing is there to be read, and the other side has not closed it."""
    poll = monkey.get_original("select", "poll")()  # gevent's would wait, which the hub may not
    poll.register(descriptor, select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


T = TypeVar("T")


def spawn(function: Callable[..., object], *args: Any) -> Any:
    """As gevent's, for a greenlet that may be killed. gevent would keep the exception, and with it each frame, which
    lead back to whoever holds the greenlet: a circle with all of the request."""

    def run() -> None:
        with suppress(gevent.GreenletExit):
            function(*args)

    return gevent.spawn(run)


class Task(Generic[T]):
    """A function that runs in a greenlet of its own, so that its wait can be left and taken up again.

    What it returns goes to whoever asks for the result; if nobody does any more, to `discard`.
    """

    def __init__(self, function: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._outcome: tuple[T | None, Exception | None] | None = None
        self._discard = discard
        self._is_abandoned = False
        self._greenlet = spawn(self._run, function)

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self._outcome = (function(), None)
        except Exception as error:  # noqa: BLE001  # handed to whoever waits; gevent would print it
            self._outcome = (None, error)
        if self._is_abandoned:
            self._discard_outcome()

    def result(self, watch: ClientWatch, timeout_s: float | None) -> T:
        """What the function returned or raised. TimeoutError after `timeout_s` (None: never): it goes on, wait again.

        When this wait is given up in any other way (ClientGone), the function is stopped.
        """
        try:
            with watch:
                self._greenlet.join(timeout_s)
        except BaseException:
            self.cancel()
            raise
        if self._outcome is None:
            raise TimeoutError
        value, error = self._outcome
        if error is not None:
            # A cycle of error, frame and task would keep the whole request until the next collection.
            self._outcome = (None, None)
            try:
                raise error
            finally:
                del error
        return value  # type: ignore[return-value]  # there is a value where there is no error

    def cancel(self) -> None:
        """For one whose result was not taken."""
        self._is_abandoned = True
        if self._outcome is None:
            self._greenlet.kill(block=False)
        else:
            self._discard_outcome()

    def _discard_outcome(self) -> None:
        value = self._outcome[0] if self._outcome else None
        self._outcome = (None, None)  # an error that nobody takes would lead back here
        if value is not None:
            self._discard(value)
