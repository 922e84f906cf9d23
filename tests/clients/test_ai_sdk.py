"""Vercel's AI SDK with its provider for OpenAI-compatible services."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import NodeRunner, Upstream, assistant_turns, replayed_thinking

QUESTION = "What is the weather in Paris?"
THOUGHT = f"The user says: {QUESTION} I should answer that briefly and to the point."
WORDS = " ".join(f"w{number}" for number in range(20))
MODELS = pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])


def joined(parts: list[dict[str, Any]], kind: str) -> str:
    return "".join(part["text"] for part in parts if part["type"] == kind)


def test_text_is_generated(node: NodeRunner) -> None:
    said = node("ai_sdk/generate.mjs", model="sim-text:tokens=20", prompt=QUESTION)
    assert (said["text"], said["finishReason"]) == (WORDS, "stop")
    assert said["totalUsage"]["outputTokens"] == 20
    assert said["totalUsage"]["inputTokens"] > 0


def test_text_is_streamed(node: NodeRunner) -> None:
    parts = node("ai_sdk/stream.mjs", model="sim-text:tokens=20", prompt=QUESTION)
    assert joined(parts, "text-delta") == WORDS
    assert (parts[-1]["type"], parts[-1]["finishReason"]) == ("finish", "stop")
    assert parts[-1]["totalUsage"]["outputTokens"] == 20


def test_reasoning_is_shown(node: NodeRunner) -> None:
    said = node("ai_sdk/generate.mjs", model="claude-opus-5-5", prompt=QUESTION)
    assert said["reasoningText"] == THOUGHT
    parts = node("ai_sdk/stream.mjs", model="claude-opus-5-5", prompt=QUESTION)
    assert joined(parts, "reasoning-delta") == THOUGHT
    kinds = [part["type"] for part in parts]
    assert kinds.index("reasoning-end") < kinds.index("text-start")
    assert kinds.count("reasoning-start") == kinds.count("text-start") == 1


@MODELS
def test_a_tool_is_run_for_a_whole_answer(node: NodeRunner, model: str) -> None:
    said = node("ai_sdk/generate.mjs", model=model, prompt=QUESTION, withTools=True)
    assert said["calls"] == [{"toolName": "get_weather", "input": {"city": "Paris"}}]
    assert "18 degrees in Paris" in said["text"]


@MODELS
@pytest.mark.parametrize("choice", ["required", {"type": "tool", "toolName": "get_weather"}], ids=["any", "named"])
def test_a_tool_can_be_demanded(node: NodeRunner, model: str, choice: Any) -> None:
    said = node("ai_sdk/generate.mjs", model=model, prompt="Hello", withTools=True, toolChoice=choice, steps=1)
    assert said["calls"] == [{"toolName": "get_weather", "input": {"city": "Paris"}}]
    assert said["finishReason"] == "tool-calls"


@MODELS
def test_a_tool_is_run_in_a_stream(node: NodeRunner, model: str) -> None:
    parts = node("ai_sdk/stream.mjs", model=model, prompt=QUESTION, withTools=True)
    calls = [part for part in parts if part["type"] == "tool-call"]
    assert [(call["toolName"], call["input"]) for call in calls] == [("get_weather", {"city": "Paris"})]
    assert [part["output"] for part in parts if part["type"] == "tool-result"] == ["18 degrees in Paris"]
    assert [part["finishReason"] for part in parts if part["type"] == "finish-step"] == ["tool-calls", "stop"]
    assert "18 degrees in Paris" in joined(parts, "text-delta")


@pytest.mark.parametrize("script", ["ai_sdk/generate.mjs", "ai_sdk/stream.mjs"])
def test_thinking_is_replayed_though_the_client_sends_its_text_alone(
    node: NodeRunner, upstream: Upstream, script: str
) -> None:
    node(script, model="claude-opus-5-5", prompt=QUESTION, withTools=True)
    loop = upstream.bodies(2)[1]
    assert [block["thinking"] for block in replayed_thinking(loop)] == [THOUGHT]
    assert [[block["type"] for block in turn] for turn in assistant_turns(loop)] == [["thinking", "tool_use"]]


@MODELS
def test_an_object_is_generated_by_its_schema(node: NodeRunner, model: str) -> None:
    assert node("ai_sdk/structured.mjs", model=model, prompt=QUESTION) == {"city": "Paris", "days": 1}


@pytest.mark.parametrize(
    ("model", "status", "retried"),
    [("sim-error-400", 400, False), ("sim-error-429", 429, True), ("sim-error-529", 503, True)],
)
def test_errors_have_their_status_and_say_what_is_wrong(
    node: NodeRunner, model: str, status: int, retried: bool
) -> None:
    error = node("ai_sdk/errors.mjs", model=model, prompt=QUESTION)
    assert (error["isApiCallError"], error["statusCode"], error["isRetryable"]) == (True, status, retried)
    assert error["message"]


def test_an_answer_that_breaks_off_is_an_error_and_not_a_stop(node: NodeRunner) -> None:
    parts = node("ai_sdk/stream.mjs", model="paced.sim-error-midstream-6:gap_ms=20", prompt=QUESTION)
    assert joined(parts, "text-delta").startswith("w0 w1")
    assert "verload" in str([part["error"] for part in parts if part["type"] == "error"])
    assert "stop" not in [part.get("finishReason") for part in parts]
