"""A stream whose head went out before its answer began: signs of life first, then the answer or an error object."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from app.blueprints import chat_stream
from app.blueprints.answer_stream import COMMENT
from app.blueprints.booking import Booking
from app.blueprints.chat_request import ChatRequest
from app.blueprints.chat_stream import DONE, ChatStream
from app.errors import UpstreamError
from app.storage.connections import Connection
from app.translate.translation import ReplyContext, Translation
from app.upstream.answer import Answer
from app.upstream.dispatch import Dispatch
from app.upstream.reply import Reply
from app.upstream.waiting import ClientWatch, Task
from tests.conftest import CLIENT, AppMaker

OVERLOADED = UpstreamError("Overloaded.", status=503, type="server_error", code="overloaded")
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": {}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]


class ReadyReply(Reply):
    """An answer that is there already, in the given batches."""

    def __init__(self, *batches: list[dict[str, Any]], error: UpstreamError | None = None) -> None:
        self.dispatch = Dispatch(Connection("conn_1", 0, "https://upstream.example", "key"), "m")
        self.connection = self.dispatch.connection
        self.translation = Translation({"messages": []}, {}, may_run_long=False, reply=ReplyContext())
        self.closed = 0
        self._batches = batches
        self._error = error

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        yield from self._batches
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed += 1


def answer_of(reply: Reply) -> Answer:
    def reopen(body: dict[str, Any]) -> Reply:
        raise AssertionError("nothing is to be continued")

    return Answer(reply, reopen, ends_at=0.0)


class NoBooks(Booking):
    """What it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def cost(self) -> int | None:
        return 5900

    def failed(self, error: BaseException, *, head_is_out: bool = False) -> None:
        self.told.append("failed")

    def left(self) -> None:
        self.told.append("left")


class SlowOpening(Task[list[Answer]]):
    """An opening that takes as long as it takes to ask it `waits` times."""

    def __init__(self, outcome: Answer | UpstreamError, waits: int) -> None:
        self.cancelled = False
        self._result = outcome
        self._waits = waits

    def result(self, watch: ClientWatch, timeout_s: float | None) -> list[Answer]:
        self._waits -= 1
        if self._waits >= 0:
            raise TimeoutError
        if isinstance(self._result, UpstreamError):
            raise self._result
        return [self._result]

    def cancel(self) -> None:
        self.cancelled = True


def stream_of(outcome: Reply | UpstreamError, *, waits: int = 0) -> ChatStream:
    """As the view makes it: the first of the `waits` was its own."""
    opening, watch = SlowOpening(answer_of(outcome) if isinstance(outcome, Reply) else outcome, waits), ClientWatch({})
    answers = None
    with suppress(TimeoutError):
        answers = opening.result(watch, None)
    return ChatStream(opening, answers, watch, NoBooks(), lambda answers: None)


def test_comments_fill_the_time_until_the_answer_begins() -> None:
    frames = list(stream_of(ReadyReply(EVENTS), waits=2).frames())
    assert frames[:2] == [COMMENT, COMMENT]
    assert len(frames) == 3
    assert frames[2].endswith(DONE)


def test_an_error_after_the_head_is_an_error_object_and_no_end() -> None:
    frames = list(stream_of(OVERLOADED, waits=1).frames())
    assert frames[0] == COMMENT
    assert orjson.loads(frames[1].removeprefix(b"data: "))["error"]["code"] == "overloaded"
    assert b"[DONE]" not in b"".join(frames)


def test_events_that_arrive_together_are_one_write() -> None:
    frames = list(stream_of(ReadyReply(EVENTS[:3], EVENTS[3:])).frames())
    assert [frame.count(b"data: ") for frame in frames] == [2, 2]


SILENT = ReadyReply(EVENTS[:3], [], [{"type": "ping"}], EVENTS[3:])


def test_what_tells_the_client_nothing_is_a_comment_once_it_is_time_for_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_stream, "KEEP_ALIVE_S", 0.0)
    frames = list(stream_of(SILENT).frames())
    assert frames[1:3] == [COMMENT, COMMENT]
    assert len(frames) == 4


def test_silence_that_is_looked_at_a_moment_too_early_is_still_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 109.999, 119.998, 119.998])
    monkeypatch.setattr(chat_stream, "time", SimpleNamespace(time=time.time, monotonic=lambda: next(clock)))
    assert list(stream_of(SILENT).frames())[1:3] == [COMMENT, COMMENT]


def test_before_that_nothing_is_written() -> None:
    frames = list(stream_of(SILENT).frames())
    assert COMMENT not in frames
    assert b"" not in frames  # which would end a chunked body
    assert len(frames) == 2


def test_a_comment_ends_no_event() -> None:
    """openai-go before 3.43 takes a blank line behind a comment for an event without data."""
    text = b"".join(stream_of(ReadyReply(EVENTS), waits=3).frames())
    assert text.startswith(b": keep-alive\n: keep-alive\n: keep-alive\ndata: {")
    assert all(b"data: " in event for event in text.removesuffix(b"\n\n").split(b"\n\n"))


@pytest.mark.parametrize("cut", range(len(EVENTS)))
def test_a_stream_that_breaks_off_anywhere_has_no_finish_and_no_done(cut: int) -> None:
    text = b"".join(stream_of(ReadyReply(EVENTS[:cut], error=OVERLOADED)).frames())
    assert b"[DONE]" not in text
    assert b'"finish_reason":"' not in text
    assert text.rstrip().endswith(b"}")
    assert b'"error"' in text


def test_an_answer_is_remembered_before_the_client_learns_that_it_is_complete() -> None:
    remembered: list[Any] = []
    reply = ReadyReply(EVENTS[:3], EVENTS[3:])
    answers = [answer_of(reply)]
    opening = SlowOpening(answers[0], 0)
    frames = ChatStream(opening, answers, ClientWatch({}), NoBooks(), remembered.append).frames()
    assert b"[DONE]" not in next(frames)
    assert remembered == []
    assert next(frames).endswith(DONE)
    assert remembered[0][0].message["content"] == [{"type": "text", "text": "Hello"}]


def test_closing_ends_the_call_upstream_in_every_phase() -> None:
    opening = SlowOpening(OVERLOADED, 1)
    ChatStream(opening, None, ClientWatch({}), NoBooks(), lambda answers: None).close()
    assert opening.cancelled
    reply = ReadyReply(EVENTS)
    answer = answer_of(reply)
    stream = ChatStream(SlowOpening(answer, 0), [answer], ClientWatch({}), NoBooks(), lambda answers: None)
    next(iter(stream.frames()))
    stream.close()
    assert reply.closed == 1


def test_however_a_stream_ends_the_books_are_told_before_its_client() -> None:
    for outcome, told in ((OVERLOADED, "failed"), (ReadyReply(EVENTS[:3], error=OVERLOADED), "failed")):
        books = NoBooks()
        result = answer_of(outcome) if isinstance(outcome, Reply) else outcome
        frames = ChatStream(SlowOpening(result, 0), None, ClientWatch({}), books, lambda answers: None).frames()
        assert any(b'"error"' in frame for frame in frames)
        assert books.told == [told]
    for begun in (False, True):
        books, answer = NoBooks(), answer_of(ReadyReply(EVENTS[:3], EVENTS[3:]))
        stream = ChatStream(
            SlowOpening(answer, 1), [answer] if begun else None, ClientWatch({}), books, lambda answers: None
        )
        next(iter(stream.frames()))
        stream.close()
        assert books.told == ["left"]


def test_while_an_answer_runs_the_body_of_its_request_is_held_once(make_app: AppMaker, simulator: str) -> None:
    environment = {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
        "ANTHROPIC_API_BASE_URLS": simulator,
    }
    client = make_app(runtime=environment).test_client()
    asked = {"model": "sim-text", "stream": True, "messages": [{"role": "user", "content": "word " * 20_000}]}
    answer = client.post("/v1/chat/completions", json=asked, headers=CLIENT)
    frames = answer.iter_encoded()
    next(frames)
    gc.collect()
    held = gc.get_objects()
    answer.close()
    chats = [each for each in held if isinstance(each, ChatRequest)]
    sent = [each for each in held if isinstance(each, Translation)]
    assert chats
    assert all(chat.asked == {} for chat in chats)
    assert len({id(each.body["messages"]) for each in sent if "word word" in str(each.body)}) == 1
