"""What is read of a stream that passes as it is: as much as of one whose events are all parsed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.translate.accumulate import MessageAccumulator
from app.translate.messages.scan import StreamScan
from app.upstream.events import EventParser
from tests.upstream.raw import of_events

USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}
START: Any = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": USAGE},
}


def block(index: int, block: Any, *deltas: Any) -> list[Any]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(said: str) -> Any:
    return {"type": "text_delta", "text": said}


EVENTS: list[Any] = [
    START,
    {"type": "ping"},
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm \n\nevent: message_stop\ndata: {}\n\n"},
        {"type": "signature_delta", "signature": "c2ln"},
    ),
    *block(1, {"type": "redacted_thinking", "data": "ZGF0YQ=="}),
    *block(
        2, {"type": "text", "text": ""}, text("event: message_delta\ndata: {"), text("\u2028 \u0085"), text("event: ")
    ),
    *block(3, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
    *block(
        4, {"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "input_json_delta", "partial_json": "{"}
    ),
    {"type": "of_tomorrow", "what": "ever"},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "output_tokens": 90,
            "input_tokens": None,
            "server_tool_use": {"web_search_requests": 2},
            "iterations": [{"type": "message", "input_tokens": 12, "output_tokens": 90}],
        },
    },
    {"type": "message_stop"},
]


def parsed(data: bytes) -> list[Any]:
    return EventParser().feed(data)


def told(scan: StreamScan) -> Any:
    known = ("id", "model", "usage", "stop_reason")
    kinds = [each["type"] for each in scan.message["content"]]
    return {name: scan.message.get(name) for name in known}, kinds, scan.is_complete


def expected() -> Any:
    accumulator = MessageAccumulator()
    for event in EVENTS:
        accumulator.feed(event)
    known = ("id", "model", "usage", "stop_reason")
    kinds = [each["type"] for each in accumulator.message["content"]]
    return {name: accumulator.message.get(name) for name in known}, kinds, True


FORMS = {
    "as Anthropic's": of_events(*EVENTS),
    "CR LF": of_events(*EVENTS).replace(b"\n", b"\r\n"),
    "no blank behind the colons": of_events(*EVENTS).replace(b"event: ", b"event:").replace(b"\ndata: ", b"\ndata:"),
    "no event lines": b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in EVENTS),
    "comments between": of_events(*EVENTS).replace(b"\n\nevent", b"\n\n: a comment\n\nevent"),
    "ids before": of_events(*EVENTS).replace(b"\n\nevent: message", b"\n\nid: 5\nevent: message"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_tells_the_same_in_whatever_form_and_pieces_it_comes(form: str) -> None:
    data = FORMS[form]
    blank = b"\r\n\r\n" if form == "CR LF" else b"\n\n"
    whole = [each + blank for each in data.split(blank)[:-1]]
    for size in (1, 2, 3, 7, len(whole)):
        scan = StreamScan(parsed)
        for start in range(0, len(whole), size):
            scan.feed(b"".join(whole[start : start + size]))
        assert told(scan) == expected(), size


def test_a_piece_of_a_block_is_not_parsed() -> None:
    scan = StreamScan(lambda data: pytest.fail(f"parsed {data!r}"))
    scan.feed(of_events(*EVENTS[:9]))
    deltas = of_events(*EVENTS[3:5]) * 50
    assert scan.feed(deltas) == []
    assert scan.message["id"] == "msg_1"


def test_an_error_is_kept() -> None:
    scan = StreamScan(parsed)
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    scan.feed(of_events(START, error))
    assert scan.error == error
    assert not scan.is_complete


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "message_delta"},
        {"type": "message_delta", "delta": 5, "usage": []},
        {"type": "content_block_start", "content_block": 5},
        {"type": "content_block_start"},
    ],
)
def test_what_is_odd_tells_nothing_and_ends_nothing(odd: Any) -> None:
    scan = StreamScan(parsed)
    scan.feed(of_events(START, odd))
    scan.feed(b"event: message_delta\ndata: {broken\n\n")
    scan.feed(of_events({"type": "message_stop"}))
    assert scan.is_complete
    assert scan.message["usage"] == USAGE


def test_of_what_was_cut_the_text_is_about_as_long_as_it_came() -> None:
    scan = StreamScan(parsed)
    said = "A sentence of some words. " * 4
    scan.feed(of_events(START, *block(0, {"type": "text", "text": ""}, *[text(said)] * 200)[:-1]))
    assert scan.received() == pytest.approx(200 * len(said), rel=0.1)


def test_thinking_that_is_shown_is_told_from_thinking_that_is_not() -> None:
    for thought, shown in (("Hm", "shown"), ("", "")):
        scan = StreamScan(parsed)
        scan.feed(of_events(START, *block(0, {"type": "thinking", "thinking": ""})[:1]))
        delta = {"type": "thinking_delta", "thinking": thought}
        scan.feed(of_events({"type": "content_block_delta", "index": 0, "delta": delta}))
        assert scan.message["content"][0]["thinking"] == shown
