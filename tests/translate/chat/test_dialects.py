"""Other languages than that of chat completions: what Anthropic's own API and OpenAI's Responses API call the same."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import InvalidRequest
from app.schemas.chat import chat_request
from app.translate.chat.explain import explained
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import facts_for
from app.translate.translation import Translation
from app.upstream.names import OVERLAY

HI: list[Any] = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
CACHED = {"type": "ephemeral"}
LS: dict[str, Any] = {
    "type": "function",
    "function": {"name": "ls", "description": "List a folder", "parameters": SCHEMA},
}
SHELL = {"type": "custom", "custom": {"name": "shell", "description": "Runs"}}
ANTHROPIC_LS = {"name": "ls", "description": "List a folder", "input_schema": SCHEMA}
FLAT_LS = {"type": "function", "name": "ls", "description": "List a folder", "parameters": SCHEMA}


def translated(model: str = "claude-opus-4-8", strict: bool = False, **fields: Any) -> Translation:
    asked = chat_request({"model": model, "messages": HI, **fields})
    return to_message_params(asked, facts_for(model, OVERLAY), Options(strict=strict))


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        translated(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("own", "chat"),
    [
        (ANTHROPIC_LS, LS),
        ({"type": "custom", **ANTHROPIC_LS}, LS),
        ({"type": None, **ANTHROPIC_LS}, LS),
        ({"type": "function", **ANTHROPIC_LS}, LS),
        ({"cache_control": CACHED, **ANTHROPIC_LS}, {**LS, "cache_control": CACHED}),
        ({**ANTHROPIC_LS, "strict": True}, {**LS, "function": {**LS["function"], "strict": True}}),
        (
            {**ANTHROPIC_LS, "defer_loading": True, "eager_input_streaming": False, "input_examples": [{"path": "."}],
             "allowed_callers": ["direct"]},
            {**LS, "defer_loading": True, "eager_input_streaming": False, "input_examples": [{"path": "."}],
             "allowed_callers": ["direct"]},
        ),
        ({"name": "ls", "input_schema": None}, {"type": "function", "function": {"name": "ls"}}),
        ({"name": "fs.ls", "input_schema": {"anyOf": [SCHEMA]}},
         {"type": "function", "function": {"name": "fs.ls", "parameters": {"anyOf": [SCHEMA]}}}),
        (FLAT_LS, LS),
        ({"function": None, **FLAT_LS}, LS),
        ({"name": "ls", "description": "List a folder", "parameters": SCHEMA}, LS),
        ({**FLAT_LS, "strict": True}, {**LS, "function": {**LS["function"], "strict": True}}),
        ({**FLAT_LS, "strict": False, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
         {**LS, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}),
        ({"type": "function", "name": "now"}, {"type": "function", "function": {"name": "now"}}),
        ({"type": "custom", "name": "shell", "description": "Runs"}, SHELL),
        ({"type": "custom", "name": "shell", "description": "Runs", "cache_control": CACHED},
         {**SHELL, "cache_control": CACHED}),
        ({"type": "custom", "name": "calc", "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}},
         {"type": "custom", "custom": {"name": "calc", "format": {
             "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}}}),
    ],
)  # fmt: skip
def test_a_tool_in_another_form_is_the_same_tool(own: dict[str, Any], chat: dict[str, Any]) -> None:
    made, expected = translated(tools=[own]), translated(tools=[chat])
    assert made.body["tools"] == expected.body["tools"]
    assert made.body == expected.body
    assert made.reply == expected.reply


@pytest.mark.parametrize(
    ("own", "chat"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ("any", "required"),
        ({"type": "tool", "name": "ls"}, {"type": "function", "function": {"name": "ls"}}),
        ({"type": "tool", "name": "fs.ls"}, {"type": "function", "function": {"name": "fs.ls"}}),
        ({"type": "tool", "name": "bash"}, {"type": "bash_20250124"}),
        ({"type": "function", "name": "ls"}, {"type": "function", "function": {"name": "ls"}}),
        ({"type": "custom", "name": "shell"}, {"type": "custom", "custom": {"name": "shell"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [
                {"type": "function", "name": "ls"}, {"type": "custom", "name": "shell"}]},
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                {"type": "function", "function": {"name": "ls"}}, {"type": "custom", "custom": {"name": "shell"}}]}},
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "bash_20250124"}]},
         {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "bash_20250124"}]}}),
        ({"type": "allowed_tools", "tools": []}, {"type": "allowed_tools", "allowed_tools": {"tools": []}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["claude-opus-4-8", "claude-opus-5-5"])
def test_a_choice_in_another_form_is_the_same_choice(own: Any, chat: Any, model: str) -> None:
    other = {"type": "function", "function": {"name": "fs.ls", "parameters": SCHEMA}}
    tools = [LS, SHELL, other, {"type": "bash_20250124", "name": "bash"}]
    made, expected = (translated(model, tools=tools, tool_choice=choice) for choice in (own, chat))
    assert made.body == expected.body
    assert made.reply == expected.reply


@pytest.mark.parametrize("kind", ["auto", "any"])
def test_a_choice_may_forbid_several_calls_at_once(kind: str) -> None:
    choice = {"type": kind, "disable_parallel_tool_use": True}
    assert translated(tools=[ANTHROPIC_LS], tool_choice=choice).body["tool_choice"] == choice
    with_both = translated(tools=[ANTHROPIC_LS], tool_choice=choice, parallel_tool_calls=True)
    assert with_both.body["tool_choice"] == choice


def test_a_choice_that_allows_several_calls_at_once_says_nothing() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": False}
    assert "tool_choice" not in translated(tools=[ANTHROPIC_LS], tool_choice=choice).body


@pytest.mark.parametrize(
    "choice", [{"type": "auto"}, {"type": "none"}, {"type": "none", "disable_parallel_tool_use": 1}]
)
def test_without_tools_a_choice_of_none_is_harmless(choice: Any) -> None:
    if "disable_parallel_tool_use" in choice:
        assert refused(tool_choice=choice).param == "tool_choice.disable_parallel_tool_use"
    else:
        assert "tool_choice" not in translated(tool_choice=choice).body


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"name": "ls", "input_schema": "x"}]}, "tools[0].input_schema", "invalid_type"),
        ({"tools": [{"name": "ls", "description": "d"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tools": [{"name": "ls", "inputSchema": SCHEMA}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tools": [{"name": 5, "input_schema": SCHEMA}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"input_schema": SCHEMA}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "input_schema": SCHEMA}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{**ANTHROPIC_LS, "description": 5}]}, "tools[0].description", "invalid_type"),
        ({"tools": [{**ANTHROPIC_LS, "strict": "yes"}]}, "tools[0].strict", "invalid_type"),
        ({"tools": [{**ANTHROPIC_LS, "defer_loading": 1}]}, "tools[0].defer_loading", "invalid_type"),
        ({"tools": [{**ANTHROPIC_LS, "cache_control": {"type": "x"}}]}, "tools[0].cache_control", "invalid_value"),
        ({"tools": [ANTHROPIC_LS, ANTHROPIC_LS]}, "tools[1].name", "invalid_value"),
        ({"tools": [LS, FLAT_LS]}, "tools[1].name", "invalid_value"),
        ({"tools": [FLAT_LS, LS]}, "tools[1].function.name", "invalid_value"),
        ({"tools": [{**FLAT_LS, "parameters": [1]}]}, "tools[0].parameters", "invalid_type"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "name": "x", "format": {"type": "y"}}]}, "tools[0].format.type",
         "invalid_value"),
        ({"tools": [{"description": "d"}]}, "tools[0].type", "invalid_type"),
        ({"tools": [LS], "tool_choice": {"type": "tool", "name": "rm"}}, "tool_choice", "invalid_value"),
        ({"tools": [LS], "tool_choice": {"type": "tool"}}, "tool_choice", "invalid_value"),
        ({"tools": [LS], "tool_choice": {"type": ["auto"]}}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"tools": [LS], "tool_choice": {"type": "auto", "disable_parallel_tool_use": "no"}},
         "tool_choice.disable_parallel_tool_use", "invalid_type"),
        ({"tools": [LS], "tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice",
         "invalid_value"),
        ({"tools": [LS], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "x"}]}}, "tool_choice.tools",
         "invalid_value"),
        ({"system": 5}, "system", "invalid_type"),
        ({"system": [{"type": "image"}]}, "system[0].type", "invalid_value"),
        ({"system": [{"type": "text", "text": "x", "cache_control": "y"}]}, "system[0].cache_control",
         "invalid_value"),
        ({"stop_sequences": [1]}, "stop_sequences", "invalid_type"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_another_form_is_named_as_the_client_calls_it(
    fields: dict[str, Any], param: str, code: str
) -> None:
    error = refused(**fields)
    assert (error.param, error.code) == (param, code)
    assert param.split(".")[0] in error.message


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("Answer in French.", [{"type": "text", "text": "Answer in French."}]),
        ([{"type": "text", "text": "Answer in French."}], [{"type": "text", "text": "Answer in French."}]),
        (
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {**CACHED, "ttl": "1h"}}],
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {**CACHED, "ttl": "1h"}}],
        ),
        ("", None),
        ([], None),
        (None, None),
    ],
)
def test_anthropics_system_is_claudes_system_prompt(system: Any, expected: Any) -> None:
    made = translated(system=system)
    assert made.body.get("system") == expected
    assert made.reply.warnings == ()


def test_anthropics_system_stands_before_the_system_messages() -> None:
    made = translated(system="First.", messages=[{"role": "system", "content": "Then."}, *HI])
    assert [block["text"] for block in made.body["system"]] == ["First.", "Then."]
    entries = explained({"system": "First.", "messages": [{"role": "system"}, *HI]}, made, made.body, None)
    upstream = {entry["field"]: entry["upstream"] for entry in entries}
    assert upstream == {
        "system": ["system"],
        "messages": ["system", "messages"],
        "messages[0]": ["system[1]"],
        "messages[1]": ["messages[0]"],
    }


def test_anthropics_system_is_no_message_of_the_conversation() -> None:
    """What an answer is remembered by does not hang on it, as it does not on system messages."""
    assert translated(system="At noon.").reply.told == translated().reply.told
    alone = translated(system="Say hello.", messages=[{"role": "user", "content": ""}])
    assert alone.body["messages"][0]["content"][0]["text"] == "(empty message)"


@pytest.mark.parametrize(
    ("fields", "sent", "cut_here"),
    [
        ({"stop_sequences": ["END"]}, ["END"], ()),
        ({"stop": "A", "stop_sequences": ["END", "A"]}, ["A", "END"], ()),
        ({"stop": None, "stop_sequences": ["\n\n", None, "END"]}, ["END"], ("\n\n",)),
        ({"stop_sequences": []}, None, ()),
        ({"stop_sequences": None}, None, ()),
    ],
)
def test_stop_sequences_are_stops(fields: dict[str, Any], sent: Any, cut_here: tuple[str, ...]) -> None:
    made = translated(**fields)
    assert (made.body.get("stop_sequences"), made.reply.stops) == (sent, cut_here)
    assert made.reply.warnings == ()


def test_a_stop_that_cannot_be_is_told_of_the_field_that_asked_for_it() -> None:
    made = translated("claude-opus-5-5", tools=[ANTHROPIC_LS], tool_choice={"type": "any"}, stop_sequences=["END"])
    assert [note.param for note in made.notes if note.code == "stop_ignored"] == ["stop_sequences"]


def test_an_agent_that_speaks_anthropics_language_is_understood_whole() -> None:
    """As Cursor's agent mode speaks to a base URL of one's own."""
    made = translated(
        "claude-sonnet-5",
        strict=True,
        stream=True,
        system=[{"type": "text", "text": "You are an agent.", "cache_control": CACHED}],
        stop_sequences=["</done>"],
        metadata={"user_id": "u1"},
        service_tier="standard_only",
        thinking={"type": "adaptive"},
        messages=[
            {"role": "user", "content": "list files"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "toolu_9", "name": "ls", "input": {"path": "."}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_9", "content": [{"type": "text", "text": "a.py"}]}]},
        ],
        tools=[{**ANTHROPIC_LS, "cache_control": CACHED}],
        tool_choice={"type": "auto"},
    )  # fmt: skip
    assert made.reply.warnings == ()
    assert made.body["tools"] == [{**ANTHROPIC_LS, "cache_control": CACHED}]
    assert made.body["system"] == [{"type": "text", "text": "You are an agent.", "cache_control": CACHED}]
    assert made.body["stop_sequences"] == ["</done>"]
    assert made.body["service_tier"] == "standard_only"
    assert [m["content"][0]["type"] for m in made.body["messages"]] == ["text", "tool_use", "tool_result"]
