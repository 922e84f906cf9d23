"""One answer to the client, over one connection: as many of Claude's messages as it takes, as if they were one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.errors import UpstreamError
from app.storage.config import Connection
from app.translate.accumulate import LATE_WARNINGS, MessageAccumulator
from app.translate.continuation import Event, Parts
from app.translate.translation import Translation
from app.upstream.client import UpstreamClient
from app.upstream.dispatch import Dispatch
from app.upstream.failures import understanding
from app.upstream.limits import Limits
from app.upstream.reply import Reply

Reopen = Callable[[dict[str, Any]], Reply]
"""Sends a body over the same connection and in the same mode."""


class TranslatedRequest(Protocol):
    """A chat request on its way: what it is for a connection, and whether a refusal teaches to ask otherwise."""

    id: str

    def dispatch(self, connection: Connection, model: str) -> Dispatch:
        """A call that is about to go upstream."""

    def translate(self, connection: Connection) -> Translation: ...

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        """Whether translate() makes a request now that may be answered."""

    def answered(self, connection: Connection) -> None:
        """What translate() made for the connection has been answered."""


@dataclass(frozen=True)
class AnswerRequest:
    """Asks for one answer, as the pool does. With `stream` Claude is asked for one; with `whole` it has been read to
    its end, otherwise its batches are still to be read."""

    asked: TranslatedRequest
    stream: bool
    whole: bool
    ends_at: float

    @property
    def id(self) -> str:
        return self.asked.id

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        return self.asked.learn(connection, error)

    def answered(self, connection: Connection) -> None:
        self.asked.answered(connection)

    def open(self, client: UpstreamClient, limits: Limits) -> Answer:
        translation = self.asked.translate(client.connection)
        # A long answer as one JSON body would leave the way silent for minutes; proxies close such connections.
        is_streamed = self.stream or translation.may_run_long

        def send(body: dict[str, Any]) -> Reply:
            dispatch = self.asked.dispatch(client.connection, str(body["model"]))
            dispatch.caches_for_an_hour = translation.caches_for_an_hour
            return client.send(replace(translation, body=body), stream=is_streamed, limits=limits, dispatch=dispatch)

        answer = Answer(send(translation.body), send, ends_at=self.ends_at)
        if self.whole:
            try:
                answer.complete()
            finally:
                answer.close()
        return answer


class Answer:
    """Read `batches()` if it is streamed, or `complete()` it; then `message` is the whole."""

    def __init__(self, reply: Reply, reopen: Reopen, *, ends_at: float) -> None:
        self._reply = reply
        self._reopen = reopen
        self._ends_at = ends_at
        self._parts = Parts(reply.translation.body, reply.translation.reply)
        self._next: dict[str, Any] | None = None

    @property
    def translation(self) -> Translation:
        return self._reply.translation

    @property
    def connection(self) -> Connection:
        return self._reply.connection

    @property
    def message(self) -> dict[str, Any]:
        return self._parts.merged()

    @property
    def has_message(self) -> bool:
        """Whether there is a whole message yet; the gateway may end an answer before."""
        return bool(self._parts.whole)

    @property
    def is_one_turn(self) -> bool:
        return self._parts.is_one_turn

    def client_headers(self) -> dict[str, str]:
        return self._reply.client_headers()

    def close(self) -> None:
        """Ends the call upstream, in whatever state it is. May be called again."""
        self._reply.close()

    def complete(self) -> None:
        """Reads all there is. Raises UpstreamError."""
        while True:
            if self._reply.is_streamed:
                for _ in self._part(0):
                    pass
            else:
                with understanding:
                    self._next = self._parts.add(self._reply.message)
            if self._next is None:
                return
            self._go_on()

    def batches(self) -> Iterator[list[Event]]:
        """The events in the batches they arrived in, as of one message; an empty one when a sign of life is due.

        Raises UpstreamError.
        """
        offset = 0
        while True:
            yield from self._part(offset)
            if self._next is None:
                return
            offset = len(self._parts.content())
            joint = self._parts.joint()
            self._go_on()
            yield [event for block in joint for event in _as_events(block, offset)]
            offset += len(joint)

    def _part(self, offset: int) -> Iterator[list[Event]]:
        """The events of one message; `_next` then says how the answer goes on. `offset` counts the blocks before it."""
        is_later = bool(self._parts.whole)
        dispatch = self._reply.dispatch
        accumulator = dispatch.accumulator = MessageAccumulator()
        held: list[Event] = []
        for batch in self._reply.batches():
            passed = []
            with understanding:
                for event in batch:
                    accumulator.feed(event)
                    kind = event.get("type")
                    if kind == "message_delta" and self._parts.may_go_on(accumulator.message.get("stop_reason")):
                        held.append(event)
                    elif kind == "content_block_start":
                        dispatch.block_begins(event["content_block"])
                        passed.append(event)
                    elif kind == "content_block_stop":
                        dispatch.block_ends()
                        passed.append(event)
                    elif kind == "message_stop":
                        self._next = self._parts.add(accumulator.message)
                        passed += self._ending(held, event)
                    else:
                        passed.append(event)
                if is_later:
                    passed = [_moved(event, offset) for event in passed if event.get("type") != "message_start"]
            yield passed

    def _ending(self, held: list[Event], stop: Event) -> list[Event]:
        """What ends the answer, nothing if it goes on. Usage is that of all parts."""
        if self._next is not None:
            return []
        whole = self._parts.merged()
        if len(self._parts.whole) == 1 and not held:
            return [stop]
        ending = {name: whole.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
        warnings = whole.get(LATE_WARNINGS, [])
        return [{"type": "message_delta", "delta": ending, "usage": whole["usage"], LATE_WARNINGS: warnings}, stop]

    def _go_on(self) -> None:
        assert self._next is not None
        if time.monotonic() > self._ends_at:
            raise UpstreamError(
                "The time for this request ran out while Anthropic's answer was paused.",
                status=504,
                type="server_error",
                code="timeout",
            )
        self._reply.close()
        self._reply = self._reopen(self._next)


def _as_events(block: dict[str, Any], index: int) -> list[Event]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        {"type": "content_block_stop", "index": index},
    ]


def _moved(event: Event, offset: int) -> Event:
    """An event of a later message, its block numbered on."""
    return {**event, "index": event["index"] + offset} if "index" in event else event
