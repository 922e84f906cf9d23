"""gunicorn's gevent worker: when it stops it cuts no client off silently that still listens, and its own answers are
OpenAI's envelope."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import gevent
import orjson
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket
from gunicorn import util  # type: ignore[import-untyped]  # gunicorn comes without types
from gunicorn.workers import ggevent  # type: ignore[import-untyped]  # as above

from app.errors import GatewayError, InvalidRequest, RequestTimeout
from app.serve import worker_state
from app.turns import give_turn
from app.upstream.waiting import ClientWatch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
_CLIENT_OPTIONS = (
    (socket.TCP_USER_TIMEOUT, 120_000),  # ms: one that takes nothing in for so long is not there, or does not read
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
)
_SKIPPED_AT_ONCE = 256 * 1024
_MOST_SKIPPED = 64 * 1024 * 1024
_SKIPPED_WITHIN_S = 5.0
_LINGERS_S = 60.0
_MOST_LINGERED = 256 * 1024 * 1024
SLOW_BODY_S = 20.0
LEAST_OF_BODY = 64 * 1024
"""Bytes of a body that must come within SLOW_BODY_S; who is slower holds what has come without end."""
LAST_WORDS_S = 2.0
"""Before the master kills its workers: time for each running answer to say that it ends."""


class Worker(ggevent.GeventWorker):  # type: ignore[misc]  # as above
    max_requests: int
    _replace_after = sys.maxsize

    def init_process(self) -> None:
        ggevent.StreamServer = _Server
        util.write_error = write_error  # handle_error(), where all that is wrong with a request ends, calls it there
        util.http_date = http_date
        if self.cfg.workers == 1:
            self._replace_after, self.max_requests = self.max_requests, sys.maxsize
        super().init_process()

    def run(self) -> None:
        self._listeners = {listener: _Listener(listener.getsockname()) for listener in self.sockets}
        gevent.spawn(self._end_in_time)
        super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        own = _ClientSocket(client.family, client.type, client.proto, fileno=client.detach())
        with suppress(OSError):  # a socket of another kind, or one that is gone already
            for option, value in _CLIENT_OPTIONS:
                own.setsockopt(socket.IPPROTO_TCP, option, value)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        super().handle(self._listeners[listener], own, addr)

    def handle_request(self, listener_name: str, req: Any, sock: Any, addr: Any) -> None:
        give_turn(is_large=_declared_length(req) >= LEAST_OF_BODY)  # requests may lie ready one behind the other
        sock.expect_body()
        try:
            is_to_be_closed = False
            try:
                # Not GeventWorker's, which goes on to the next request when a client that has left ended this one.
                super(ggevent.GeventWorker, self).handle_request(listener_name, req, sock, addr)
            except StopIteration:  # as the client asked for, or the answer says
                is_to_be_closed = True
            if not self._skip_rest_of(req):
                sock.linger()
                is_to_be_closed = True
            if is_to_be_closed:
                raise StopIteration
        except (gevent.GreenletExit, SystemExit) as end:
            end.__traceback__ = None  # Flask keeps it in a frame that it leads to: a circle with all of the request
            raise StopIteration from None
        finally:
            sock.expect_head()
            if self.nr >= self._replace_after:
                self._replace_after = sys.maxsize
                # gunicorn would start a successor only when this worker, the only one, has finished its last stream.
                log.info("%d requests: asking for a successor", self.nr)
                os.kill(self.ppid, signal.SIGHUP)

    def _skip_rest_of(self, req: Any) -> bool:
        """Of a body that was refused: whether its end was found. gunicorn would look for it in steps of a kilobyte, at
        40 ms of CPU for each megabyte."""
        if getattr(req.body.reader, "length", None) == 0:
            return True
        skipped = 0
        with gevent.Timeout(_SKIPPED_WITHIN_S, False), suppress(Exception):  # one that cannot be read is marked so
            while skipped < _MOST_SKIPPED:
                piece = req.body.read(_SKIPPED_AT_ONCE)
                if not piece:
                    return True
                skipped += len(piece)
        return False

    def _end_in_time(self) -> None:
        """gunicorn lets running requests finish for graceful_timeout, and then cuts them off."""
        while self.alive:
            gevent.sleep(LOOK_EVERY_S)  # a signal handler sets it, which may wake nobody
        noticed = time.monotonic()
        worker_state.is_stopping = True
        allowed_s = float(self.cfg.graceful_timeout)
        gevent.sleep(allowed_s - min(LAST_WORDS_S, allowed_s / 2) - LOOK_EVERY_S - (time.monotonic() - noticed))
        ended = ClientWatch.end_all()
        if ended:
            log.warning("%d answers could not be finished in time and end with an error", ended)


def _declared_length(req: Any) -> int:
    """Of a body; 0 of one in chunks."""
    return getattr(req.body.reader, "length", 0)


class _Listener:
    """What a request asks of its listening socket, which may be closed before the request's turn comes."""

    def __init__(self, name: Any) -> None:
        self._name = name

    def getsockname(self) -> Any:
        return self._name


class _ClientSocket(GeventSocket):  # type: ignore[misc]  # gevent comes without types here
    """One system call for what fits into the kernel's buffer, as nearly all does; gevent asks for the buffer's size
    each time. What is received makes progress, or the client is told that it does not."""

    _window_ends = 0.0
    """When the least of a body must have come, in monotonic seconds; 0 while none is expected."""
    _received = 0
    """Bytes of the body within the window."""

    def expect_body(self) -> None:
        """From now on, until the next request, what is received is a request's body."""
        self._window_ends = time.monotonic() + SLOW_BODY_S
        self._received = 0

    def expect_head(self) -> None:
        self._window_ends = 0.0
        self._received = 0

    def linger(self) -> None:
        """The answer is out and more of the body still comes. Many clients read no answer before they have sent all,
        and closing now would reset the connection, which takes the answer away from all others too."""
        with gevent.Timeout(_LINGERS_S, False), suppress(OSError, RequestTimeout):
            self.shutdown(socket.SHUT_WR)
            left = _MOST_LINGERED
            while left > 0 and (data := self.recv(_SKIPPED_AT_ONCE)):
                left -= len(data)

    def recv(self, *args: Any) -> bytes:
        give_turn(is_large=self._received >= LEAST_OF_BODY)  # what has arrived already is received without a wait
        if not self._window_ends:
            head: bytes = super().recv(*args)
            return head
        now = time.monotonic()
        if now > self._window_ends:
            if self._received < LEAST_OF_BODY:
                raise _too_slow()
            self.expect_body()
        try:
            data: bytes = self._sock.recv(*args)
        except BlockingIOError:
            with gevent.Timeout(self._window_ends - now, _too_slow()):
                data = super().recv(*args)
        self._received += len(data)
        return data

    def sendall(self, data: bytes, flags: int = 0) -> None:
        try:
            try:
                sent = self._sock.send(data, flags)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                super().sendall(memoryview(data)[sent:], flags)
        except TimeoutError as error:  # TCP_USER_TIMEOUT; gunicorn knows this name for a client that is gone
            raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing in") from error


def _too_slow() -> RequestTimeout:
    return RequestTimeout(
        f"The body of your request comes too slowly: less than {LEAST_OF_BODY // 1024} KB in {SLOW_BODY_S:g} seconds.",
        headers={"connection": "close"},
    )


class _Server(StreamServer):  # type: ignore[misc]  # gevent comes without types here
    """Who has been let in by the kernel when the worker stops is served like those before."""

    def close(self) -> None:
        if not self.closed:
            self.stop_accepting()
            with suppress(OSError):
                while (waiting := self.do_read()) is not None:
                    self.do_handle(*waiting)
        super().close()


def http_date(timestamp: float | None = None) -> str:
    """gunicorn's, which makes it anew for each answer: that of a second is the same."""
    return _http_date(int(time.time() if timestamp is None else timestamp))


@lru_cache(1)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, localtime=False, usegmt=True)


def write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Answers what cannot be routed: no request line, too many headers, two hosts."""
    error = GatewayError("The gateway failed on this request.")
    if status != 500:
        said = message.strip(" '") or reason
        error = InvalidRequest(said if len(said) <= 200 else f"{said[:200]}…")
    body = orjson.dumps(error.body())
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-Gateway-Request-Id: req_gw_{os.urandom(12).hex()}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin1") + body)
