"""What answers say beside their content, and what each model call of one used."""

import json

import pytest

TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
HELLO = {"max_tokens": 500, "messages": [{"role": "user", "content": "Hello"}]}
GUARDS = [{"type": "dangerous_tool_use", "classifier_context": {"version": 1}}]


def events_of(simulator, **body):
    data = simulator.post({**HELLO, **body, "stream": True})[2]
    return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]


def message_of(simulator, **body):
    return json.loads(simulator.post({**HELLO, **body})[2])


def test_safeguards_are_answered_by_the_ids_of_the_calls_in_the_last_delta(simulator):
    body = {"model": "sim-parallel-tools", "tools": [TOOL], "safeguards": GUARDS}
    events = events_of(simulator, **body)
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    calls = [block["id"] for block in starts if block["type"] == "tool_use"]
    delta = next(event["delta"] for event in events if event["type"] == "message_delta")
    (result,) = delta["safeguard_results"]
    assert (result["type"], result["status"]["type"]) == ("dangerous_tool_use", "available")
    assert list(result["status"]["tool_uses"]) == calls
    assert len(calls) == 2


def test_safeguards_are_answered_at_the_top_of_JSON(simulator):
    message = message_of(simulator, model="sim-tool-use", tools=[TOOL], safeguards=GUARDS)
    (result,) = message["safeguard_results"]
    assert list(result["status"]["tool_uses"]) == [message["content"][-1]["id"]]
    assert "safeguard_results" not in message_of(simulator, model="sim-tool-use", tools=[TOOL])


def test_what_was_edited_away_is_told(simulator):
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    asked = {**HELLO, "model": "sim-text", "context_management": edits}
    _, _, data = simulator.post(asked, anthropic_beta="context-management-2025-06-27")
    assert json.loads(data)["context_management"] == {"applied_edits": []}


INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def iterations_of(simulator, model, **body):
    """The message, and the type and model of each of its iterations."""
    message = message_of(simulator, model=model, **body)
    return message, [(entry["type"], entry.get("model")) for entry in message["usage"]["iterations"]]


@pytest.mark.parametrize("model", ["sim-compaction", "sim-fallback", "sim-advisor"])
def test_the_counts_at_the_top_are_those_of_the_model_that_answered(simulator, model):
    message, _ = iterations_of(simulator, model)
    own = [
        entry
        for entry in message["usage"]["iterations"]
        if entry["type"] in ("message", "fallback_message") and entry["model"] == message["model"]
    ]
    for name in (*INPUT, "output_tokens"):
        assert message["usage"][name] == sum(entry[name] for entry in own), name


def test_a_compaction_stands_before_the_message_and_at_first_in_its_input(simulator):
    message, iterations = iterations_of(simulator, "sim-compaction")
    assert iterations == [("compaction", None), ("message", "sim-compaction")]
    assert [block["type"] for block in message["content"]] == ["compaction", "text"]
    start, *_, end, _ = events_of(simulator, model="sim-compaction")
    assert start["message"]["usage"]["input_tokens"] == end["usage"]["iterations"][0]["input_tokens"]
    assert end["usage"]["input_tokens"] < 100
    assert "iterations" not in start["message"]["usage"]


def test_a_fallback_answers_under_its_own_name(simulator):
    beta = "server-side-fallback-2026-07-01"
    asked = {**HELLO, "model": "sim-fallback", "fallbacks": [{"model": "claude-haiku-4-5"}]}
    message = json.loads(simulator.post(asked, anthropic_beta=beta)[2])
    told = [(entry["type"], entry["model"]) for entry in message["usage"]["iterations"]]
    assert told == [("message", "sim-fallback"), ("fallback_message", "claude-haiku-4-5")]
    assert (message["model"], message["content"][0]["type"]) == ("claude-haiku-4-5", "fallback")


def test_an_advisor_is_counted_between_the_calls_of_the_model(simulator):
    tools = [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-8"}]
    asked = {**HELLO, "model": "sim-advisor", "tools": tools}
    message = json.loads(simulator.post(asked, anthropic_beta="advisor-tool-2026-03-01")[2])
    told = [(entry["type"], entry["model"]) for entry in message["usage"]["iterations"]]
    assert told == [("message", "sim-advisor"), ("advisor_message", "claude-opus-4-8"), ("message", "sim-advisor")]
    assert [block["type"] for block in message["content"]] == ["server_tool_use", "advisor_tool_result", "text"]


def test_a_thread_does_not_keep_what_a_fallback_wrote(simulator):
    betas = {"anthropic_beta": "message-threads-2026-08-12"}
    asked = {**HELLO, "model": "sim-fallback"}
    message = json.loads(simulator.post({**asked, "thread": {"type": "create"}}, **betas)[2])
    going_on = {**asked, "thread": {"type": "continue", "previous_message_id": message["id"]}}
    status, _, data = simulator.post(going_on, **betas)
    assert (status, json.loads(data)["error"]["details"]["error_code"]) == (404, "thread_not_found")
