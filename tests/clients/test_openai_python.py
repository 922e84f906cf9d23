"""OpenAI's SDK for Python."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai import OpenAI

from tests.clients.conftest import Upstream, assistant_turns, replayed_thinking, without_breakpoints
from tests.conftest import CLIENT_KEY, Gateway

QUESTION = "What is the weather in Paris?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
THOUGHT = f"The user says: {QUESTION} I should answer that briefly and to the point."


@pytest.fixture
def client(running: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0) as made:
        yield made


def streamed(client: OpenAI, **asked: Any) -> Any:
    with client.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion()


def whole(client: OpenAI, **asked: Any) -> Any:
    return client.chat.completions.create(**asked)


EITHER_WAY = pytest.mark.parametrize("ask", [whole, streamed])


@EITHER_WAY
def test_an_answer_has_text_reason_and_usage(client: OpenAI, ask: Any) -> None:
    answer = ask(client, model="sim-text:tokens=20", messages=ASKED, **usage_of(ask))
    assert answer.choices[0].message.content == " ".join(f"w{number}" for number in range(20))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20


def usage_of(ask: Any) -> dict[str, Any]:
    return {"stream_options": {"include_usage": True}} if ask is streamed else {}


@EITHER_WAY
def test_the_thinking_is_shown_and_signed(client: OpenAI, ask: Any) -> None:
    message = ask(client, model="claude-opus-5-5", messages=ASKED).choices[0].message
    assert message.reasoning_content == THOUGHT
    (detail,) = message.reasoning_details
    assert detail["signature"]
    assert {key: detail[key] for key in ("type", "text", "format", "index", "block_index", "model")} == {
        "type": "reasoning.text",
        "text": THOUGHT,
        "format": "anthropic-claude-v1",
        "index": 0,
        "block_index": 0,
        "model": "claude-opus-5-5",
    }


@EITHER_WAY
def test_redacted_thinking_is_carried_as_it_is(client: OpenAI, upstream: Upstream, ask: Any) -> None:
    messages = [*ASKED]
    message = ask(client, model="sim-redacted", messages=messages).choices[0].message
    (detail,) = message.reasoning_details
    assert (detail["type"], detail["format"]) == ("reasoning.encrypted", "anthropic-claude-v1")
    messages += [message.model_dump(exclude_none=True), {"role": "user", "content": "And then?"}]
    ask(client, model="sim-redacted", messages=messages)
    (turn,) = assistant_turns(upstream.bodies(2)[1])
    assert turn[0] == {"type": "redacted_thinking", "data": detail["data"]}
    assert turn[1]["type"] == "text"


def test_the_reasoning_arrives_before_the_text_it_led_to(client: OpenAI) -> None:
    kinds = []
    for chunk in client.chat.completions.create(model="claude-opus-5-5", messages=ASKED, stream=True):
        delta = chunk.choices[0].delta.to_dict()
        kinds += [kind for kind in ("reasoning_content", "reasoning_details", "content") if delta.get(kind)]
    assert list(dict.fromkeys(kinds)) == ["reasoning_content", "reasoning_details", "content"]
    assert kinds.count("reasoning_details") == 1
    assert kinds.count("reasoning_content") > 5


@EITHER_WAY
def test_reasoning_can_be_left_out(client: OpenAI, ask: Any) -> None:
    excluded = {"reasoning": {"exclude": True}}
    message = ask(client, model="claude-opus-5-5", messages=ASKED, extra_body=excluded).choices[0].message
    assert message.content
    assert not message.to_dict().get("reasoning_content")


@EITHER_WAY
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6", "sim-parallel-tools", "sim-empty-tool"])
def test_tools_are_called_until_the_answer_is_there(client: OpenAI, ask: Any, model: str) -> None:
    messages = run_tools(client, ask, model, lambda message: message.model_dump(exclude_none=True))
    assert messages[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert "18 degrees" in messages[-1]["content"]


def run_tools(client: OpenAI, ask: Any, model: str, copied: Any, start: Any = ASKED, **more: Any) -> list[Any]:
    """The conversation after a tool loop, with the assistant's messages as `copied` keeps them."""
    messages: list[Any] = list(start)
    while True:
        choice = ask(client, model=model, messages=messages, tools=[WEATHER], **more).choices[0]
        messages.append(copied(choice.message))
        if choice.finish_reason == "stop":
            return messages
        assert choice.finish_reason == "tool_calls"
        for call in choice.message.tool_calls:
            city = json.loads(call.function.arguments).get("city", "nowhere")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": f"18 degrees in {city}"})


@EITHER_WAY
def test_signed_thinking_comes_back_with_the_copied_message(client: OpenAI, upstream: Upstream, ask: Any) -> None:
    messages = run_tools(client, ask, "claude-opus-5-5", lambda message: message.model_dump(exclude_none=True))
    messages.append({"role": "user", "content": "And the weather in Rome?"})
    run_tools(client, ask, "claude-opus-5-5", lambda message: message.model_dump(exclude_none=True), messages)
    loop, later, last = upstream.bodies(4)[1:]
    first = messages[1]["reasoning_details"][0]
    second = messages[3]["reasoning_details"][0]
    in_loop = {"type": "thinking", "thinking": THOUGHT, "signature": first["signature"]}
    assert replayed_thinking(loop) == [in_loop]
    assert [block["type"] for block in assistant_turns(loop)[0]] == ["thinking", "tool_use"]
    after = {"type": "thinking", "thinking": second["text"], "signature": second["signature"]}
    assert replayed_thinking(later) == [in_loop, after]
    assert replayed_thinking(last)[:2] == [in_loop, after]
    assert len(replayed_thinking(last)) == 3


def bare(message: Any) -> dict[str, Any]:
    """What a client keeps that knows OpenAI's own fields and no other."""
    kept = message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)
    return {"content": None, **kept}


@EITHER_WAY
@pytest.mark.parametrize(
    ("model", "exclude"), [("claude-opus-5-5", False), ("claude-opus-5-5", True), ("claude-opus-5", False)]
)
def test_a_client_that_keeps_no_reasoning_still_has_it_replayed_in_the_loop(
    client: OpenAI, upstream: Upstream, ask: Any, model: str, exclude: bool
) -> None:
    shown = []

    def copied(message: Any) -> Any:
        shown.append(message.to_dict())
        return bare(message)

    more = {"extra_body": {"reasoning": {"exclude": True}}} if exclude else {}
    messages = run_tools(client, ask, model, copied, **more)
    messages.append({"role": "user", "content": "Thank you."})
    ask(client, model=model, messages=messages, tools=[WEATHER], **more)
    loop, later = upstream.bodies(3)[1:]
    for body in (loop, later):
        block = replayed_thinking(body)[0]
        assert block["thinking"] == ("" if exclude else THOUGHT)
        assert [block["type"] for block in assistant_turns(body)[0]] == ["thinking", "tool_use"]
        if not exclude:
            assert block["signature"] == shown[0]["reasoning_details"][0]["signature"]


INTERLEAVED = ["thinking", "text", "tool_use", "thinking", "tool_use"]


@EITHER_WAY
@pytest.mark.parametrize("copied", [bare, lambda message: message.model_dump(exclude_none=True)], ids=["bare", "whole"])
def test_thinking_between_calls_comes_back_in_its_place(
    client: OpenAI, upstream: Upstream, ask: Any, copied: Any
) -> None:
    run_tools(client, ask, "sim-interleaved", copied)
    loop = upstream.bodies(2)[1]
    assert [block["type"] for block in assistant_turns(loop)[0]] == INTERLEAVED
    thoughts = ["I need two things; the first one first.", "While that runs, I ask for the second."]
    assert [block["thinking"] for block in replayed_thinking(loop)] == thoughts


def test_the_beginning_of_a_conversation_stays_the_same_from_call_to_call(client: OpenAI, upstream: Upstream) -> None:
    messages = run_tools(client, whole, "claude-opus-5-5", bare)
    messages.append({"role": "user", "content": "Thank you."})
    whole(client, model="claude-opus-5-5", messages=messages, tools=[WEATHER])
    bodies = upstream.bodies(3)
    for earlier, later in itertools.pairwise(without_breakpoints(bodies)):
        assert later["tools"] == earlier["tools"]
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]


def test_another_model_is_not_given_the_thinking_of_the_first(client: OpenAI, upstream: Upstream) -> None:
    messages = run_tools(client, whole, "claude-opus-5-5", lambda message: message.model_dump(exclude_none=True))
    messages.append({"role": "user", "content": "Thank you."})
    whole(client, model="claude-opus-4-6", messages=messages, tools=[WEATHER])
    assert replayed_thinking(upstream.bodies(3)[2]) == []


class Trip(pydantic.BaseModel):
    city: str
    days: int = pydantic.Field(ge=1, le=30)
    stops: list[str] | None = None


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_an_answer_is_parsed_into_a_model(client: OpenAI, model: str) -> None:
    parsed = client.chat.completions.parse(model=model, messages=ASKED, response_format=Trip)
    final = streamed(client, model=model, messages=ASKED, response_format=Trip)
    for answer in (parsed, final):
        assert answer.choices[0].message.parsed == Trip(city="Paris", days=1, stops=["example stops"])


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_the_arguments_of_a_call_are_parsed_into_a_model(client: OpenAI, model: str) -> None:
    tool = openai.pydantic_function_tool(Trip, name="plan_trip")
    asked: Any = [{"role": "user", "content": "Plan a trip."}]
    answer = client.chat.completions.parse(model=model, messages=asked, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Trip(city="Paris", days=1, stops=["example stops"])


def test_several_choices_are_several_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="sim-text:tokens=7", messages=ASKED, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"w0 w1 w2 w3 w4 w5 w6"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 21
    final = streamed(client, model="sim-text:tokens=7", messages=ASKED, n=8, **usage_of(streamed))
    assert sorted(choice.index for choice in final.choices) == list(range(8))
    assert {choice.message.content for choice in final.choices} == {"w0 w1 w2 w3 w4 w5 w6"}
    assert {choice.finish_reason for choice in final.choices} == {"stop"}
    assert final.usage.completion_tokens == 56


def test_usage_of_several_choices_stands_in_one_chunk(client: OpenAI) -> None:
    asked: Any = {"model": "sim-text:tokens=7", "messages": ASKED, "n": 3}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [21]
    assert chunks[-1].choices == []
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


@EITHER_WAY
def test_a_search_is_cited_where_its_text_stands(client: OpenAI, ask: Any) -> None:
    asked: Any = [{"role": "user", "content": "Search for the latest news."}]
    message = ask(client, model="claude-opus-4-6", messages=asked, web_search_options={}).choices[0].message
    (annotation,) = message.to_dict()["annotations"]
    assert annotation["type"] == "url_citation"
    cited = annotation["url_citation"]
    assert (cited["url"], cited["title"]) == ("https://example.com/", "Example Domain")
    span = message.content[cited["start_index"] : cited["end_index"]]
    assert span == "this domain is for use in documentation examples"
    assert not message.tool_calls


@EITHER_WAY
def test_a_pause_of_claude_is_not_seen(client: OpenAI, ask: Any, upstream: Upstream) -> None:
    asked: Any = {"model": "sim-pause", "messages": ASKED, "web_search_options": {}}
    answer = ask(client, **asked, **usage_of(ask))
    assert answer.choices[0].message.content == "Let me look that up. And this is the rest of it."
    assert answer.choices[0].finish_reason == "stop"
    first, second = upstream.bodies(2)
    assert second["messages"][:-1] == first["messages"]
    assert second["messages"][-1]["role"] == "assistant"
    assert answer.usage.completion_tokens > 10


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("sim-max-tokens", "length"),
        ("sim-context-exceeded", "length"),
        ("sim-refusal", "content_filter"),
        ("sim-unknown-stop", "stop"),
        ("sim-empty", "stop"),
    ],
)
def test_why_an_answer_ended_is_told_either_way(client: OpenAI, model: str, reason: str) -> None:
    asked: Any = {"model": model, "messages": ASKED}
    assert client.chat.completions.create(**asked).choices[0].finish_reason == reason
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [reason]


def test_errors_are_of_the_classes_that_a_program_catches(running: Gateway, client: OpenAI) -> None:
    def error_of(**asked: Any) -> Any:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**{"model": "sim-text", "messages": ASKED, **asked})
        return caught.value

    assert type(error_of(model="sim-error-429")) is openai.RateLimitError
    assert type(error_of(model="sim-error-529")) is openai.InternalServerError
    assert type(error_of(model="sim-error-404")) is openai.NotFoundError
    wrong = error_of(logprobs=True)
    assert type(wrong) is openai.BadRequestError
    assert (wrong.param, wrong.code) == ("logprobs", "unsupported_parameter")
    long = error_of(model="sim-error-prompt-too-long")
    assert (type(long), long.code) == (openai.BadRequestError, "context_length_exceeded")
    stranger = OpenAI(base_url=f"{running.url}/v1", api_key="sk-dgm-nobody", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_the_sdk_does_not_take_a_broken_answer_for_a_whole_one(client: OpenAI) -> None:
    with (
        pytest.raises(openai.APIError) as caught,
        client.chat.completions.stream(model="paced.sim-error-midstream-6:gap_ms=20", messages=ASKED) as stream,
    ):
        stream.get_final_completion()
    assert caught.value.code == "overloaded"
