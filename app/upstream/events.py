"""Server-sent events of an upstream stream, as the JSON in their data.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import Any

import orjson

LARGEST_EVENT_BYTES = 64 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NO_EVENTS = (b"", b"[DONE]")
"""Data without content, which the standard says is none, and the end that OpenAI's servers send."""

Event = dict[str, Any]


class InvalidEvent(Exception):
    """The upstream sent something that is no event."""


class EventParser:
    """Feed it bytes in any pieces; it gives the events that are whole. The `event:` line is not needed: the JSON
    carries its type."""

    def __init__(self) -> None:
        self._rest = b""
        self._has_begun = False

    @property
    def rest(self) -> bytes:
        """What has come behind the last whole event."""
        return self._rest

    def feed(self, data: bytes) -> list[Event]:
        """Raises InvalidEvent for data that is not a JSON object, unless it stands behind the end of the message."""
        data = self._rest + data
        if not self._has_begun:
            if _BYTE_ORDER_MARK.startswith(data):
                self._rest = data
                return []
            data = data.removeprefix(_BYTE_ORDER_MARK)
            self._has_begun = True
        if b"\r" in data:
            held = b"\r" if data.endswith(b"\r") else b""  # perhaps the first half of a CR LF
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *blocks, rest = data.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > LARGEST_EVENT_BYTES:
            raise InvalidEvent("an event is too large")
        events: list[Event] = []
        try:
            for block in blocks:
                event = _event(block)
                if event is not None:
                    events.append(event)
        except InvalidEvent:
            if not events or events[-1].get("type") != "message_stop":
                raise
        return events


def _event(block: bytes) -> Event | None:
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:] for line in block.split(b"\n") if line.startswith(b"data:")
    ]
    data = lines[0] if len(lines) == 1 else b"\n".join(lines)
    if data.strip() in _NO_EVENTS:
        return None  # a comment, or an event without data
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("the data of an event is not JSON") from error
    if not isinstance(event, dict):
        raise InvalidEvent("the data of an event is not an object")
    return event
