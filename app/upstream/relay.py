"""A request of Anthropic's own API over one connection: bytes in, bytes out, and only what the books need is read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from app.errors import UpstreamError
from app.translate.headers import to_relayed_headers
from app.translate.messages.scan import StreamScan
from app.upstream.client import UpstreamClient
from app.upstream.dispatch import Dispatch
from app.upstream.events import LARGEST_EVENT_BYTES, Event, EventParser, InvalidEvent
from app.upstream.failures import cut_short, disconnected, json_object, json_value, not_understood, silent
from app.upstream.health import may_succeed_elsewhere
from app.upstream.limits import KEEP_ALIVE_S, Limits
from app.upstream.transport import Response, drain

_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")
_JSON, _EVENTS = "application/json", "text/event-stream"


@dataclass(frozen=True)
class Relay:
    """What goes out, with the client's own `headers`. `beta` is the query that SDKs add for beta features."""

    path: str
    headers: Mapping[str, str]
    body: bytes | bytearray
    beta: bool = False

    def send(self, client: UpstreamClient, limits: Limits, dispatch: Dispatch) -> Relayed:
        """Returns once the first event, or the whole of an answer that is no stream, is there. Raises UpstreamError."""

        def exchange() -> Relayed:
            response = client.relay(self.path, self.headers, self.body, limits, beta=self.beta)
            relayed = Relayed(client, response, dispatch, limits)
            try:
                relayed.begin(is_message=self.path == "/v1/messages")
            except BaseException:
                relayed.close()
                raise
            return relayed

        relayed = client.attempt(exchange, dispatch, len(self.body), limits)
        if not relayed.is_streamed:
            client.health.completed(dispatch.model)
        return relayed


class Relayed:
    """An answer under way: `body` is the whole of one that is no stream, otherwise read `batches()`. Its client gets
    `headers`."""

    def __init__(self, client: UpstreamClient, response: Response, dispatch: Dispatch, limits: Limits) -> None:
        self._client = client
        self._response = response
        self._limits = limits
        self._rest = bytearray()
        """Of an event that is not whole."""
        self._first = b""
        self._is_drained = False
        self._scan = StreamScan(_parsed)
        self.dispatch = dispatch
        self.connection = dispatch.connection
        upstream_headers = response.headers
        self.headers = to_relayed_headers(upstream_headers)
        kind = upstream_headers.get("content-type", "").partition(";")[0].strip().lower()
        self.is_streamed = kind == _EVENTS
        self._is_json = kind == _JSON
        self.body = b""
        self.error: UpstreamError | None = None

    @property
    def message(self) -> Mapping[str, Any]:
        """What is known of it."""
        return self.dispatch.so_far

    def begin(self, *, is_message: bool) -> None:
        """Reads up to the first event that is not a ping, or the whole."""
        try:
            if self.is_streamed and is_message:
                self._begin_stream()
            elif self._is_json:
                self.body = self._response.read_all()
                answer = json_object(self.body)
                self._check(answer)
                if is_message:
                    if answer.get("type") != "message":
                        raise not_understood("it is no message")
                    self.dispatch.message = answer
            else:
                raise not_understood("it is neither JSON nor a stream of events")
        except httpx2.TransportError as error:
            raise disconnected(error) from error

    def _begin_stream(self) -> None:
        """Up to the beginning of the message, before which there may be pings."""
        self.dispatch.accumulator = self._scan
        held = b""
        while not (self._scan.message or self._scan.error):
            data = self._response.read()
            if not data:
                self._check(json_value(bytes(self._rest)))
                raise cut_short()
            held += (whole := self._whole_events(data))
            self._take(whole)
        self._first = held
        if self._scan.message:
            self.dispatch.first = [{"type": "message_start", "message": self._scan.message}]
        if self._scan.error is not None:
            raise self._told(self._scan.error)

    def batches(self) -> Iterator[bytes]:
        """What has arrived, in whole events; b"" when it is time for a sign of life. After the batch that ends the
        message `is_complete`, and after one with an error of Anthropic's `error` is set: it is the last.

        Raises UpstreamError for silence, and for an end that is none.
        """
        try:
            yield from self._batches()
        except UpstreamError as error:
            self._failed(error)
            raise

    def _batches(self) -> Iterator[bytes]:
        whole, self._first = self._first, b""
        heard_at = time.monotonic()
        while True:
            if self._scan.error is not None:
                self.error = self._told(self._scan.error)
                if self._client.repeats_secret(whole):
                    raise self.error
                self._failed(self.error)
            if self.is_complete:
                self._client.health.completed(self.dispatch.model)
            yield whole
            if self.is_complete or self.error is not None:
                return
            left_s = heard_at + self._limits.idle_s - time.monotonic()
            if left_s <= 0:
                raise silent(self._limits.idle_s)
            try:
                data = self._response.read_within(min(KEEP_ALIVE_S, left_s))
            except httpx2.TransportError as error:
                raise disconnected(error) from error
            whole = b""
            if data == b"":
                raise cut_short()
            if data is not None:
                heard_at = time.monotonic()
                whole = self._whole_events(data)
                self._take(whole)

    @property
    def is_complete(self) -> bool:
        return self._scan.is_complete

    def _take(self, events: bytes) -> None:
        for event in self._scan.feed(events) if events else ():
            match event.get("type"):
                case "content_block_start" if isinstance(event.get("content_block"), dict):
                    self.dispatch.block_begins(event["content_block"])
                case "content_block_stop":
                    self.dispatch.block_ends()

    def _whole_events(self, data: bytes) -> bytes:
        """Of all that has come up to the last blank line; the rest waits for what ends it."""
        rest = self._rest
        if not rest and data.endswith(b"\n\n"):
            return data
        looked_at = max(0, len(rest) - 2)
        rest += data
        end = max((at + len(line) for line in _BLANK_LINES if (at := rest.rfind(line, looked_at)) >= 0), default=0)
        if len(rest) - end > LARGEST_EVENT_BYTES:
            raise not_understood("an event is too large")
        whole = bytes(rest[:end])
        del rest[:end]
        return whole

    def _check(self, answer: Any) -> None:
        """Raises UpstreamError for an error that others send with the status 200."""
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise self._told(answer)

    def _told(self, event: Event) -> UpstreamError:
        return self._client.error_of(200, event, self.headers)

    def _failed(self, error: UpstreamError) -> None:
        if may_succeed_elsewhere(error):
            self._client.health.failed(self.dispatch.model, error, time.monotonic())

    def close(self) -> None:
        """Ends the call upstream, in whatever state it is. May be called again."""
        if self.is_complete and not self._is_drained:
            self._is_drained = True
            drain(self._response)
        self._response.close()


def _parsed(data: bytes) -> list[Event]:
    """Of what is no event nothing is told."""
    with suppress(InvalidEvent):
        return EventParser().feed(data)
    return []
