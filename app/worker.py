"""gunicorn's gevent worker: it cuts nothing off silently when it stops, and its own answers are OpenAI's envelope."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import Any

import gevent
import orjson
from gunicorn import util  # type: ignore[import-untyped]  # gunicorn comes without types
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]  # as above

from app import worker_state
from app.errors import GatewayError, InvalidRequest
from app.upstream.waiting import ClientWatch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
LAST_WORDS_S = 2.0
"""Before the master kills its workers: time for each running answer to say that it ends."""


class Worker(GeventWorker):  # type: ignore[misc]  # as above
    max_requests: int
    _replace_after = sys.maxsize

    def init_process(self) -> None:
        util.write_error = write_error  # handle_error(), where all that is wrong with a request ends, calls it there
        if self.cfg.workers == 1:
            self._replace_after, self.max_requests = self.max_requests, sys.maxsize
        super().init_process()

    def run(self) -> None:
        gevent.spawn(self._end_in_time)
        super().run()

    def handle_request(self, *arguments: Any) -> Any:
        try:
            return super().handle_request(*arguments)  # raises StopIteration to close the connection
        finally:
            if self.nr >= self._replace_after:
                self._replace_after = sys.maxsize
                # gunicorn would start a successor only when this worker, the only one, has finished its last stream.
                log.info("%d requests: asking for a successor", self.nr)
                os.kill(self.ppid, signal.SIGHUP)

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
