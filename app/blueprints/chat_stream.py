"""A streamed answer as server-sent events: the frames of chat chunks, and signs of life while there are none.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from app.blueprints.booking import Booking
from app.errors import GatewayError, in_one_line
from app.serve import metrics
from app.storage.config import Connection
from app.translate import exact_json
from app.translate.chat.stream import StreamTranslator
from app.upstream.answer import Answer
from app.upstream.choices import Choices
from app.upstream.failures import understanding
from app.upstream.limits import KEEP_ALIVE_S
from app.upstream.waiting import ClientWatch, Task

log = logging.getLogger(__name__)
COMMENT = b": keep-alive\n"
"""A line of its own and no blank one behind it, which would end an event: some clients then read one without data."""
A_MOMENT_S = 0.5
"""A batch without a word that comes so much too early is a sign of life, too: the next would be twice as late."""
DONE = b"data: [DONE]\n\n"


class ChatStream:
    """`frames()` once; `close()` when the response is over, however it ended. `complete` is called with the whole
    answers before the client learns that they are."""

    def __init__(
        self,
        opening: Task[list[Answer]],
        answers: list[Answer] | None,
        watch: ClientWatch,
        booking: Booking,
        complete: Callable[[list[Answer]], None],
        request_id: str = "",
    ) -> None:
        self._request_id = request_id
        self._booking = booking
        self._complete = complete
        self._opening = opening
        self._answers = answers
        self._watch = watch
        self._choices: Choices | None = None
        self._translator: StreamTranslator | None = None
        self._ending = "client_gone"

    def frames(self) -> Iterator[bytes]:
        try:
            while self._answers is None:
                try:
                    self._answers = self._opening.result(self._watch, KEEP_ALIVE_S)
                except TimeoutError:
                    yield COMMENT
            yield from self._answer(self._answers)
        except GatewayError as error:
            yield self._error(error)
        except Exception:  # the last resort: Flask's own comes too late, the head has gone out
            log.exception("unforeseen error in a stream, request id %s", self._request_id)
            yield self._error(GatewayError(f"The gateway failed on this request: {self._request_id} in its log."))

    def _error(self, error: GatewayError) -> bytes:
        """The status is sent: an error object is all that can be said, and no [DONE] after it."""
        self._ending = error.code or error.type
        self._booking.failed(error, head_is_out=True)
        log.warning("%s: the stream ended with %s: %s", self._request_id, self._ending, in_one_line(error.message))
        return b"data: " + orjson.dumps(error.body()) + b"\n\n"

    def _answer(self, answers: list[Answer]) -> Iterator[bytes]:
        context = answers[0].translation.reply
        self._translator = translator = StreamTranslator(context, created=int(time.time()), choices=len(answers))
        self._choices = Choices(answers)
        batches = self._choices.batches()
        written_at = time.monotonic()
        while True:
            with self._watch:
                index, batch = next(batches)
            with understanding:
                chunks = [chunk for event in batch for chunk in translator.feed(event, index)]
                frames = [_frame(chunk) for chunk in chunks]
            if translator.is_complete:
                self._complete(answers)
                self._ending = "complete"
                if chunks and not chunks[-1].get("choices"):  # that of the usage, where the client asked for it
                    frames[-1] = _frame(self._with_cost(chunks[-1]))
                yield b"".join(frames) + DONE
                return
            now = time.monotonic()
            if frames or now - written_at >= KEEP_ALIVE_S - A_MOMENT_S:
                written_at = now
                yield b"".join(frames) or COMMENT

    @property
    def ending(self) -> str:
        """How it has ended: complete, client_gone, or an error's code."""
        return self._ending

    @property
    def connection(self) -> Connection | None:
        """Which one answers; None before there is an answer."""
        return self._answers[0].connection if self._answers else None

    def close(self) -> None:
        self._watch.close()
        if self._answers is None:
            self._opening.cancel()
            self._booking.left()
            return
        try:
            (self._choices or Choices(self._answers)).close()
            metrics.count_answer(self._answers[0].connection, self._ending)
        finally:
            self._booking.left()

    def _with_cost(self, chunk: dict[str, Any]) -> dict[str, Any]:
        cost = self._booking.cost_micros
        return chunk if cost is None else {**chunk, "gateway": {**chunk.get("gateway", {}), "request_cost": cost}}


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + exact_json.dumps(chunk) + b"\n\n"
