"""What went to Anthropic for a request, and what is known of how each call was answered: the books are made of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import UpstreamError
from app.storage.connections import Connection
from app.translate.accumulate import MessageAccumulator
from app.translate.continuation import Event
from app.translate.messages.scan import StreamScan

_NOT_ASKED = frozenset({"upstream_unreachable"})
"""Codes of failures in which Anthropic got no request."""


@dataclass
class Dispatch:
    """One call. `model` is its model as the connection calls it."""

    connection: Connection
    model: str
    caches_for_an_hour: bool = False
    """All that the request writes into the prompt cache."""
    began_at: float | None = None
    """When the answer began, in Unix seconds."""
    outcome: str = ""
    """`answered`, or the code with which it failed before it began; "" while nothing is known."""
    is_free: bool = False
    """It failed in a way for which Anthropic charges nothing."""
    accumulator: MessageAccumulator | StreamScan | None = None
    """Of a streamed answer."""
    message: Mapping[str, Any] | None = None
    """A whole answer."""
    first: Sequence[Event] = ()
    """The events that an answer began with; they may never have been read."""
    on_change: Callable[[], None] | None = None
    """Called when it has begun or failed."""
    thought_s: float = 0.0
    """How long thinking blocks were open: they may not be shown."""
    _thinks_since: float | None = None

    def begin(self) -> None:
        self.began_at = time.time()
        self.outcome = "answered"
        self._tell()

    def fail(self, error: UpstreamError) -> None:
        """Before the answer began, or as it did: then what had come of it counts, as if the error had come later.
        Anthropic charges for no answer that is an error; of one that did not come, or broke off, nobody knows."""
        self.outcome = error.code or error.type
        is_refused = error.upstream is not None or error.upstream_status is not None or error.code in _NOT_ASKED
        self.is_free = is_refused and not any(event.get("type") == "message_start" for event in self.first)
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def block_begins(self, block: Mapping[str, Any]) -> None:
        if block.get("type") == "thinking":
            self._thinks_since = time.monotonic()

    def block_ends(self) -> None:
        if self._thinks_since is not None:
            self.thought_s += time.monotonic() - self._thinks_since
            self._thinks_since = None

    def heard(self) -> MessageAccumulator | StreamScan:
        """What has come of a streamed answer."""
        if self.accumulator is None:
            self.accumulator = accumulator = MessageAccumulator()
            for event in self.first:
                accumulator.feed(event)
        return self.accumulator

    @property
    def is_counted(self) -> bool:
        """Whether all that it used is told: the end of the stream, which comes after that, adds nothing."""
        return self.message is not None or self.so_far.get("stop_reason") is not None

    @property
    def so_far(self) -> Mapping[str, Any]:
        """The message, as much of it as has come; empty before it begins."""
        return self.heard().message if self.message is None else self.message
