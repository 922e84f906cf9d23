"""Server-sent events of an upstream stream, as the JSON in their data.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import Any

import orjson

LARGEST_EVENT_BYTES = 32 * 1024 * 1024
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
        self._pending: list[bytes] = []
        """The pieces of what is not whole yet: joined once, since an event may come in many."""
        self._pending_bytes = 0
        self._held = b""
        """A CR, perhaps the first half of a CR LF, or the beginning of a byte order mark."""
        self._has_begun = False

    @property
    def rest(self) -> bytes:
        """What has come behind the last whole event."""
        return b"".join(self._pending)

    def feed(self, data: bytes) -> list[Event]:
        """Raises InvalidEvent for data that is not a JSON object, unless it stands behind the end of the message."""
        if self._held:
            data, self._held = self._held + data, b""
        if not self._has_begun:
            if _BYTE_ORDER_MARK.startswith(data):
                self._held = data
                return []
            data = data.removeprefix(_BYTE_ORDER_MARK)
            self._has_begun = True
        if b"\r" in data:
            if data.endswith(b"\r"):
                data, self._held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        if self._pending:
            last = self._pending[-1]
            self._pending.append(data)
            if b"\n\n" not in data and not (last.endswith(b"\n") and data.startswith(b"\n")):
                return self._wait(len(data))
            data = b"".join(self._pending)
        *blocks, rest = data.split(b"\n\n")
        self._pending = [rest] if rest else []
        self._pending_bytes = 0
        self._wait(len(rest))
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

    def _wait(self, count: int) -> list[Event]:
        """For more: so many bytes have come, and nothing is whole."""
        self._pending_bytes += count
        if self._pending_bytes > LARGEST_EVENT_BYTES:
            raise InvalidEvent("an event is too large")
        return []


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
