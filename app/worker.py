"""gunicorn's gevent worker; what it answers by itself is OpenAI's envelope too."""

from __future__ import annotations

import os
from typing import Any

import orjson
from gunicorn import util  # type: ignore[import-untyped]  # gunicorn comes without types
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]  # as above

from app.errors import GatewayError, InvalidRequest


class Worker(GeventWorker):  # type: ignore[misc]  # as above
    def init_process(self) -> None:
        util.write_error = write_error  # handle_error(), where all that is wrong with a request ends, calls it there
        super().init_process()


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
