"""A streamed answer as server-sent events: the frames of chat chunks, and signs of life while there are none.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from app.blueprints.answer_stream import A_MOMENT_S, COMMENT, AnswerStream
from app.blueprints.booking import Booking
from app.errors import GatewayError
from app.storage.config import Connection
from app.translate import exact_json
from app.translate.chat.stream import StreamTranslator
from app.upstream.answer import Answer
from app.upstream.choices import Choices
from app.upstream.failures import understanding
from app.upstream.limits import KEEP_ALIVE_S
from app.upstream.waiting import ClientWatch, Task

DONE = b"data: [DONE]\n\n"


class ChatStream(AnswerStream[list[Answer]]):
    """`complete` is called with the whole answers before the client learns that they are."""

    def __init__(
        self,
        opening: Task[list[Answer]],
        answers: list[Answer] | None,
        watch: ClientWatch,
        booking: Booking,
        complete: Callable[[list[Answer]], None],
        request_id: str = "",
    ) -> None:
        super().__init__(opening, answers, watch, booking, request_id)
        self._complete = complete
        self._choices: Choices | None = None

    def _error_frame(self, error: GatewayError) -> bytes:
        """No [DONE] follows."""
        return b"data: " + orjson.dumps(error.body()) + b"\n\n"

    def _connection_of(self, opened: list[Answer]) -> Connection:
        return opened[0].connection

    def _close(self, opened: list[Answer]) -> None:
        (self._choices or Choices(opened)).close()

    def _answer(self, opened: list[Answer]) -> Iterator[bytes]:
        context = opened[0].translation.reply
        translator = StreamTranslator(context, created=int(time.time()), choices=len(opened))
        self._choices = Choices(opened)
        batches = self._choices.batches()
        written_at = time.monotonic()
        while True:
            with self._watch:
                index, batch = next(batches)
            with understanding:
                chunks = [chunk for event in batch for chunk in translator.feed(event, index)]
                frames = [_frame(chunk) for chunk in chunks]
            if translator.is_complete:
                self._complete(opened)
                self._ending = "complete"
                if chunks and not chunks[-1].get("choices"):  # that of the usage, where the client asked for it
                    frames[-1] = _frame(self._with_cost(chunks[-1]))
                yield b"".join(frames) + DONE
                return
            now = time.monotonic()
            if frames or now - written_at >= KEEP_ALIVE_S - A_MOMENT_S:
                written_at = now
                yield b"".join(frames) or COMMENT

    def _with_cost(self, chunk: dict[str, Any]) -> dict[str, Any]:
        cost = self._booking.cost_micros
        return chunk if cost is None else {**chunk, "gateway": {**chunk.get("gateway", {}), "request_cost": cost}}


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + exact_json.dumps(chunk) + b"\n\n"
