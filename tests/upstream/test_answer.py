"""An answer of several of Claude's messages looks like one: in events, in blocks, in tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import UpstreamError
from app.storage.connections import Connection
from app.translate.accumulate import LATE_WARNINGS
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.translation import ReplyContext, Translation
from app.upstream.answer import Answer
from app.upstream.dispatch import Dispatch
from app.upstream.reply import Reply

QUESTION = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def message(stop_reason: str, *content: dict[str, Any], tokens: int = 10) -> dict[str, Any]:
    usage = {"input_tokens": 5, "output_tokens": tokens}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": list(content), "stop_reason": stop_reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def events(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    for index, block in enumerate(whole["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"]}, "usage": whole["usage"]}
    yield {"type": "message_stop"}


class ReadyReply(Reply):
    def __init__(self, whole: dict[str, Any], context: ReplyContext, *, streamed: bool) -> None:
        self.dispatch = Dispatch(Connection("conn_1", 0, "https://upstream.example", "key"), "m")
        self.connection = self.dispatch.connection
        self.translation = Translation({"messages": [QUESTION]}, {}, may_run_long=False, reply=context)
        self.is_streamed = streamed
        self.message = whole
        self.closed = 0

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        for event in events(self.message):
            yield [event]

    def close(self) -> None:
        self.closed += 1


class Upstream:
    """Gives these messages, one after the other, and notes what it was asked."""

    def __init__(self, *messages: dict[str, Any], streamed: bool, **context: Any) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.context = ReplyContext(**context)
        self.replies = [ReadyReply(m, self.context, streamed=streamed) for m in messages]
        self._waiting = iter(self.replies)
        self.answer = Answer(next(self._waiting), self.reopen, ends_at=time.monotonic() + 60)

    def reopen(self, body: dict[str, Any]) -> Reply:
        self.asked.append(body["messages"])
        return next(self._waiting)

    def completed(self) -> dict[str, Any]:
        self.answer.complete()
        return to_chat_completion([self.answer.message], self.context, created=1)

    def streamed(self) -> list[dict[str, Any]]:
        translator = StreamTranslator(self.context, created=1)
        chunks = [chunk for batch in self.answer.batches() for event in batch for chunk in translator.feed(event)]
        assert translator.is_complete
        return chunks


def content_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


PAUSED = (message("pause_turn", text("Let me look."), SEARCH), message("end_turn", text(" Found."), tokens=7))


@pytest.mark.parametrize("streamed", [True, False])
def test_a_pause_is_continued_with_what_was_said_and_counted_together(streamed: bool) -> None:
    upstream = Upstream(*PAUSED, streamed=streamed)
    choice = upstream.completed()
    assert choice["choices"][0]["message"]["content"] == "Let me look. Found."
    assert choice["choices"][0]["finish_reason"] == "stop"
    assert (choice["usage"]["prompt_tokens"], choice["usage"]["completion_tokens"]) == (10, 17)
    assert upstream.asked == [[QUESTION, {"role": "assistant", "content": [text("Let me look."), SEARCH]}]]
    assert upstream.answer.is_one_turn
    assert upstream.replies[0].closed == 1


def test_a_pause_is_not_seen_in_a_stream() -> None:
    upstream = Upstream(*PAUSED, streamed=True, include_usage=True)
    chunks = upstream.streamed()
    assert content_of(chunks) == "Let me look. Found."
    assert [c["choices"][0]["delta"].get("role") for c in chunks if c["choices"]].count("assistant") == 1
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"] and c["choices"][0]["finish_reason"]] == [
        "stop"
    ]
    assert chunks[-1]["usage"]["completion_tokens"] == 17


def test_blocks_of_a_later_message_are_numbered_on() -> None:
    upstream = Upstream(*PAUSED, streamed=True)
    indexes = [event["index"] for batch in upstream.answer.batches() for event in batch if "index" in event]
    assert indexes == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_pause_without_a_word_begins_the_answer_only_once(streamed: bool) -> None:
    paused = (message("pause_turn"), message("end_turn", text("Here.")))
    upstream = Upstream(*paused, streamed=True)
    if streamed:
        chunks = upstream.streamed()
        assert [c["choices"][0]["delta"].get("role") for c in chunks].count("assistant") == 1
        assert content_of(chunks) == "Here."
    else:
        assert upstream.completed()["choices"][0]["message"]["content"] == "Here."
    assert upstream.asked == [[QUESTION]]


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_pauses_for_ever_ends_after_five_and_says_so(streamed: bool) -> None:
    upstream = Upstream(*[message("pause_turn", text("x"), SEARCH) for _ in range(9)], streamed=streamed)
    made = upstream.completed()
    assert len(upstream.asked) == 5
    assert made["choices"][0]["finish_reason"] == "stop"
    assert made["choices"][0]["native_finish_reason"] == "pause_turn"
    assert made["gateway"] == {"warnings": ["pause_turn"]}


def test_a_pause_with_open_calls_of_the_client_is_the_clients_turn() -> None:
    upstream = Upstream(message("pause_turn", SEARCH, CALL), streamed=True)
    choice = upstream.completed()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["id"] == "toolu_1"
    assert upstream.asked == []


@pytest.mark.parametrize("streamed", [True, False])
def test_a_model_that_calls_no_tool_although_it_must_is_told_once_more(streamed: bool) -> None:
    messages = (message("end_turn", text("No.")), message("tool_use", CALL))
    upstream = Upstream(*messages, streamed=True, demand="You must call f.")
    if streamed:
        chunks = upstream.streamed()
        assert content_of(chunks) == "No.\n\n"
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        message_made = upstream.completed()["choices"][0]["message"]
        assert (message_made["content"], len(message_made["tool_calls"])) == ("No.\n\n", 1)
    demand = {"role": "user", "content": [text("You must call f.")]}
    assert upstream.asked == [[QUESTION, {"role": "assistant", "content": [text("No.")]}, demand]]
    assert not upstream.answer.is_one_turn


def test_one_that_still_calls_none_is_given_as_it_is_and_told() -> None:
    upstream = Upstream(*[message("end_turn", text("No.")) for _ in range(3)], streamed=True, demand="You must.")
    chunks = upstream.streamed()
    assert len(upstream.asked) == 1
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["gateway"] == {"warnings": ["forced_tool_not_honoured"]}


def test_a_prefill_is_continued_as_one_turn() -> None:
    upstream = Upstream(*PAUSED, streamed=True)
    begun = {"role": "assistant", "content": [text("I say:")]}
    upstream.answer._parts.body = {"messages": [QUESTION, begun]}
    upstream.completed()
    assert upstream.asked[0][1]["content"] == [text("I say:"), text("Let me look."), SEARCH]


def test_when_the_time_is_over_a_pause_is_an_error_and_no_end() -> None:
    upstream = Upstream(*PAUSED, streamed=True)
    upstream.answer._ends_at = time.monotonic() - 1
    with pytest.raises(UpstreamError) as caught:
        upstream.completed()
    assert (caught.value.status, caught.value.code) == (504, "timeout")


def test_an_ordinary_answer_passes_through_unchanged() -> None:
    whole = message("end_turn", text("Hello."))
    upstream = Upstream(whole, streamed=True)
    assert [event for batch in upstream.answer.batches() for event in batch] == list(events(whole))
    assert LATE_WARNINGS not in upstream.answer.message
