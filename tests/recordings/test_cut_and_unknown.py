"""Recorded streams, cut after every event and with unknown things in every place, through the translation alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from app.translate.accumulate import MessageAccumulator
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.translation import ReplyContext
from tests.recordings.recorded import FOLDER, events_of, recordings

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recordings in {FOLDER}")
Event = dict[str, Any]


@pytest.fixture(scope="module")
def streams() -> dict[str, list[Event]]:
    found = {each.name: events_of(each.body) for each in recordings()[0] if each.kind == "stream"}
    assert len(found) > 100
    return found


def test_a_stream_cut_after_any_event_is_never_called_complete(streams: dict[str, list[Event]]) -> None:
    for name, events in streams.items():
        translator = StreamTranslator(ReplyContext(include_usage=True), created=1)
        accumulator = MessageAccumulator()
        assert events[-1]["type"] == "message_stop", name
        for event in events[:-1]:
            chunks = translator.feed(event)
            accumulator.feed(event)
            assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]), name
            assert all(chunk["choices"] for chunk in chunks), name
            assert not translator.is_complete, name
            assert not accumulator.is_complete, name


def translated(events: Iterable[Event]) -> tuple[list[Event], dict[str, Any]]:
    """(chunks, completion)."""
    translator = StreamTranslator(ReplyContext(include_usage=True), created=1)
    accumulator = MessageAccumulator()
    chunks = []
    for event in events:
        chunks += translator.feed(event)
        accumulator.feed(event)
    assert translator.is_complete and accumulator.is_complete
    return chunks, without_places(to_chat_completion([accumulator.message], ReplyContext(), created=1))


def without_places(completion: dict[str, Any]) -> dict[str, Any]:
    """Where thinking stood among the blocks is another place when there are more of them."""
    for detail in completion["choices"][0]["message"].get("reasoning_details", ()):
        del detail["block_index"], detail["id"]
    return completion


def unknown_event(at: int, index: int) -> list[Event]:
    return [{"type": "weather_report", "index": index, "delta": {"type": "weather", "celsius": at}}]


def unknown_block(at: int, index: int) -> list[Event]:
    place = 10_000 + at
    return [
        {"type": "content_block_start", "index": place, "content_block": {"type": "hologram", "data": "?"}},
        {"type": "content_block_delta", "index": place, "delta": {"type": "hologram_delta", "data": "?"}},
        {"type": "content_block_stop", "index": place},
    ]


def unknown_delta(at: int, index: int) -> list[Event]:
    return [{"type": "content_block_delta", "index": index, "delta": {"type": "mood_delta", "mood": "good"}}]


def delta_without_block(at: int, index: int) -> list[Event]:
    delta = {"type": "input_json_delta", "partial_json": "{"}
    return [{"type": "content_block_delta", "index": 10_000, "delta": delta}]


def text_without_block(at: int, index: int) -> list[Event]:
    return [{"type": "content_block_delta", "index": 10_000, "delta": {"type": "text_delta", "text": "lost"}}]


def stop_without_block(at: int, index: int) -> list[Event]:
    return [{"type": "content_block_stop", "index": 10_000}]


def ping(at: int, index: int) -> list[Event]:
    return [{"type": "ping"}]


@pytest.mark.parametrize(
    "odd",
    [
        unknown_event,
        unknown_block,
        unknown_delta,
        delta_without_block,
        text_without_block,
        stop_without_block,
        ping,
    ],
)
def test_unknown_things_in_every_place_change_nothing(streams: dict[str, list[Event]], odd: Any) -> None:
    for name, events in streams.items():
        with_odd: list[Event] = [events[0]]
        for at, event in enumerate(events[1:]):
            with_odd += [*odd(at, event.get("index", 0)), event]
        assert translated(with_odd) == translated(events), name
