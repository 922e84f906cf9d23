"""Which connection answers: one attempt on each, in order, until one does or the request itself is at fault."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app.errors import IntegrationDisabled, ServiceUnavailable, UpstreamError
from app.settings import Settings
from app.storage.config import ConfigSnapshot, Connection
from app.translate.request import Translation
from app.upstream.client import Limits, Reply, UpstreamClient
from app.upstream.transport import Urllib3Transport

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3


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
        self,
        connections: Sequence[Connection],
        translate: Callable[[Connection], Translation],
        *,
        stream: bool,
        deadline_s: float,
        idle_s: float,
    ) -> Reply:
        """The first answer to be had; with `stream` its events are still to be read. Raises UpstreamError."""
        ends_at = time.monotonic() + deadline_s
        failures: list[tuple[Connection, UpstreamError]] = []
        for connection in connections[:MOST_ATTEMPTS]:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                break
            translation = translate(connection)
            limits = Limits(min(left_s, connection.timeout_s or left_s), idle_s)
            try:
                return self._send(connection, translation, stream, limits)
            except UpstreamError as error:
                if not may_succeed_elsewhere(error):
                    raise
                log.warning("%s failed: %s %s", label(connection), error.status, error.code)
                failures.append((connection, error))
        raise all_failed(failures)

    def _send(self, connection: Connection, translation: Translation, stream: bool, limits: Limits) -> Reply:
        client = self.client(connection)
        if stream or not translation.may_run_long:
            return client.send(translation, stream=stream, limits=limits)
        # A long answer as one JSON body would leave the way silent for minutes; proxies close such connections.
        reply = client.send(translation, stream=True, limits=limits)
        try:
            reply.accumulate()
        finally:
            reply.close()
        return reply


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
