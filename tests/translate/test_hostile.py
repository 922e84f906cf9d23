"""Requests and answers made to do harm: refused with a path, or translated in a time that grows with their size."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.errors import InvalidRequest
from app.schemas.chat import chat_request
from app.translate.chat.memory import remembered_names
from app.translate.chat.request import Options, to_message_params
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.facts import facts_for
from app.translate.text_filters import JsonFilter
from app.translate.translation import ReplyContext, Translation
from app.upstream.names import OVERLAY

HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOL_USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]}


def translated(model: str = "claude-opus-4-8", **fields: Any) -> Translation:
    asked = chat_request({"model": model, "messages": HI, **fields})
    return to_message_params(asked, facts_for(model, OVERLAY), Options(caching="auto"))


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "json_schema"}, "response_format.json_schema"),
        ({"messages": user({"type": "tool_result", "tool_use_id": "x", "content": [1]})},
         "messages[0].content[0].content[0]"),
        ({"messages": user({"type": "tool_result", "tool_use_id": "x", "content": [{}]})},
         "messages[0].content[0].content[0].type"),
        ({"messages": [*HI, TOOL_USE, *user({"type": "tool_result", "tool_use_id": "x", "content": [None]})]},
         "messages[2].content[0].content[0]"),
        ({"messages": user({"type": "document", "source": PDF, "citations": "x"})}, "messages[0].content[0].citations"),
        ({"messages": user({"type": "search_result", "source": "s", "title": "t", "content": [], "citations": [True]})},
         "messages[0].content[0].citations"),
        ({"anthropic_version": "\u0662\u0660\u0662\u0663-\u0660\u0666-\u0660\u0661"}, "anthropic_version"),
        ({"extra_body": {"extra_body": {"n": 2}}}, "extra_body"),
        ({"stop": [" " * n for n in range(1, 200)]}, "stop"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}], "tool_choice": {"type": "mcp_toolset"}},
         "tool_choice"),
    ],
)  # fmt: skip
def test_what_is_malformed_within_is_refused_with_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        translated(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "bash_20250124", "name": "bash", "cache_control": None}]},
        {"messages": user({"type": "document", "source": PDF, "cache_control": None})},
        {"messages": user({"type": "tool_result", "tool_use_id": "x", "content": None})},
        {"messages": [*HI, {"role": "assistant", "content": "a", "thinking_blocks": [
            {"type": "thinking", "thinking": "t", "signature": {}}]}, *HI]},
    ],
)  # fmt: skip
def test_what_is_null_or_unsigned_is_as_if_it_were_not_there(fields: dict[str, Any]) -> None:
    body = translated(**fields).body
    body.pop("cache_control", None)
    assert b"null" not in orjson.dumps(body)
    assert b'"signature"' not in orjson.dumps(body)


def doubling(levels: int) -> dict[str, Any]:
    """Each definition refers twice to the next: walked anew for each reference, two to the power of `levels`."""

    def node(n: int) -> dict[str, Any]:
        inner = {"$ref": f"#/$defs/a{n + 1}"} if n < levels else {"type": "string"}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {"x": inner, "y": inner},
            "required": ["x", "y"],
        }

    return {**node(0), "$defs": {f"a{n}": node(n) for n in range(1, levels + 1)}}


def nested_types(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": ["array", "array", "null"], "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        doubling(60),
        nested_types(40),
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a0"}}, "required": ["a"],
         "$defs": {**{f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(900)}, "a900": {"type": "string"}}},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)},
         "required": [f"p{n}" for n in range(20_000)]},
    ],
    ids=["doubling", "types", "chain", "wide"],
)  # fmt: skip
def test_a_schema_costs_no_more_than_its_size(schema: Any) -> None:
    """Were it more, this would not end."""
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    for fields in (
        {"response_format": schema_format(schema)},
        {"tools": [tool]},
        {"model": "claude-opus-5-5", "tools": [tool], "tool_choice": "required"},
    ):
        made = translated(**fields)
        assert len(orjson.dumps(made.body)) < 5_000_000


def test_references_to_one_definition_are_enforced_however_many_there_are() -> None:
    made = translated(response_format=schema_format(doubling(12)))
    assert made.body["output_config"]["format"]["schema"]["$defs"]["a12"]["properties"]["x"] == {"type": "string"}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(30_000)]},
        {"messages": HI * 100_000},
        {"messages": [*HI, {"role": "assistant", "content": "a", "reasoning_details": [
            {"type": "reasoning.text", "text": "x" * 80, "index": 0} for _ in range(100_000)]}, *HI]},
        {"messages": user(*[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 60_000)},
        {"tools": [{"type": "function", "function": {"name": f"f{n}"}, "cache_control": {"type": "ephemeral"}}
                   for n in range(30_000)]},
    ],
    ids=["tools", "messages", "details", "breakpoints", "breakpoints on tools"],
)  # fmt: skip
def test_a_large_request_costs_no_more_than_its_size(fields: dict[str, Any]) -> None:
    """Were it the square, this would take minutes."""
    translated(**fields)
    remembered_names(fields.get("messages", HI), "", "claude-opus-4-8")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('Use {name} as placeholder. Here: {"a": 1} Done.', '{"a": 1}'),
        ("In sets {1,2} hold. Sorry, I cannot.", "In sets {1,2} hold. Sorry, I cannot."),
        ("{ }", "{ }"),
        ('```json\n{ "a": "}" }\n```', '{ "a": "}" }'),
        ("{", "{"),
        ("no object { ", "no object { "),
    ],
)
def test_braces_of_prose_are_no_json(written: str, shown: str) -> None:
    for pieces in ([written], list(written)):
        json = JsonFilter()
        assert "".join(map(json.feed, pieces)) + json.release() == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [('{"result": ["a"]}', '["a"]'), ('{ "result" :5}', "5"), ("{'tis} sorry: no", "{'tis} sorry: no")],
)
def test_only_what_was_wrapped_is_unwrapped(written: str, shown: str) -> None:
    for pieces in ([written], list(written)):
        json = JsonFilter(unwrap=True)
        assert "".join(map(json.feed, pieces)) + json.release() == shown


def test_long_prose_where_json_was_asked_for_costs_no_more_than_its_length() -> None:
    """Were it the square, this would take minutes."""
    json = JsonFilter()
    assert all(json.feed("Word { and word. ") == "" for _ in range(100_000))
    assert len(json.release()) == 17 * 100_000


def whole(context: ReplyContext, stop_reason: Any, *content: dict[str, Any]) -> dict[str, Any]:
    message = {"id": "msg_1", "model": "m", "content": list(content), "stop_reason": stop_reason, "usage": {}}
    choice: dict[str, Any] = to_chat_completion([message], context, created=1)["choices"][0]
    return choice


def streamed(context: ReplyContext, stop_reason: Any, *content: dict[str, Any]) -> list[dict[str, Any]]:
    translator = StreamTranslator(context, created=1)
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": list(content), "usage": {}}},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}},
        {"type": "message_stop"},
    ]
    return [chunk for event in events for chunk in translator.feed(event)]


@pytest.mark.parametrize("stop_reason", [None, "", 5, []])
def test_what_does_not_say_why_it_ended_is_never_called_finished(stop_reason: Any) -> None:
    with pytest.raises(ValueError, match="stop_reason"):
        whole(ReplyContext(), stop_reason, {"type": "text", "text": "x"})
    with pytest.raises(ValueError, match="stop_reason"):
        streamed(ReplyContext(), stop_reason, {"type": "text", "text": "x"})


def test_a_refusal_to_write_arguments_is_no_call() -> None:
    context = ReplyContext(text_is_call_of="f")
    choice = whole(context, "refusal", {"type": "text", "text": "I will not"})
    assert choice["finish_reason"] == "content_filter"
    assert "tool_calls" not in choice["message"]


def test_blanks_are_no_arguments() -> None:
    context = ReplyContext(text_is_call_of="f")
    choice = whole(context, "end_turn", {"type": "text", "text": "\n\n"})
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("stop", False)
    chunks = streamed(context, "end_turn", {"type": "text", "text": "\n\n"})
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("tool_calls" in c["choices"][0]["delta"] for c in chunks)


def test_an_emulated_call_of_a_custom_tool_is_a_custom_call() -> None:
    context = ReplyContext(text_is_call_of="shell", custom_tools=frozenset({"shell"}))
    call = whole(context, "end_turn", {"type": "text", "text": '{"input": "ls"}'})["message"]["tool_calls"][0]
    assert (call["type"], call["custom"]) == ("custom", {"name": "shell", "input": "ls"})


def test_stop_strings_do_not_cut_arguments() -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    made = translated("claude-opus-5-5", tools=[tool], tool_choice="required", stop=["END", "\n\n"])
    assert "stop_sequences" not in made.body
    assert made.reply.stops == ()
    assert "stop_ignored" in made.reply.warnings


def test_a_text_that_was_to_be_arguments_and_is_not_is_told() -> None:
    context = ReplyContext(text_is_call_of="f")
    prose = {"type": "text", "text": "I would rather not."}
    message = {"id": "msg_1", "model": "m", "content": [prose], "stop_reason": "end_turn", "usage": {}}
    assert to_chat_completion([message], context, created=1)["gateway"] == {"warnings": ["forced_tool_not_honoured"]}
    assert streamed(context, "end_turn", prose)[-1]["gateway"] == {"warnings": ["forced_tool_not_honoured"]}
    for good, reason in (('{"a": 1}', "end_turn"), ('{"a": ', "max_tokens")):
        assert "gateway" not in streamed(context, reason, {"type": "text", "text": good})[-1]
