"""A relayed stream: Anthropic's events as they come, and signs of life between them.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson

from app.blueprints.answer_stream import A_MOMENT_S, COMMENT, AnswerStream
from app.errors import GatewayError
from app.storage.config import Connection
from app.translate.messages.errors import to_error_event
from app.upstream.failures import not_understood
from app.upstream.limits import KEEP_ALIVE_S
from app.upstream.relay import Relayed


class MessageStream(AnswerStream[Relayed]):
    def _error_frame(self, error: GatewayError) -> bytes:
        return b"event: error\ndata: " + orjson.dumps(to_error_event(error, self._request_id)) + b"\n\n"

    def _connection_of(self, opened: Relayed) -> Connection:
        return opened.connection

    def _close(self, opened: Relayed) -> None:
        opened.close()

    def _answer(self, opened: Relayed) -> Iterator[bytes]:
        if not opened.is_streamed:
            raise not_understood("a stream was asked for, and the answer came late and in one piece")
        batches = opened.batches()
        written_at = time.monotonic()
        while True:
            with self._watch:
                events = next(batches)
            if opened.is_complete:
                self._booking.complete(opened.message.get("stop_reason"), ())
                self._ending = "complete"
                yield events
                return
            if opened.error is not None:
                self._fail(opened.error)
                yield events
                return
            now = time.monotonic()
            if events or now - written_at >= KEEP_ALIVE_S - A_MOMENT_S:
                written_at = now
                yield events or COMMENT
