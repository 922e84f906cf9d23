"""One call to Anthropic over one connection: what it answers, or an UpstreamError that says why not."""

from __future__ import annotations

import logging
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import gevent
import httpx2
import orjson

from app.errors import UpstreamError
from app.storage.config import Connection
from app.translate import exact_json
from app.translate.errors import scrubbed, to_upstream_error
from app.translate.headers import to_client_headers
from app.translate.json_depth import is_deeper_than
from app.translate.translation import Translation
from app.turns import give_turn
from app.upstream.dispatch import Dispatch
from app.upstream.events import Event, EventParser, InvalidEvent
from app.upstream.heads import Heads, headers_of
from app.upstream.health import OF_THE_ACCOUNT, Health, may_succeed_elsewhere
from app.upstream.transport import Response, Transport

log = logging.getLogger(__name__)
T = TypeVar("T")
Sources = tuple[tuple[int, ...], ...]

CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 10.0
_DRAINED_WITHIN_S = 0.2
_ERROR_WITHIN_S = 5.0
"""The status says most of what there is to be known."""
_DEEPEST = 200
BETA_HEADER = "anthropic-beta"


@dataclass(frozen=True)
class Limits:
    """Seconds: until the first event (or a whole JSON answer), and between two events."""

    first_event_s: float
    idle_s: float

    @property
    def longest_s(self) -> float:
        """Of one read: that of all reads until the first event is gevent's, and between events Reply's."""
        return max(self.first_event_s, self.idle_s)


class FirstEventTimeout(BaseException):
    """Thrown into the wait for the first event; not an Exception, so that nobody takes it for a failure of his own."""


class UpstreamClient:
    """Of one connection. What is sent is what the SDK would send, and its models are not used: answers are read as raw
    bytes, since typed events cost more and mislabel what is new."""

    def __init__(self, connection: Connection, transport: Transport, health: Health | None = None) -> None:
        self.connection = connection
        self.health = health or Health()
        self.transport = transport
        self._secrets = [connection.key, *(value for value in connection.headers.values() if len(value) >= 4)]
        self._heads = Heads(connection, transport)

    def send(
        self, translation: Translation, *, stream: bool, limits: Limits, dispatch: Dispatch | None = None
    ) -> Reply:
        """Returns once the first event, or the whole of an answer that is not streamed, is there.

        How it went, and how the answer ends, goes into `health`, and what is known of it into `dispatch`.
        """
        dispatch = dispatch or Dispatch(self.connection, str(translation.body["model"]))
        body = exact_json.dumps({**translation.body, "stream": True} if stream else translation.body)
        give_turn()

        def exchange() -> Reply:
            head = self._heads.post("/v1/messages", self._request_headers(translation), limits.longest_s)
            response = self._respond(head, body, limits, translation.reply.message_sources)
            reply = Reply(response, dispatch, translation, limits, self._secrets, self.health)
            try:
                reply.begin(streamed=stream)
            except BaseException:
                reply.close()
                raise
            return reply

        reply = self.attempt(exchange, dispatch, len(body), limits)
        if not stream:
            self.health.completed(dispatch.model)
        return reply

    def attempt(self, exchange: Callable[[], T], dispatch: Dispatch, size: int, limits: Limits) -> T:
        """What `exchange` answers, which sends a request of `size` bytes and returns when its answer has begun. How it
        went goes into `health` and `dispatch`. Raises UpstreamError."""
        self.health.begin(dispatch.model, time.monotonic(), size)
        try:
            begun = self._bounded(exchange, limits.first_event_s)
        except UpstreamError as error:
            dispatch.fail(error)
            if may_succeed_elsewhere(error):
                self.health.failed(dispatch.model, error, time.monotonic(), size)
            raise
        dispatch.begin()
        self.health.began(dispatch.model, time.monotonic(), size)
        return begun

    def _request_headers(self, translation: Translation) -> dict[str, str]:
        """Those of this request; the beta features of the connection's own headers stay on."""
        own = next((value for name, value in self.connection.headers.items() if name.lower() == BETA_HEADER), None)
        betas = translation.headers.get(BETA_HEADER)
        if own and betas:
            return {**translation.headers, BETA_HEADER: f"{own},{betas}"}
        return translation.headers

    def preview(self, translation: Translation, *, stream: bool) -> dict[str, Any]:
        """The request that send() would make; secrets are left out of the headers."""
        standing = {name: value for name, value in headers_of(self.connection).items() if isinstance(value, str)}
        secret = {"x-api-key", "authorization", *(name.lower() for name in self.connection.headers)} - {BETA_HEADER}
        shown = {name: "…" if name in secret else value for name, value in standing.items()}
        if self.connection.auth == "bearer":
            shown["authorization"] = "…"
        return {
            "method": "POST",
            "url": f"{self.connection.base_url}/v1/messages",
            "headers": {**shown, **self._request_headers(translation)},
            "body": {**translation.body, "stream": True} if stream else translation.body,
        }

    def get(self, path: str, *, timeout_s: float, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object of a GET."""
        limits = Limits(timeout_s, timeout_s)

        def exchange() -> dict[str, Any]:
            response = self._respond(self._heads.get(path, params or {}, timeout_s), None, limits, ())
            try:
                return _json_object(response.read_all())
            finally:
                response.close()

        try:
            return self._bounded(exchange, timeout_s)
        except UpstreamError as error:
            if error.code in OF_THE_ACCOUNT:
                self.health.failed("", error, time.monotonic())
            raise

    def _respond(self, head: bytes, body: bytes | None, limits: Limits, sources: Sources) -> Response:
        """With a status of success. Raises UpstreamError for others."""
        connect_s = min(CONNECT_TIMEOUT_S, limits.first_event_s)
        response = self.transport.send(head, body, connect_s=connect_s, read_s=limits.longest_s)
        try:
            if not response.is_success:
                raise self._status_error(response, sources)
            coding = response.headers.get("content-encoding", "identity")
            if coding.lower() != "identity":
                raise not_understood(f"it is compressed ({coding[:20]}), which was not asked for")
        except BaseException:
            response.close()
            raise
        return response

    def _bounded(self, exchange: Callable[[], T], timeout_s: float) -> T:
        timeout = gevent.Timeout(timeout_s, FirstEventTimeout)
        try:
            with timeout:
                return exchange()
        except FirstEventTimeout:
            raise _timed_out(timeout_s) from None
        except httpx2.ConnectTimeout as error:
            raise self._unreachable(error) from error
        except httpx2.TimeoutException as error:
            raise _timed_out(timeout_s) from error
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _status_error(self, response: Response, sources: Sources) -> UpstreamError:
        body = None
        with suppress(ValueError):  # an edge answers in HTML, or breaks off
            body = orjson.loads(response.read_what_comes(_ERROR_WITHIN_S))
        headers = response.headers
        made = to_upstream_error(
            response.status,
            body,
            headers,
            message_sources=sources,
            request_id=headers.get("request-id"),
            secrets=self._secrets,
        )
        made.headers = self._harmless({**to_client_headers(headers, now=datetime.now(UTC)), **made.headers})
        return made

    def _harmless(self, headers: dict[str, str]) -> dict[str, str]:
        """Without what repeats a secret."""
        return {name: value for name, value in headers.items() if scrubbed(value, self._secrets) == value}

    def _unreachable(self, error: Exception) -> UpstreamError:
        host = urllib.parse.urlsplit(self.connection.base_url).netloc
        cause = scrubbed(str(error), self._secrets)
        return UpstreamError(
            f"Anthropic could not be reached at {host}: {cause}",
            status=502,
            type="server_error",
            code="upstream_unreachable",
        )


class Reply:
    """An answer under way. `message` is whole when it was not streamed; otherwise read `batches()`."""

    def __init__(
        self,
        response: Response,
        dispatch: Dispatch,
        translation: Translation,
        limits: Limits,
        secrets: Sequence[str],
        health: Health,
    ) -> None:
        self.dispatch = dispatch
        self.connection = dispatch.connection
        self.translation = translation
        self._health = health
        self.headers = response.headers
        self.is_streamed = True
        self.message: dict[str, Any] = {}
        self._response = response
        self._limits = limits
        self._secrets = secrets
        self._has_begun = False
        self._parser = EventParser()
        self._first: list[Event] = []
        self._has_ended = False

    def begin(self, *, streamed: bool) -> None:
        """Reads up to the first event that is not a ping, or the whole of a JSON answer."""
        self.is_streamed = streamed
        try:
            if not streamed:
                self.message = _json_object(self._response.read_all())
                if self.message.get("type") != "message":
                    raise self._told_error(self.message) or not_understood("it is no message")
                self.dispatch.message = self.message
                return
            while not self._first:
                data = self._response.read()
                if not data:
                    raise self._told_error(_value_of(self._parser.rest)) or _cut_short()
                self._first = [event for event in self._parsed(data) if event.get("type") != "ping"]
            self.dispatch.first = self._first
        except httpx2.TransportError as error:
            raise _disconnected(error) from error
        failed = next((e for e in self._first if e.get("type") == "error"), None)
        if failed is not None:
            raise self._error_event(failed)

    def batches(self) -> Iterator[list[Event]]:
        """The events in the batches they arrived in; an empty one when it is time for a sign of life.

        Raises UpstreamError for an error event, for silence, and for an end that is none (no message_stop).
        """
        model = str(self.translation.body["model"])
        try:
            yield from self._events()
        except UpstreamError as error:
            if may_succeed_elsewhere(error):
                self._health.failed(model, error, time.monotonic())
            raise
        self._health.completed(model)

    def _events(self) -> Iterator[list[Event]]:
        batch = self._first
        heard_at = time.monotonic()
        while True:
            for i, event in enumerate(batch):
                kind = event.get("type")
                if kind == "error":
                    if i:
                        yield batch[:i]
                    raise self._error_event(event)
                if kind == "message_start":
                    self._has_begun = True
                elif kind == "message_stop":
                    if not self._has_begun:
                        raise not_understood("it ends before it begins")
                    self._has_ended = True
                    yield batch[: i + 1]
                    return
            yield batch
            batch = self._read_within(KEEP_ALIVE_S)
            now = time.monotonic()
            if any(event.get("type") != "ping" for event in batch):
                heard_at = now
            elif now - heard_at > self._limits.idle_s:
                raise _silent(self._limits.idle_s)

    def _read_within(self, seconds: float) -> list[Event]:
        """One read; [] when nothing came in time."""
        try:
            data = self._response.read_within(min(seconds, self._limits.idle_s))
        except httpx2.TransportError as error:
            raise _disconnected(error) from error
        return [] if data is None else self._parsed(data)

    def _parsed(self, data: bytes) -> list[Event]:
        if not data:
            raise _cut_short()
        try:
            return self._parser.feed(data)
        except InvalidEvent as error:
            raise not_understood(str(error)) from error

    def _drain(self) -> None:
        """The end of the transfer coding follows the last event at once; read, it leaves the connection usable."""
        ends_at = time.monotonic() + _DRAINED_WITHIN_S
        with suppress(httpx2.TransportError):
            while (left_s := ends_at - time.monotonic()) > 0 and self._response.read_within(left_s):
                pass

    def _told_error(self, value: Any) -> UpstreamError | None:
        """Of an error that relays send as JSON with the status 200."""
        is_error = isinstance(value, dict) and isinstance(value.get("error"), dict)
        return self._error_event(value) if is_error else None

    def _error_event(self, event: Event) -> UpstreamError:
        return to_upstream_error(
            200,
            event,
            {},
            request_id=self.headers.get("request-id"),
            message_sources=self.translation.reply.message_sources,
            secrets=self._secrets,
        )

    def client_headers(self) -> dict[str, str]:
        return to_client_headers(self.headers, now=datetime.now(UTC))

    def close(self) -> None:
        """Ends the call upstream, in whatever state it is. May be called again."""
        if self._has_ended:
            self._has_ended = False
            self._drain()
        self._response.close()


class Understanding:
    """Around the reading of an answer: what is not as Anthropic documents it is the upstream's fault, not ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyError | TypeError | AttributeError | ValueError | IndexError | RecursionError):
            log.warning("an answer could not be read", exc_info=error)
            raise not_understood("it is not as Anthropic's API documents it") from error


understanding = Understanding()


def not_understood(what: str) -> UpstreamError:
    return UpstreamError(
        f"Anthropic's answer could not be read: {what}.",
        status=502,
        type="server_error",
        code="upstream_invalid_response",
    )


def _value_of(raw: bytes) -> Any:
    """None where it is no JSON."""
    try:
        return exact_json.loads(raw.decode())
    except ValueError:
        return None


def _json_object(raw: bytes) -> dict[str, Any]:
    value = _value_of(raw)
    if not isinstance(value, dict):
        raise not_understood("it is not a JSON object")
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST and is_deeper_than(value, _DEEPEST):
        raise not_understood("it is nested too deep")
    return value


def _timed_out(seconds: float) -> UpstreamError:
    return UpstreamError(
        f"Anthropic did not answer within {seconds:g} s.", status=504, type="server_error", code="timeout"
    )


def _silent(seconds: float) -> UpstreamError:
    return UpstreamError(
        f"Anthropic was silent for {seconds:g} s in the middle of its answer.",
        status=504,
        type="server_error",
        code="upstream_timeout",
    )


def _disconnected(error: Exception) -> UpstreamError:
    return UpstreamError(
        f"The connection to Anthropic broke off in the middle of the answer: {scrubbed(str(error))}",
        status=502,
        type="server_error",
        code="upstream_disconnected",
    )


def _cut_short() -> UpstreamError:
    return UpstreamError(
        "Anthropic's answer ended before it was complete.",
        status=502,
        type="server_error",
        code="upstream_disconnected",
    )
