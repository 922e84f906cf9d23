"""A streamed answer, whatever language it is written in: signs of life until it begins, and how it ends."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from flask import Response

from app.blueprints.booking import Booking
from app.errors import GatewayError, in_one_line
from app.serve import metrics
from app.storage.config import Connection
from app.upstream.limits import KEEP_ALIVE_S
from app.upstream.waiting import ClientWatch, Task

log = logging.getLogger(__name__)
COMMENT = b": keep-alive\n"
"""A line of its own and no blank one behind it, which would end an event: some clients then read one without data."""
A_MOMENT_S = 0.5
"""A batch without a word that comes so much too early is a sign of life, too: the next would be twice as late."""

T = TypeVar("T")


class AnswerStream(ABC, Generic[T]):
    """`frames()` once; `close()` when the response is over, however it ended."""

    def __init__(
        self, opening: Task[T], opened: T | None, watch: ClientWatch, booking: Booking, request_id: str
    ) -> None:
        """`opened` is what `opening` has answered, None while it has not."""
        self._request_id = request_id
        self._booking = booking
        self._opening = opening
        self._opened = opened
        self._watch = watch
        self._ending = "client_gone"

    @abstractmethod
    def _answer(self, opened: T) -> Iterator[bytes]:
        """The frames of the answer; sets `_ending` before the last. Raises GatewayError."""

    @abstractmethod
    def _error_frame(self, error: GatewayError) -> bytes: ...

    @abstractmethod
    def _connection_of(self, opened: T) -> Connection: ...

    @abstractmethod
    def _close(self, opened: T) -> None: ...

    def frames(self) -> Iterator[bytes]:
        try:
            while self._opened is None:
                yield COMMENT  # the first takes the head with it
                with suppress(TimeoutError):
                    self._opened = self._opening.result(self._watch, KEEP_ALIVE_S)
            yield from self._answer(self._opened)
        except GatewayError as error:
            yield self._error(error)
        except Exception:  # the last resort: Flask's own comes too late, the head has gone out
            log.exception("unforeseen error in a stream, request id %s", self._request_id)
            yield self._error(GatewayError(f"The gateway failed on this request: {self._request_id} in its log."))

    def _error(self, error: GatewayError) -> bytes:
        """The status is sent: an error is all that can be said, and that it was the last."""
        self._fail(error)
        return self._error_frame(error)

    def _fail(self, error: GatewayError) -> None:
        self._ending = error.code or error.type
        self._booking.failed(error, head_is_out=True)
        log.warning("%s: the stream ended with %s: %s", self._request_id, self._ending, in_one_line(error.message))

    @property
    def ending(self) -> str:
        """How it has ended: complete, client_gone, or an error's code."""
        return self._ending

    @property
    def connection(self) -> Connection | None:
        """Which one answers; None before there is an answer."""
        return None if self._opened is None else self._connection_of(self._opened)

    def close(self) -> None:
        self._watch.close()
        if self._opened is None:
            self._opening.cancel()
            self._booking.left()
            return
        try:
            self._close(self._opened)
            metrics.count_answer(self._connection_of(self._opened), self._ending)
        finally:
            self._booking.left()

    def response(self, headers: dict[str, str]) -> Response:
        headers = {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}
        response = Response(self.frames(), 200, headers, content_type="text/event-stream; charset=utf-8")
        response.call_on_close(self.close)  # runs even if the client left before byte one; a finally would not
        return response
