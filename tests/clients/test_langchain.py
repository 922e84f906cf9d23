"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.clients.conftest import Upstream, assistant_turns, replayed_thinking
from tests.conftest import CLIENT_KEY, Gateway

QUESTION = "What is the weather in Paris?"
THOUGHT = f"The user says: {QUESTION} I should answer that briefly and to the point."
MODELS = pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"18 degrees in {city}"


class Trip(pydantic.BaseModel):
    """A trip to somewhere."""

    city: str
    days: int = pydantic.Field(ge=1, le=30)
    stops: list[str]
    note: str | None


TRIP = Trip(city="Paris", days=1, stops=["example stops"], note="example note")


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told to LangChain's own service, whatever the environment says."""
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)


def chat(running: Gateway, model: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=model, base_url=f"{running.url}/v1", api_key=pydantic.SecretStr(CLIENT_KEY), max_retries=0, **options
    )


def test_a_conversation_is_answered(running: Gateway, upstream: Upstream) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage(QUESTION)]
    answer = chat(running, "sim-text:tokens=5", temperature=0.7).invoke(messages)
    assert answer.content == "w0 w1 w2 w3 w4"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 5
    (body,) = upstream.bodies(1)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in body["system"]] == ["Be brief."]


def test_a_stream_adds_up_to_the_answer_with_usage_counted_once(running: Gateway) -> None:
    pieces = list(chat(running, "sim-text:tokens=20", stream_usage=True).stream(QUESTION))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert len([piece for piece in pieces if piece.content]) == 20
    assert total.content == " ".join(f"w{number}" for number in range(20))
    assert total.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] == 20


@MODELS
@pytest.mark.parametrize("streaming", [False, True])
def test_bound_tools_are_called_until_the_answer_is_there(running: Gateway, model: str, streaming: bool) -> None:
    *_, answer = run_tools(chat(running, model, streaming=streaming).bind_tools([get_weather]))
    assert "18 degrees in Paris" in answer.content


def run_tools(bound: Any) -> list[Any]:
    messages: list[Any] = [HumanMessage(QUESTION)]
    while True:
        answer = bound.invoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            return messages
        for call in answer.tool_calls:
            assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
            messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))


@pytest.mark.parametrize("streaming", [False, True])
def test_signed_thinking_is_replayed_though_langchain_drops_it(
    running: Gateway, upstream: Upstream, streaming: bool
) -> None:
    run_tools(chat(running, "claude-opus-5-5", streaming=streaming).bind_tools([get_weather]))
    loop = upstream.bodies(2)[1]
    assert [block["thinking"] for block in replayed_thinking(loop)] == [THOUGHT]
    assert [[block["type"] for block in turn] for turn in assistant_turns(loop)] == [["thinking", "tool_use"]]


@MODELS
@pytest.mark.parametrize("choice", ["any", "get_weather"])
def test_a_tool_can_be_demanded(running: Gateway, model: str, choice: str) -> None:
    answer = chat(running, model).bind_tools([get_weather], tool_choice=choice).invoke("Hello")
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})


# LangChain dumps OpenAI's parsed answer with the wrong type parameter, whoever answers.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@MODELS
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("streaming", [False, True])
def test_structured_output_is_of_the_given_model(running: Gateway, model: str, method: Any, streaming: bool) -> None:
    structured = chat(running, model, streaming=streaming).with_structured_output(Trip, method=method)
    assert structured.invoke("Plan something.") == TRIP


@MODELS
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_with_the_raw_answer_has_no_parsing_error(running: Gateway, model: str, method: Any) -> None:
    structured = chat(running, model).with_structured_output(Trip, method=method, include_raw=True)
    answer = structured.invoke("Plan something.")
    assert isinstance(answer, dict)
    assert (answer["parsed"], answer["parsing_error"]) == (TRIP, None)


@MODELS
def test_structured_output_may_be_strict(running: Gateway, model: str) -> None:
    structured = chat(running, model).with_structured_output(Trip, method="json_schema", strict=True)
    assert structured.invoke("Plan something.") == TRIP


def test_reasoning_effort_is_taken(running: Gateway, upstream: Upstream) -> None:
    assert chat(running, "claude-opus-5-5", reasoning_effort="low").invoke(QUESTION).content
    (body,) = upstream.bodies(1)
    assert body["output_config"]["effort"] == "low"


def test_errors_are_those_of_the_sdk_below(running: Gateway) -> None:
    with pytest.raises(openai.RateLimitError):
        chat(running, "sim-error-429").invoke(QUESTION)
    with pytest.raises(openai.APIError) as caught:
        list(chat(running, "paced.sim-error-midstream-6:gap_ms=20").stream(QUESTION))
    assert caught.value.code == "overloaded"
