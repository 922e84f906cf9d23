"""Which connection answers: one attempt on each, in order, until one does or the request itself is at fault."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from app.errors import IntegrationDisabled, ServiceUnavailable, UpstreamError
from app.settings import Settings
from app.storage.config import ConfigSnapshot, Connection
from app.translate.request import Translation
from app.upstream.answer import Answer
from app.upstream.client import Limits, Reply, UpstreamClient
from app.upstream.transport import Urllib3Transport

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3


class Request(Protocol):
    """A chat request on its way: what it is for a connection, and whether a refusal teaches to ask otherwise."""

    def translate(self, connection: Connection) -> Translation: ...

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        """Whether translate() makes a request now that may be answered."""

    def answered(self, connection: Connection) -> None:
        """What translate() made for the connection has been answered."""


@dataclass(frozen=True)
class Times:
    """`ends_at`, in monotonic seconds, is when an answer must have begun; `idle_s` may pass between two events."""

    ends_at: float
    idle_s: float


class Pool:
    """The clients of the configured connections, one each, made anew when a connection's settings change."""

    def __init__(self, settings: Settings) -> None:
        self._transport: httpx2.BaseTransport = Urllib3Transport(settings)
        self._clients: dict[str, UpstreamClient] = {}
        self._generation = -1

    def client(self, connection: Connection) -> UpstreamClient:
        client = self._clients.get(connection.id)
        if client is None or client.connection != connection:
            client = self._clients[connection.id] = UpstreamClient(connection, self._transport)
        return client

    def forget_others(self, snapshot: ConfigSnapshot) -> None:
        """Drops the clients of connections that are no longer configured."""
        if snapshot.generation != self._generation:
            self._generation = snapshot.generation
            kept = {connection.id for connection in snapshot.connections}
            self._clients = {id: client for id, client in self._clients.items() if id in kept}

    def trial_client(self, connection: Connection) -> UpstreamClient:
        """A client for a connection that is not (or not yet) configured."""
        return UpstreamClient(connection, self._transport)

    def open(
        self, request: Request, connections: Sequence[Connection], *, stream: bool, whole: bool, times: Times
    ) -> Answer:
        """The first answer to be had. With `stream` Claude is asked for one; with `whole` it has been read to its end,
        otherwise its batches are still to be read. Raises UpstreamError."""
        failures: list[tuple[Connection, UpstreamError]] = []
        may_ask_again = True
        for connection in connections[:MOST_ATTEMPTS]:
            while (left_s := times.ends_at - time.monotonic()) > 0:
                limits = Limits(min(left_s, connection.timeout_s or left_s), times.idle_s)
                try:
                    answer = self._open_one(request, connection, limits, stream=stream, whole=whole, times=times)
                    request.answered(connection)
                    return answer
                except UpstreamError as error:
                    if may_succeed_elsewhere(error):
                        log.warning("%s failed: %s %s", label(connection), error.status, error.code)
                        failures.append((connection, error))
                        break
                    if not (may_ask_again and request.learn(connection, error)):
                        raise
                    may_ask_again = False
        raise all_failed(failures)

    def _open_one(
        self, request: Request, connection: Connection, limits: Limits, *, stream: bool, whole: bool, times: Times
    ) -> Answer:
        client = self.client(connection)
        translation = request.translate(connection)
        # A long answer as one JSON body would leave the way silent for minutes; proxies close such connections.
        is_streamed = stream or translation.may_run_long

        def send(body: dict[str, Any]) -> Reply:
            return client.send(replace(translation, body=body), stream=is_streamed, limits=limits)

        answer = Answer(send(translation.body), send, ends_at=times.ends_at)
        if whole:
            try:
                answer.complete()
            finally:
                answer.close()
        return answer


def candidates(snapshot: ConfigSnapshot) -> list[Connection]:
    """The connections in use, best first. Raises IntegrationDisabled, or ServiceUnavailable when there are none."""
    if not snapshot.enabled:
        raise IntegrationDisabled
    enabled = [c for c in snapshot.connections if c.enable]
    if not enabled:
        raise ServiceUnavailable(
            "No Anthropic connection is configured. Add a key on the admin page (/admin), or with POST /config/update "
            '{"ANTHROPIC_API_KEYS": ["sk-ant-…"]}.',
            code="no_connection",
        )
    return sorted(enabled, key=lambda c: (c.priority, -c.weight, c.index))


def may_succeed_elsewhere(error: UpstreamError) -> bool:
    """Whether another connection could answer: it was this one's key, limit or network, not the request."""
    return error.status >= 500 or error.status == 429


def label(connection: Connection) -> str:
    return connection.name or f"connection {connection.index + 1}"


def all_failed(failures: Sequence[tuple[Connection, UpstreamError]]) -> UpstreamError:
    """One failure as it is; of several a summary: 429 with the shortest wait if all were limits, else 503."""
    if len(failures) == 1:
        return failures[0][1]
    if not failures:
        return UpstreamError("The time for this request ran out.", status=504, type="server_error", code="timeout")
    errors = [error for _, error in failures]
    told = "; ".join(f"{label(connection)}: {error.message}" for connection, error in failures)
    limited = all(error.status == 429 for error in errors)
    summary = UpstreamError(
        f"No connection could answer. {told}",
        status=429 if limited else 503,
        type="rate_limit_error" if limited else "server_error",
        code="rate_limit_exceeded" if limited else "all_connections_failed",
    )
    waits = [float(e.headers["retry-after"]) for e in errors if e.headers.get("retry-after", "").isdigit()]
    if waits:
        summary.headers["retry-after"] = f"{min(waits):g}"
        summary.headers["retry-after-ms"] = f"{min(waits) * 1000:g}"
    if all(error.headers.get("x-should-retry") == "false" for error in errors):
        summary.headers["x-should-retry"] = "false"
    summary.__cause__ = errors[-1]
    return summary
