"""LangChain's ChatAnthropic."""

from __future__ import annotations

from typing import Any

import anthropic
import pydantic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from tests.clients.conftest import MessagesDoor, replayed_thinking

QUESTION = "What is the weather in Paris?"
MODELS = pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"18 degrees in {city}"


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told to LangChain's own service, whatever the environment says."""
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)


def chat(door: MessagesDoor, model: str, **options: Any) -> ChatAnthropic:
    return ChatAnthropic(
        model_name=model,
        base_url=door.url,
        api_key=pydantic.SecretStr(door.key),
        max_tokens_to_sample=500,
        max_retries=0,
        timeout=30,
        stop=None,
        **options,
    )


def test_a_conversation_is_answered(messages_door: MessagesDoor) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage(QUESTION)]
    answer = chat(messages_door, "sim-text:tokens=5").invoke(messages)
    assert answer.content == "w0 w1 w2 w3 w4"
    assert answer.response_metadata["stop_reason"] == "end_turn"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 5
    (entry,) = messages_door.messages()
    assert [message["role"] for message in entry["body"]["messages"]] == ["user", "assistant", "user"]


def test_a_stream_adds_up_to_the_answer(messages_door: MessagesDoor) -> None:
    pieces = list(chat(messages_door, "sim-text:tokens=20").stream(QUESTION))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert len([piece for piece in pieces if piece.text]) == 20
    assert total.text == " ".join(f"w{number}" for number in range(20))
    assert total.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] == 20


@MODELS
@pytest.mark.parametrize("streaming", [False, True])
def test_bound_tools_are_called_until_the_answer_is_there(
    messages_door: MessagesDoor, model: str, streaming: bool
) -> None:
    bound = chat(messages_door, model, streaming=streaming).bind_tools([get_weather])
    assert "18 degrees in Paris" in run_tools(bound).text


@pytest.mark.parametrize("streaming", [False, True])
def test_signed_thinking_comes_back_in_the_tool_loop(messages_door: MessagesDoor, streaming: bool) -> None:
    run_tools(chat(messages_door, "claude-opus-5-5", streaming=streaming).bind_tools([get_weather]))
    _, second = messages_door.messages()
    assert len(replayed_thinking(second["body"])) == 1


def run_tools(bound: Any) -> Any:
    messages: list[Any] = [HumanMessage(QUESTION)]
    while True:
        answer = bound.invoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            return answer
        for call in answer.tool_calls:
            assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
            messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))


def test_tokens_are_counted_by_the_api(messages_door: MessagesDoor) -> None:
    assert chat(messages_door, "claude-opus-5-5").get_num_tokens_from_messages([HumanMessage(QUESTION)]) > 0
    assert [entry["path"] for entry in messages_door.journal()] == ["/v1/messages/count_tokens"]


def test_errors_are_those_of_the_sdk_below(messages_door: MessagesDoor) -> None:
    with pytest.raises(anthropic.RateLimitError):
        chat(messages_door, "sim-error-429").invoke(QUESTION)
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(chat(messages_door, f"{messages_door.paced}sim-error-midstream-6:gap_ms=20").stream(QUESTION))
    assert caught.value.type == "overloaded_error"
