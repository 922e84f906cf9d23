"""Anthropic's SDK for JavaScript."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import THREADED, MessagesDoor, NodeRunner, replayed_thinking

QUESTION = "What is the weather in Paris?"
ASKED = [{"role": "user", "content": QUESTION}]
WORDS = " ".join(f"w{number}" for number in range(20))


def asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 500, "messages": ASKED, **more}


def test_an_answer_has_text_reason_and_usage(node_at_door: NodeRunner) -> None:
    answer = node_at_door("anthropic_js/create.mjs", asked=asked("sim-text:tokens=20"))
    assert [block["text"] for block in answer["content"]] == [WORDS]
    assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == ("end_turn", 20)


def test_a_stream_is_put_together_again(node_at_door: NodeRunner) -> None:
    streamed = node_at_door("anthropic_js/stream.mjs", asked=asked("sim-text:tokens=20"))
    assert streamed["message"]["content"][0]["text"] == "".join(streamed["pieces"]) == WORDS
    assert streamed["message"]["usage"]["output_tokens"] == 20
    assert len(streamed["pieces"]) == streamed["kinds"].count("content_block_delta") == 20
    assert (streamed["kinds"][0], streamed["kinds"][-1]) == ("message_start", "message_stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thread", [pytest.param(False, id="whole history"), THREADED])
def test_the_sdk_runs_tools_until_the_answer_is_there(
    node_at_door: NodeRunner, messages_door: MessagesDoor, stream: bool, thread: Any
) -> None:
    is_threaded = thread is None and messages_door.keeps_threads
    options = {"stream": stream} if thread is None else {"stream": stream, "thread": thread}
    ran = node_at_door("anthropic_js/run_tools.mjs", asked=asked("claude-opus-5-5", **options))
    assert "18 degrees in Paris" in ran["answer"]["content"][-1]["text"]
    assert [message["role"] for message in ran["messages"]] == ["user", "assistant", "user", "assistant"]
    second = messages_door.messages()[1]["body"]
    assert len(second["messages"]) == (1 if is_threaded else 3)
    assert len(replayed_thinking(second)) == (0 if is_threaded else 1)


def test_tokens_are_counted(node_at_door: NodeRunner) -> None:
    given = {"model": "claude-opus-5-5", "messages": ASKED}
    assert node_at_door("anthropic_js/count.mjs", asked=given)["input_tokens"] > 0


def test_models_are_listed_page_by_page(node_at_door: NodeRunner) -> None:
    said = node_at_door("anthropic_js/models.mjs", limit=5, model="claude-opus-5-5")
    ids = [model for page in said["pages"] for model in page]
    assert len(ids) == len(set(ids)) > 10
    assert {len(page) for page in said["pages"][:-1]} == {5}
    assert said["one"]["max_input_tokens"] == 1_000_000


def test_errors_have_their_class_status_and_type(node_at_door: NodeRunner) -> None:
    models = ["sim-error-400", "sim-error-429", "sim-error-529", "claude-of-nobody"]
    caught = node_at_door("anthropic_js/errors.mjs", requests=[asked(model) for model in models])
    assert [(error["class"], error["status"], error["type"]) for error in caught] == [
        ("BadRequestError", 400, "invalid_request_error"),
        ("RateLimitError", 429, "rate_limit_error"),
        ("OverloadedError", 529, "overloaded_error"),
        ("NotFoundError", 404, "not_found_error"),
    ]
    assert all(error["hasRequestID"] for error in caught)


def test_an_answer_that_breaks_off_is_an_error(node_at_door: NodeRunner, messages_door: MessagesDoor) -> None:
    broken = asked(f"{messages_door.paced}sim-error-midstream-6:gap_ms=20", stream=True)
    (caught,) = node_at_door("anthropic_js/errors.mjs", requests=[broken])
    assert caught["type"] == "overloaded_error"
    assert caught["got"].startswith("w0 w1")
