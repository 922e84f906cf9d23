"""What the books have to know of a stream that passes as it is: most of its events are not parsed.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from app.translate.usage import merge_usage

Event = dict[str, Any]

_DELTA = b"event: content_block_delta\ndata: "
_TELLING = re.compile(
    rb"^event: (?:message_start|message_delta|message_stop|error|content_block_start|content_block_stop)\n"
    rb"data: ([^\r\n]*)\n\n",
    re.MULTILINE,
)
_PING = b"event: ping\ndata: "
_SHOWN_THOUGHT = re.compile(rb'"thinking_delta", ?"thinking": ?"[^"]')
_AROUND_A_DELTA = 120
"""Bytes of what stands around the text of a delta."""


class StreamScan:
    """Feed it whole events in bytes. `message` is what they say of the message, with its blocks as they began;
    `is_complete` once it has ended, `error` once that has come."""

    def __init__(self, parse: Callable[[bytes], list[Event]]) -> None:
        """`parse` reads events in whatever form the standard allows."""
        self.message: dict[str, Any] = {}
        self.is_complete = False
        self.error: Event | None = None
        self._parse = parse
        self._bytes = self._events = 0
        self._thinks = False

    def feed(self, data: bytes) -> list[Event]:
        """Those of the events in `data` that tell more than a piece of a block."""
        count = data.count(b"\n\n")
        self._bytes += len(data)
        self._events += count
        if self._thinks and _SHOWN_THOUGHT.search(data):
            self.message["content"][-1]["thinking"] = "shown"
            self._thinks = False
        deltas = data.count(_DELTA)
        if count and deltas == count:
            return []  # a line break within JSON is escaped: each event is a delta
        events = self._events_in(data, count - deltas - data.count(_PING))
        for event in events:
            self._note(event)
        return events

    def _events_in(self, data: bytes, expected: int) -> list[Event]:
        """Where as many are in the usual form as there can be, those alone are parsed."""
        telling = _TELLING.findall(data)
        if telling and len(telling) == expected:
            try:
                events = [orjson.loads(each) for each in telling]
            except orjson.JSONDecodeError:
                events = []
            if all(isinstance(event, dict) for event in events):
                return events
        return self._parse(data)

    def _note(self, event: Event) -> None:
        try:
            self._noted(event)
        except (KeyError, TypeError, AttributeError, ValueError):  # odd events pass, too
            return

    def _noted(self, event: Event) -> None:
        match event.get("type"):
            case "message_start":
                self.message = {**event["message"], "content": []}
                self.message["usage"] = dict(self.message.get("usage") or {})
            case "content_block_start":
                block = dict(event["content_block"])
                self.message["content"].append(block)
                self._thinks = block.get("type") == "thinking"
            case "content_block_stop":
                self._thinks = False
            case "message_delta":
                self.message.update({name: value for name, value in event["delta"].items() if value is not None})
                merge_usage(self.message["usage"], event.get("usage"))
            case "message_stop":
                self.is_complete = bool(self.message) and self.error is None
            case "error":
                self.error = event

    def received(self) -> int:
        """About how many bytes of content have come so far."""
        return max(0, self._bytes - _AROUND_A_DELTA * self._events)
