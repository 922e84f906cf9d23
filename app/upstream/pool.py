"""Which connection answers: one attempt on each, in order, until one does or the request itself is at fault."""

from __future__ import annotations

import hashlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from app.errors import IntegrationDisabled, ServiceUnavailable, UpstreamError, in_one_line
from app.settings import Settings
from app.storage.config import ConfigSnapshot, Connection
from app.upstream.client import UpstreamClient
from app.upstream.health import Out, bare, may_succeed_elsewhere
from app.upstream.limits import Limits
from app.upstream.transport import WayOut

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
NO_CONNECTION = "no_connection"
_IN_VAIN = {"x-should-retry": "false"}
SECOND_ATTEMPT_AFTER_S = 0.25, 0.75
"""Between these, on the only connection there is: what breaks at once is often whole again at once."""
Target = tuple[Connection, str]
"""A connection, and the id that the model has there."""
Failure = tuple[Connection, UpstreamError]
Summary = Callable[[Sequence[Failure]], UpstreamError]
"""What a client is told of the failures of all connections; of none when the time ran out."""
OnAttempt = Callable[[Connection, str], None]
"""Told of each attempt how it went: `answered`, or a status."""


T_co = TypeVar("T_co", covariant=True)


class Request(Protocol[T_co]):
    """A request on its way: how it is made over a connection, and whether a refusal teaches to ask otherwise."""

    @property
    def id(self) -> str:
        """What finds it in the log."""

    def open(self, client: UpstreamClient, limits: Limits) -> T_co:
        """One attempt. Raises UpstreamError."""

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        """Whether open() asks now in a way that may be answered."""

    def answered(self, connection: Connection) -> None:
        """What open() asked of the connection has been answered."""


@dataclass(frozen=True)
class Times:
    """`ends_at`, in monotonic seconds, is when an answer must have begun; `idle_s` may pass between two events."""

    ends_at: float
    idle_s: float


@dataclass(frozen=True)
class Plan:
    """Where to try, in this order, and why not elsewhere."""

    connections: Sequence[Connection]
    left_out: Sequence[Failure] = ()


class Pool:
    """The clients of the configured connections, one each, made anew when a connection's settings change."""

    def __init__(self, settings: Settings, *, on_attempt: OnAttempt = lambda connection, outcome: None) -> None:
        self._way_out = WayOut(settings)
        self._on_attempt = on_attempt
        self._clients: dict[str, UpstreamClient] = {}
        self._configured: dict[str, Connection] = {}

    def client(self, connection: Connection) -> UpstreamClient:
        """Of the connection as it is configured now: a request that began earlier may know its last key."""
        client = self._clients.get(connection.id)
        if client is None:
            made = self.new_client(self._configured.get(connection.id, connection))
            client = self._clients[connection.id] = made
        return client

    def follow(self, connections: Iterable[Connection]) -> None:
        """These are configured from now on: drops the clients of others and of other accounts, renews those of changed
        ones, and closes what lies idle. Call it at each change, and now and then."""
        self._configured = {connection.id: connection for connection in connections}
        for id, client in list(self._clients.items()):
            connection = self._configured.get(id)
            if connection is None or _account(connection) != _account(client.connection):
                del self._clients[id]
                client.transport.close()
            elif connection != client.connection:
                self._clients[id] = UpstreamClient(connection, client.transport, client.health)
            else:
                client.transport.close_idle()

    def new_client(self, connection: Connection) -> UpstreamClient:
        """A client with sockets and a record of its own. Close its transport."""
        return UpstreamClient(connection, self._way_out.transport(connection.base_url))

    def outs(self, connection: Connection) -> list[tuple[str | None, Out]]:
        """What keeps requests from going there: of a model, or (None) of all."""
        client = self._clients.get(connection.id)
        return [] if client is None else client.health.outs(time.monotonic())

    def plan(self, targets: Sequence[Target], size: int = 0, summary: Summary | None = None) -> Plan:
        """Of `targets`, which stand in the order of preference, those that may be asked now: the healthy ones, then
        what failed lately, since what could be answered is not refused; of those at their limit one, now and then, if
        there is nothing else. `size` is the request's, in bytes. Raises UpstreamError, of `summary`'s or all_failed()'s
        making, when none may."""
        now = time.monotonic()
        healthy: list[Connection] = []
        doubtful: list[tuple[bool, float, Connection]] = []
        cooling: list[tuple[Connection, Out]] = []
        for connection, model in targets:
            out = self.client(connection).health.out(model, now)
            if out is None:
                healthy.append(connection)
                if len(healthy) == MOST_ATTEMPTS:
                    break
            elif out.reason == "cooling_down":
                cooling.append((connection, out))
            else:
                doubtful.append((out.reason != "failing", out.until, connection))
        found = healthy + [each[-1] for each in sorted(doubtful, key=lambda each: each[:2])]
        found = found or [connection for connection, out in cooling if out.may_be_tried(size, now)][:1]
        left_out = [(connection, _for_now(out, now)) for connection, out in cooling if connection not in found]
        if not found:
            raise (summary or all_failed)(left_out)
        return Plan(found[:MOST_ATTEMPTS], left_out)

    def open(
        self, request: Request[T_co], plan: Plan, *, stream: bool, times: Times, summary: Summary | None = None
    ) -> T_co:
        """The first answer to be had. The time that is left is shared by the connections where it is that of the first
        event alone, with `stream`. Raises UpstreamError, of `summary`'s or all_failed()'s making when all failed."""
        failures: list[Failure] = []
        try:
            answer = self._first_of(request, plan, failures, stream=stream, times=times)
            if answer is None:
                raise (summary or all_failed)([*failures, *plan.left_out] if failures else [])
            return answer
        finally:
            failures.clear()  # else each error holds the frames that it came through, and they hold each error

    def _first_of(
        self, request: Request[T_co], plan: Plan, failures: list[Failure], *, stream: bool, times: Times
    ) -> T_co | None:
        """None when all have failed."""
        waiting = list(plan.connections)
        may_ask_again = True
        while waiting and (left_s := times.ends_at - time.monotonic()) > 0:
            connection = waiting[0]
            limits = _limits(connection, left_s / len(waiting) if stream else left_s, times)
            try:
                answer = request.open(self.client(connection), limits)
            except UpstreamError as error:
                self._on_attempt(connection, str(error.upstream_status or error.status))
                if not may_succeed_elsewhere(error):
                    if not (may_ask_again and request.learn(connection, error)):
                        raise
                    may_ask_again = False
                    continue
                log.warning(
                    "%s: %s failed (%s): %s",
                    request.id,
                    label(connection),
                    error.upstream_status or error.code,
                    in_one_line(error.message),
                )
                failures.append((connection, error))
                waiting.pop(0)
                if len(plan.connections) == len(failures) == 1 and _may_pass(error):
                    waiting.append(connection)
                    # Nothing tells when an upstream has recovered; a client that leaves meanwhile ends this wait.
                    time.sleep(min(random.uniform(*SECOND_ATTEMPT_AFTER_S), left_s))
            else:
                self._on_attempt(connection, "answered")
                request.answered(connection)
                return answer
        return None


def candidates(snapshot: ConfigSnapshot) -> list[Connection]:
    """The connections in use, best first. Raises IntegrationDisabled, or ServiceUnavailable when there are none."""
    if not snapshot.enabled:
        raise IntegrationDisabled
    enabled = [c for c in snapshot.connections if c.enable]
    if not enabled and snapshot.problems:
        raise ServiceUnavailable(
            f"No Anthropic connection can be used. {' '.join(snapshot.problems)}", code=NO_CONNECTION, headers=_IN_VAIN
        )
    if not enabled:
        raise ServiceUnavailable(
            "No Anthropic connection is configured. Add a key on the admin page (/admin), or with POST /config/update "
            '{"ANTHROPIC_API_KEYS": ["sk-ant-…"]}.',
            code=NO_CONNECTION,
            headers=_IN_VAIN,
        )
    return sorted(enabled, key=lambda c: (c.priority, -c.weight, c.index))


def in_order(targets: Sequence[Target], affinity: bytes) -> list[Target]:
    """By priority, then by weight: `affinity`, which the requests of a conversation share, always finds the same order,
    since prompt caches live per account, and of all conversations a connection comes first for its share by weight.

    Rendezvous hashing: a connection more or less moves no conversation between the others.
    """

    def rank(target: Target) -> tuple[int, float]:
        connection = target[0]
        drawn = hashlib.blake2b(affinity, digest_size=8, key=connection.id.encode()[:64]).digest()
        share = (int.from_bytes(drawn, "big") + 0.5) / 2**64
        return connection.priority, -math.log(share) / connection.weight

    return sorted(targets, key=rank) if len(targets) > 1 else list(targets)


def _account(connection: Connection) -> tuple[Any, ...]:
    return connection.base_url, connection.key, connection.auth, dict(connection.headers)


def _limits(connection: Connection, left_s: float, times: Times) -> Limits:
    return Limits(min(left_s, connection.timeout_s or left_s), times.idle_s)


def _may_pass(error: UpstreamError) -> bool:
    """Whether the same connection may answer a moment later."""
    return error.status >= 500 and error.status != 504 and error.headers.get("x-should-retry") != "false"


def _for_now(out: Out, now: float) -> UpstreamError:
    """The failure that took a connection out, as the answer to a request that comes later."""
    later = bare(out.error)
    _set_wait(later, out.until - now)
    return later


def _set_wait(error: UpstreamError, seconds: float) -> None:
    error.headers["retry-after"] = str(math.ceil(seconds))
    error.headers["retry-after-ms"] = str(math.ceil(seconds * 1000))


def label(connection: Connection) -> str:
    return connection.name or f"connection {connection.index + 1}"


def all_failed(failures: Sequence[Failure]) -> UpstreamError:
    """One failure as it is; of several a summary: 429 with the shortest wait if waiting helps or money is what lacks,
    else 503."""
    if not failures:
        return UpstreamError("The time for this request ran out.", status=504, type="server_error", code="timeout")
    errors = [error for _, error in failures]
    if len({connection.id for connection, _ in failures}) == 1:
        if len(errors) > 1:
            errors[-1].headers["x-should-retry"] = "false"
        return errors[-1]
    told = "; ".join(f"{label(connection)}: {error.message.removesuffix('.')}" for connection, error in failures)
    status, type_, code = _summary({error.code for error in errors})
    summary = UpstreamError(f"No connection could answer. {told}.", status=status, type=type_, code=code)
    waits = [float(e.headers["retry-after-ms"]) / 1000 for e in errors if "retry-after-ms" in e.headers]
    if waits:
        _set_wait(summary, min(waits))
    if code != "rate_limit_exceeded":
        summary.headers["x-should-retry"] = "false"  # this gateway has
    summary.__cause__ = errors[-1]
    return summary


def _summary(codes: set[str | None]) -> tuple[int, str, str]:
    """(status, type, code) of failures with these codes."""
    quota, refused = "insufficient_quota", "upstream_authentication_failed"
    if codes == {quota}:
        return 429, quota, quota
    if codes == {refused}:
        return 503, "server_error", refused
    if codes <= {"rate_limit_exceeded", quota, refused} and "rate_limit_exceeded" in codes:
        return 429, "rate_limit_error", "rate_limit_exceeded"
    return 503, "server_error", "all_connections_failed"
