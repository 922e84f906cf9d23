"""Requests as Claude Code 2.1.332 sends them."""

import json
from typing import Any

import pytest

from tests.simulator.test_validator import HAIKU_45, LOOP, OLD, TOOL, assistant, problem, text, user

BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,prompt-caching-scope-2026-01-05,"
    "advanced-tool-use-2025-11-20,effort-2025-11-24,mid-conversation-system-2026-04-07,"
    "thinking-binding-controls-2026-08-01,dangerous-tool-use-2026-09-03,fine-grained-tool-streaming-2025-05-14"
)
CACHE = {"type": "ephemeral"}
USER = {"device_id": "d" * 64, "account_uuid": "", "session_id": "0a51bb3c-3b5e-4c0e-9d52-6b1f1f0e7c11"}
TOOLS: list[Any] = [
    {"name": "Bash", "description": "Runs a command.", "input_schema": {"type": "object", "properties": {}}},
    {**TOOL, "name": "Deferred", "defer_loading": True},
    {**TOOL, "name": "Write", "eager_input_streaming": True},
]
BODY: dict[str, Any] = {
    "model": "claude-opus-5-5",
    "max_tokens": 128_000,
    "messages": [
        user(text("<system-reminder>…</system-reminder>"), text("Say hello.")),
        {"role": "system", "content": [text("Be brief.", cache_control=CACHE)], "output_config": {"effort": "medium"}},
    ],
    "system": [
        text("x-anthropic-billing-header: cc_version=2.1.332.1a2; cc_entrypoint=sdk-cli; cch=0f3a1;"),
        text("You are a Claude agent.", cache_control={**CACHE, "scope": "global"}),
        text("Work on the task.", cache_control=CACHE),
    ],
    "tools": TOOLS,
    "metadata": {"user_id": json.dumps(USER)},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium"},
    "safeguards": [{"type": "dangerous_tool_use", "classifier_context": {"version": 1}}],
}
HEADERS = {"user_agent": "claude-cli/2.1.332 (external, sdk-cli)", "anthropic_beta": BETAS, "x_api_key": "sk-ant-cc"}


def taken(**changes):
    return problem(version=OLD, betas=BETAS, **{**BODY, **changes})


def test_its_request_is_taken():
    assert taken() == ""


@pytest.mark.parametrize("stream", [False, True])
def test_its_request_is_answered_even_where_every_field_needs_its_beta(simulator, stream):
    simulator.policy("sk-ant-cc", known_betas=True, beta_fields="strict")
    status, _, body = simulator.post({**BODY, "stream": stream}, "/v1/messages?beta=true", **HEADERS)
    assert status == 200, body


def test_its_next_turn_gives_thinking_back_and_the_system_message_as_a_string(simulator):
    first = json.loads(simulator.post(BODY, **HEADERS)[2])
    before, system = BODY["messages"]
    system = {**system, "content": "Be brief."}
    messages = [before, system, assistant(*first["content"]), user("Go on.")]
    changed = "x-anthropic-billing-header: cc_version=2.1.332.1a2; cc_entrypoint=sdk-cli; cch=99999;"
    body = {**BODY, "messages": messages, "system": [text(changed), *BODY["system"][1:]]}
    status, _, answer = simulator.post(body, **HEADERS)
    assert (status, json.loads(answer).get("input_transformations")) == (200, []), answer


def test_it_counts_without_tools_and_with_an_empty_list_of_them(simulator):
    count = {name: BODY[name] for name in ("model", "messages", "system", "thinking")}
    for tools in (None, [], TOOLS):
        asked = count if tools is None else {**count, "tools": tools}
        status, _, body = simulator.post(asked, "/v1/messages/count_tokens?beta=true", **HEADERS)
        assert status == 200, body


def test_a_system_message_may_hold_settings_and_no_content():
    settings = {"role": "system", "output_config": {"effort": "low"}}
    assert taken(messages=[user("Hi"), settings]) == ""
    assert taken(messages=[user("Hi"), {**settings, "clear_at": "never"}]).startswith("messages.1.clear_at: Extra")
    assert taken(messages=[user("Hi"), {"role": "system"}]) == "messages.1.content: Field required"
    assert taken(messages=[user("Hi"), {**settings, "output_config": {"format": None}}]) == (
        "messages.1.output_config.format: Extra inputs are not permitted"
    )


def test_settings_stand_in_system_messages_alone():
    messages = [{**user("Hi"), "output_config": {"effort": "low"}}]
    assert taken(messages=messages) == "messages.0.output_config: Extra inputs are not permitted"


def test_settings_of_a_message_need_a_beta():
    settings = {"role": "system", "content": "Hm", "output_config": {"effort": "low"}}
    said = "messages.1.output_config: Extra inputs are not permitted"
    assert problem(messages=[user("Hi"), settings]) == said
    assert problem(messages=[user("Hi"), settings], betas="mid-conversation-output-config-2026-07-01") == ""


def test_a_tool_loop_under_the_old_version_is_taken():
    assert problem(version=OLD, betas=BETAS, model=HAIKU_45, tools=[TOOL, *TOOLS], messages=LOOP) == ""
