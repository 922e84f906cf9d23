"""A streamed answer as server-sent events: the frames of chat chunks, and signs of life while there are none.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson

from app import metrics
from app.errors import GatewayError
from app.translate.stream import StreamTranslator
from app.translate.usage import to_completion_usage
from app.upstream.client import KEEP_ALIVE_S, Reply, understanding
from app.upstream.waiting import ClientWatch, Task

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class ChatStream:
    """`frames()` once; `close()` when the response is over, however it ended."""

    def __init__(self, opening: Task[Reply], reply: Reply | None, watch: ClientWatch) -> None:
        self._opening = opening
        self._reply = reply
        self._watch = watch
        self._translator: StreamTranslator | None = None
        self._ending = "client_gone"

    def frames(self) -> Iterator[bytes]:
        try:
            reply = self._reply
            while reply is None:
                try:
                    reply = self._reply = self._opening.result(self._watch, KEEP_ALIVE_S)
                except TimeoutError:
                    yield COMMENT
            yield from self._answer(reply)
        except GatewayError as error:
            # The status is sent: an error object is all that can be said, and no [DONE] after it.
            self._ending = error.code or error.type
            yield b"data: " + orjson.dumps(error.body()) + b"\n\n"

    def _answer(self, reply: Reply) -> Iterator[bytes]:
        self._translator = translator = StreamTranslator(reply.translation.reply, created=int(time.time()))
        batches = reply.batches()
        while True:
            with self._watch:
                batch = next(batches)
            with understanding():
                chunks = [chunk for event in batch for chunk in translator.feed(event)]
                frames = b"".join([b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks])
            if translator.is_complete:
                self._ending = "complete"
                yield frames + DONE
                return
            yield frames or COMMENT

    def close(self) -> None:
        self._watch.close()
        if self._reply is None:
            self._opening.cancel()
            return
        self._reply.close()
        usage = to_completion_usage(self._translator.usage) if self._translator else {}
        metrics.count_answer(self._reply.connection, self._ending, usage)
