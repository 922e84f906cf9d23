"""The access log: a line for each request, when its answer is made; of a stream, when that has ended.

It names route, key and connection by what they are called in metrics and on the pages, and a path that is no route by
itself. Secrets, queries and what was said stand nowhere in it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Protocol

from flask import Flask, Response, g, request

from app.errors import GatewayError
from app.storage.config import Connection

log = logging.getLogger(__name__)
_OFTEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""A balancer and Prometheus ask these all day, and agents what begins with /api/ besides: for LOG_LEVEL=DEBUG."""
_ODD = re.compile(r"[^\x21-\x7e]")
_KEY = re.compile(r"sk-[\w-]+")
_CLIENT_GONE = 499
"""What nginx logs where the client left before there was an answer."""


class Stream(Protocol):
    @property
    def ending(self) -> str: ...

    @property
    def connection(self) -> Connection | None: ...


def init_app(app: Flask) -> None:
    """Call after metrics.init_app(), which notes when a request began. Views set g.model and g.connection, and
    g.stream, a Stream, where the answer is one; whoever renders an error sets g.error, and g.former_key is what a
    refused key once was."""
    if not app.extensions["dragoman"].settings.access_log:
        return

    @app.after_request
    def answered(response: Response) -> Response:
        level = _level()
        if log.isEnabledFor(level):
            noted = vars(_noted())
            stream: Stream | None = noted.get("stream")
            before, caller, began_s = _asked(noted), _caller(noted), noted["began_s"]
            outcome, status = _outcome(noted, response), response.status_code

            # Without the response: that keeps it, and a circle would keep the whole answer until the next collection.
            def write(connection: Connection | None, end: str = "") -> None:
                took_ms = round((time.monotonic() - began_s) * 1000)
                after = f"{caller} connection={_named(connection)}{outcome}{end}"
                log.log(level, f"{before} {status} {took_ms} ms {after}")

            if stream is None:
                write(noted.get("connection"))
            else:  # what is to be closed is closed in this order: the stream knows by then how it ended
                response.call_on_close(lambda: write(stream.connection, f" ended={stream.ending}"))
        return response

    @app.teardown_request
    def unanswered(error: BaseException | None) -> None:
        if error is not None:
            answered(Response(status=_CLIENT_GONE))


def _level() -> int:
    path = request.path
    is_probe = path in _OFTEN or path.startswith("/api/") or (path == "/" and request.method == "HEAD")
    return logging.DEBUG if is_probe else logging.INFO


def _noted() -> Any:
    """`g` itself: through its proxy each look costs a microsecond."""
    return g._get_current_object()


def _asked(noted: Mapping[str, Any]) -> str:
    route = request.url_rule.rule if request.url_rule else _clean(_KEY.sub("sk-...", request.path))
    return f"{noted.get('request_id', '-')}: {request.method} {route}"


def _caller(noted: Mapping[str, Any]) -> str:
    """Who asked, and for which model."""
    caller = noted.get("caller")
    key = caller.key if caller else None
    who = "session" if caller and caller.username else noted.get("former_key") or "anonymous"
    if key is not None:  # of a key of the environment the id is a hash, and the name its place there
        who = key.name if key.id.startswith("env_") else key.id
    return f"caller={who} model={_clean(noted.get('model'))}"


def _named(connection: Connection | None) -> str:
    if connection is None:
        return "-"
    return f"{_clean(connection.name)}({connection.id})" if connection.name else connection.id


def _outcome(noted: Mapping[str, Any], response: Response) -> str:
    """What went wrong, and what was told beside an answer."""
    warnings = response.headers.get("x-gateway-warnings")
    told = f" warnings={_clean(warnings)}" if warnings else ""
    error: GatewayError | None = noted.get("error")
    if error is not None and response.status_code >= 400:
        told += f" code={_clean(error.code)} param={_clean(error.param)}"
    return told


def _clean(text: str | None) -> str:
    """Others choose it: it makes no lines or fields of its own."""
    return _ODD.sub("?", text[:100]) if text else "-"
