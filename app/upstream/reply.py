"""An answer of Anthropic's under way, as events or in one piece."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2

from app.errors import UpstreamError
from app.translate.errors import to_upstream_error
from app.translate.headers import to_client_headers
from app.translate.translation import Translation
from app.upstream.dispatch import Dispatch
from app.upstream.events import Event, EventParser, InvalidEvent
from app.upstream.failures import cut_short, disconnected, json_object, json_value, not_understood, silent
from app.upstream.health import Health, may_succeed_elsewhere
from app.upstream.limits import KEEP_ALIVE_S, Limits
from app.upstream.transport import Response, drain


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
                self.message = json_object(self._response.read_all())
                if self.message.get("type") != "message":
                    raise self._told_error(self.message) or not_understood("it is no message")
                self.dispatch.message = self.message
                return
            while not self._first:
                data = self._response.read()
                if not data:
                    raise self._told_error(json_value(self._parser.rest)) or cut_short()
                self._first = [event for event in self._parsed(data) if event.get("type") != "ping"]
            self.dispatch.first = self._first
        except httpx2.TransportError as error:
            raise disconnected(error) from error
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
                raise silent(self._limits.idle_s)

    def _read_within(self, seconds: float) -> list[Event]:
        """One read; [] when nothing came in time."""
        try:
            data = self._response.read_within(min(seconds, self._limits.idle_s))
        except httpx2.TransportError as error:
            raise disconnected(error) from error
        return [] if data is None else self._parsed(data)

    def _parsed(self, data: bytes) -> list[Event]:
        if not data:
            raise cut_short()
        try:
            return self._parser.feed(data)
        except InvalidEvent as error:
            raise not_understood(str(error)) from error

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
            drain(self._response)
        self._response.close()
