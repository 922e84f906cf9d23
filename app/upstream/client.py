"""One call to Anthropic over one connection: what it answers, or an UpstreamError that says why not."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import gevent
import httpx2
import orjson

from app.errors import Forwarded, UpstreamError
from app.storage.config import Connection
from app.translate import exact_json
from app.translate.errors import scrubbed, to_upstream_error
from app.translate.headers import to_client_headers, to_relayed_headers
from app.translate.translation import Translation
from app.turns import give_turn
from app.upstream.dispatch import Dispatch
from app.upstream.failures import json_object, not_understood, timed_out
from app.upstream.heads import BETA_HEADER, Heads, headers_of
from app.upstream.health import OF_THE_ACCOUNT, Health, may_succeed_elsewhere
from app.upstream.limits import Limits
from app.upstream.reply import Reply
from app.upstream.transport import Response, Transport

T = TypeVar("T")
Sources = tuple[tuple[int, ...], ...]

CONNECT_TIMEOUT_S = 10.0
_ERROR_WITHIN_S = 5.0
"""The status says most of what there is to be known."""


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

    def relay(
        self, path: str, headers: Mapping[str, str], body: bytes | bytearray, limits: Limits, *, beta: bool
    ) -> Response:
        """The answer to a client's own request, its head read. Raises UpstreamError, and httpx2.TransportError: call it
        from an attempt()."""
        return self._respond(self._heads.relay(path, headers, beta=beta), body, limits, ())

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
                return json_object(response.read_all())
            finally:
                response.close()

        try:
            return self._bounded(exchange, timeout_s)
        except UpstreamError as error:
            if error.code in OF_THE_ACCOUNT:
                self.health.failed("", error, time.monotonic())
            raise

    def _respond(self, head: bytes, body: bytes | bytearray | None, limits: Limits, sources: Sources) -> Response:
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
            raise timed_out(timeout_s) from None
        except httpx2.ConnectTimeout as error:
            raise self._unreachable(error) from error
        except httpx2.TimeoutException as error:
            raise timed_out(timeout_s) from error
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _status_error(self, response: Response, sources: Sources) -> UpstreamError:
        body = None
        raw, headers = response.read_what_comes(_ERROR_WITHIN_S), response.headers
        with suppress(ValueError):  # an edge answers in HTML, or breaks off
            body = orjson.loads(raw)
        made = self.error_of(response.status, body, headers, sources)
        made.headers = self._harmless({**to_client_headers(headers, now=datetime.now(UTC)), **made.headers})
        if isinstance(body, dict) and body.get("type") == "error" and not self.repeats_secret(raw):
            made.forwarded = Forwarded(response.status, self._harmless(to_relayed_headers(headers)), raw)
        return made

    def error_of(self, status: int, body: Any, headers: Mapping[str, str], sources: Sources = ()) -> UpstreamError:
        """`body` is parsed, None where it was no JSON; that of an event in a stream has the status 200."""
        return to_upstream_error(
            status,
            body,
            headers,
            message_sources=sources,
            request_id=headers.get("request-id"),
            secrets=self._secrets,
        )

    def repeats_secret(self, data: bytes) -> bool:
        return any(secret.encode() in data for secret in self._secrets)

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
