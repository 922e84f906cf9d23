"""OpenAI's SDK for JavaScript."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import NodeRunner, Upstream, assistant_turns, replayed_thinking

QUESTION = "What is the weather in Paris?"
ASKED = [{"role": "user", "content": QUESTION}]
THOUGHT = f"The user says: {QUESTION} I should answer that briefly and to the point."
WORDS = " ".join(f"w{number}" for number in range(20))


def test_an_answer_has_text_reason_and_usage(node: NodeRunner) -> None:
    answer = node("openai_js/create.mjs", asked={"model": "sim-text:tokens=20", "messages": ASKED})
    assert answer["choices"][0]["message"]["content"] == WORDS
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 20


def test_a_stream_is_put_together_again(node: NodeRunner) -> None:
    asked = {"model": "sim-text:tokens=20", "messages": ASKED, "stream_options": {"include_usage": True}}
    streamed = node("openai_js/stream.mjs", asked=asked)
    assert streamed["completion"]["choices"][0]["message"]["content"] == "".join(streamed["pieces"]) == WORDS
    assert streamed["completion"]["usage"]["completion_tokens"] == 20
    assert "".join(delta.get("content") or "" for delta in streamed["deltas"]) == WORDS


def test_the_thinking_is_shown_and_signed(node: NodeRunner) -> None:
    asked = {"model": "claude-opus-5-5", "messages": ASKED}
    message = node("openai_js/create.mjs", asked=asked)["choices"][0]["message"]
    assert message["reasoning_content"] == THOUGHT
    assert [detail["text"] for detail in message["reasoning_details"]] == [THOUGHT]
    streamed = node("openai_js/stream.mjs", asked=asked)
    assert "".join(delta.get("reasoning_content") or "" for delta in streamed["deltas"]) == THOUGHT
    (detail,) = streamed["completion"]["choices"][0]["message"]["reasoning_details"]
    assert (detail["text"], detail["format"], detail["index"]) == (THOUGHT, "anthropic-claude-v1", 0)
    assert detail["signature"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6", "sim-parallel-tools", "sim-whole-tool"])
def test_the_sdk_runs_tools_until_the_answer_is_there(node: NodeRunner, model: str, stream: bool) -> None:
    ran = node("openai_js/run_tools.mjs", asked={"model": model, "messages": ASKED, "stream": stream})
    calls = ran["messages"][1]["tool_calls"]
    assert len(calls) == (2 if model == "sim-parallel-tools" else 1)
    for call in calls:
        assert (call["function"]["name"], call["function"]["arguments"]) == ("get_weather", '{"city":"Paris"}')
    assert [message["role"] for message in ran["messages"]][2:-1] == ["tool"] * len(calls)
    assert "18 degrees in Paris" in ran["answer"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["openai_js/run_tools.mjs", "openai_js/copied.mjs"])
def test_signed_thinking_comes_back_in_the_tool_loop(
    node: NodeRunner, upstream: Upstream, script: str, stream: bool
) -> None:
    asked = {"model": "claude-opus-5-5", "messages": ASKED, "stream": stream}
    node(script, asked=asked, **asked)
    loop = upstream.bodies(2)[1]
    assert [block["thinking"] for block in replayed_thinking(loop)] == [THOUGHT]
    assert [[block["type"] for block in turn] for turn in assistant_turns(loop)] == [["thinking", "tool_use"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["openai_js/run_tools.mjs", "openai_js/copied.mjs"])
def test_thinking_between_calls_comes_back_in_its_place(
    node: NodeRunner, upstream: Upstream, script: str, stream: bool
) -> None:
    """The SDK's own loop sends no field that it does not know. In a message that it put together of a stream, there
    are the `reasoning_details` of the last chunk alone."""
    asked = {"model": "sim-interleaved", "messages": ASKED, "stream": stream}
    node(script, asked=asked, **asked)
    loop = upstream.bodies(2)[1]
    kinds = [block["type"] for block in assistant_turns(loop)[0]]
    assert kinds == ["thinking", "text", "tool_use", "thinking", "tool_use"]
    assert len(replayed_thinking(loop)) == 2


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_an_answer_is_parsed_by_its_schema(node: NodeRunner, model: str) -> None:
    parsed = node("openai_js/structured.mjs", asked={"model": model, "messages": ASKED})
    assert parsed == [{"city": "Paris", "days": 1, "stops": ["example stops"]}] * 2


def test_several_choices_are_several_answers(node: NodeRunner) -> None:
    asked = {"model": "sim-text:tokens=20", "messages": ASKED, "n": 2}
    whole = node("openai_js/create.mjs", asked=asked)
    streamed = node("openai_js/stream.mjs", asked=asked)["completion"]
    for completion in (whole, streamed):
        assert [choice["index"] for choice in completion["choices"]] == [0, 1]
        assert [choice["message"]["content"] for choice in completion["choices"]] == [WORDS] * 2


ERRORS: list[tuple[dict[str, Any], tuple[str, int | None, str | None]]] = [
    ({"model": "claude-nope"}, ("NotFoundError", 404, "model_not_found")),
    ({"logprobs": True}, ("BadRequestError", 400, "unsupported_parameter")),
    ({"model": "sim-error-413"}, ("APIError", 413, "request_too_large")),
    ({"model": "sim-error-429"}, ("RateLimitError", 429, "rate_limit_exceeded")),
    ({"model": "sim-error-low-credit"}, ("RateLimitError", 429, "insufficient_quota")),
    ({"model": "sim-error-529", "stream": True}, ("InternalServerError", 503, "overloaded")),
    ({"model": "paced.sim-error-midstream-6:gap_ms=20", "stream": True}, ("APIError", None, "overloaded")),
    ({"model": "paced.sim-cut-8:gap_ms=20", "stream": True}, ("APIError", None, "upstream_disconnected")),
]


def test_errors_have_the_class_status_and_code_that_a_program_looks_at(node: NodeRunner) -> None:
    requests = [{"model": "sim-text", "messages": ASKED, **fields} for fields, _ in ERRORS]
    caught = node("openai_js/errors.mjs", requests=requests)
    assert [(error["class"], error.get("status"), error["code"]) for error in caught] == [said for _, said in ERRORS]
    assert caught[1]["param"] == "logprobs"
    assert all(error["message"] for error in caught)


def test_a_wrong_key_is_an_authentication_error(node: NodeRunner) -> None:
    asked = {"model": "sim-text", "messages": ASKED}
    (error,) = node("openai_js/errors.mjs", requests=[asked], apiKey="sk-dgm-nobody")
    assert (error["class"], error["status"], error["code"]) == ("AuthenticationError", 401, "invalid_api_key")
