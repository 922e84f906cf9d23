"""Server-sent events of an upstream stream, as the JSON in their data.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import Any

import orjson

LARGEST_EVENT_BYTES = 64 * 1024 * 1024

Event = dict[str, Any]


class InvalidEvent(Exception):
    """The upstream sent something that is no event."""


class EventParser:
    """Feed it bytes in any pieces; it gives the events that are whole. The `event:` line is not needed: the JSON
    carries its type."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """Raises InvalidEvent for data that is not a JSON object."""
        data = self._rest + data
        if b"\r" in data:
            held = b"\r" if data.endswith(b"\r") else b""  # perhaps the first half of a CR LF
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *blocks, rest = data.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > LARGEST_EVENT_BYTES:
            raise InvalidEvent("an event is too large")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:] for line in block.split(b"\n") if line.startswith(b"data:")
    ]
    if not lines:
        return None  # a comment, or an event without data
    try:
        event = orjson.loads(lines[0] if len(lines) == 1 else b"\n".join(lines))
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("the data of an event is not JSON") from error
    if not isinstance(event, dict):
        raise InvalidEvent("the data of an event is not an object")
    return event
