"""Vercel's AI SDK with its provider for Anthropic."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import MessagesDoor, NodeRunner, replayed_thinking

QUESTION = "What is the weather in Paris?"
WORDS = " ".join(f"w{number}" for number in range(20))
MODELS = pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])


@pytest.fixture
def ai(node_at_door: NodeRunner) -> NodeRunner:
    return lambda script, **values: node_at_door(f"ai_sdk/{script}.mjs", provider="anthropic", **values)


def joined(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text-delta")


def test_text_is_generated(ai: NodeRunner) -> None:
    said = ai("generate", model="sim-text:tokens=20", prompt=QUESTION)
    assert (said["text"], said["finishReason"]) == (WORDS, "stop")
    assert said["totalUsage"]["outputTokens"] == 20
    assert said["totalUsage"]["inputTokens"] > 0


def test_text_is_streamed(ai: NodeRunner) -> None:
    parts = ai("stream", model="sim-text:tokens=20", prompt=QUESTION)
    assert joined(parts) == WORDS
    assert (parts[-1]["type"], parts[-1]["finishReason"]) == ("finish", "stop")
    assert parts[-1]["totalUsage"]["outputTokens"] == 20


@MODELS
def test_a_tool_is_run_for_a_whole_answer(ai: NodeRunner, model: str) -> None:
    said = ai("generate", model=model, prompt=QUESTION, withTools=True)
    assert said["calls"] == [{"toolName": "get_weather", "input": {"city": "Paris"}}]
    assert "18 degrees in Paris" in said["text"]


@MODELS
def test_a_tool_is_run_in_a_stream(ai: NodeRunner, model: str) -> None:
    parts = ai("stream", model=model, prompt=QUESTION, withTools=True)
    calls = [part for part in parts if part["type"] == "tool-call"]
    assert [(call["toolName"], call["input"]) for call in calls] == [("get_weather", {"city": "Paris"})]
    assert [part["output"] for part in parts if part["type"] == "tool-result"] == ["18 degrees in Paris"]
    assert [part["finishReason"] for part in parts if part["type"] == "finish-step"] == ["tool-calls", "stop"]
    assert "18 degrees in Paris" in joined(parts)


@pytest.mark.parametrize("script", ["generate", "stream"])
def test_signed_thinking_comes_back_in_the_tool_loop(ai: NodeRunner, messages_door: MessagesDoor, script: str) -> None:
    ai(script, model="claude-opus-5-5", prompt=QUESTION, withTools=True)
    _, second = messages_door.messages()
    assert len(replayed_thinking(second["body"])) == 1


def test_an_object_is_generated_by_its_schema(ai: NodeRunner) -> None:
    assert ai("structured", model="claude-opus-5-5", prompt=QUESTION) == {"city": "Paris", "days": 1}


@pytest.mark.parametrize(
    ("model", "status", "retried"),
    [("sim-error-400", 400, False), ("sim-error-429", 429, True), ("sim-error-529", 529, True)],
)
def test_errors_have_their_status_and_say_what_is_wrong(ai: NodeRunner, model: str, status: int, retried: bool) -> None:
    error = ai("errors", model=model, prompt=QUESTION)
    assert (error["isApiCallError"], error["statusCode"], error["isRetryable"]) == (True, status, retried)
    assert error["message"]


def test_an_answer_that_breaks_off_is_an_error_and_not_a_stop(ai: NodeRunner, messages_door: MessagesDoor) -> None:
    parts = ai("stream", model=f"{messages_door.paced}sim-error-midstream-6:gap_ms=20", prompt=QUESTION)
    assert joined(parts).startswith("w0 w1")
    assert "verload" in str([part["error"] for part in parts if part["type"] == "error"])
    assert "stop" not in [part.get("finishReason") for part in parts]
