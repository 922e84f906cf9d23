"""What holds for every conversation: it becomes a request that the API takes, always the same one, or a clear 400."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.schemas.chat import chat_request
from app.simulator.models import catalogue
from app.simulator.signatures import Binding, sign
from app.simulator.validator import validate
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import facts_for
from app.translate.translation import Translation
from app.upstream.names import OVERLAY

SIMULATED = catalogue()
PNG = "data:image/jpg;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
thorough = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

text = st.sampled_from(["", " ", "\n\n", "Hello", "Hello \n", "ünï 😀", "a\u0000b", "json"]) | st.text(max_size=12)
control = st.sampled_from([{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])
text_part = st.fixed_dictionaries({"type": st.just("text"), "text": text}, optional={"cache_control": control})
image_part = st.just({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}})
file_part = st.sampled_from(
    [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": base64.b64encode(b"%PDF-1.7").decode()}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain,Hello"}},
        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,"}},
        {"type": "file", "file": {"file_data": ""}, "cache_control": {"type": "ephemeral"}},
        {"type": "file", "file": {"file_data": "data:text/csv;base64,//5OAGEAbQBlAA=="}},
        {"type": "image", "data": PNG.partition(",")[2], "mimeType": "image/jpeg"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG.partition(",")[2]}},
        {"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "aGVsbG8="}},
    ]
)
call_ids = st.sampled_from(["call_0", "call_1", "functions.get:0", "", "toolu_x"])
arguments = st.sampled_from(
    ["", "{}", '{"a": 1}', '{"a"', "[]", "null", '{}{"b": 2}', "  ", '"{}"', '{"a": "\n"}', r'{"a": "\ud83d"}', None, 5]
)
names = st.sampled_from(["get_weather", "mcp.files/read", "x" * 70, "späh"])
call: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda id, name, arguments: {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}},
    call_ids,
    names,
    arguments,
) | st.builds(
    lambda id, name: {"id": id, "type": "custom", "custom": {"name": name, "input": "raw text"}}, call_ids, names
)
FAMILIES = ("claude-opus-5-5", "claude-haiku-4-5", "claude-sonnet-4-6")


def signed(family: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "Hm.", "signature": sign("Hm.", Binding(family))}


families = st.sampled_from(FAMILIES)
native_part = st.builds(signed, families) | st.sampled_from(
    [
        {"type": "tool_use", "id": "toolu_n", "name": "f", "input": {}},
        {"type": "tool_use", "id": "call_0", "name": "mcp.files/read", "input": "", "index": 1},
        {"type": "input_json_delta", "index": 1, "input": "{"},
        {"type": "thinking", "thinking": "unsigned"},
        {"type": "redacted_thinking", "data": ""},
        {"type": "tool_use", "name": "nameless"},
        {"type": "server_tool_use", "id": "s"},
        {"type": "hologram"},
    ]
)
detail = st.builds(
    lambda family, index, place: {
        "type": "reasoning.text",
        "text": "Hm.",
        "signature": signed(family)["signature"],
        "format": "anthropic-claude-v1",
        "index": index,
        **({"block_index": place} if place is not None else {}),
    },
    families,
    st.integers(0, 2),
    st.none() | st.integers(0, 4),
) | st.just({"type": "reasoning.summary", "summary": "unsigned"})
content = text | st.lists(text_part, max_size=3) | st.none()
message = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"]), "content": content}),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": content | st.lists(text_part | image_part | file_part, max_size=3)},
        optional={"name": text},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": content | st.lists(text_part | native_part, max_size=3)},
        optional={
            "tool_calls": st.lists(call, max_size=3),
            "reasoning_details": st.lists(detail, max_size=3),
            "thinking_blocks": st.lists(st.builds(signed, families), max_size=2),
            "reasoning_content": text,
        },
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": call_ids, "content": content}),
    st.just({"role": "tool", "content": "of which call?"}),
    st.just({"role": "user", "content": [{"type": "video_url"}]}),
)
tool: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda name, parameters, strict: {
        "type": "function",
        "function": {"name": name, "parameters": parameters, "strict": strict},
    },
    names,
    st.sampled_from(
        [
            None,
            {},
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]},
            {"type": "object", "allOf": [{"properties": 5}], "required": [5]},
            {"$schema": "x", "oneOf": [{"properties": {"c": {"type": "integer"}}}]},
        ]
    ),
    st.booleans() | st.none(),
) | st.builds(lambda name: {"type": "custom", "custom": {"name": name, "format": {"type": "text"}}}, names)
other_forms_of_tools: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda name, form: {"name": name, **form},
    names,
    st.sampled_from(
        [
            {"input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}, "strict": True},
            {"type": "custom", "input_schema": {}, "cache_control": {"type": "ephemeral"}},
            {"type": "function", "parameters": {"anyOf": [{"properties": {"a": {}}}]}, "strict": True},
            {"type": "custom", "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}},
        ]
    ),
)


def name_of(tool: dict[str, Any]) -> str:
    described = tool.get("function") or tool.get("custom") or tool
    return str(described["name"])


request: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "model": st.sampled_from([*OVERLAY, "claude-haiku-4-5", "claude-opus-4-5"]),
        "messages": st.lists(message, min_size=1, max_size=8),
    },
    optional={
        "max_tokens": st.sampled_from([1, 1000, 2000, 5000, 500_000]),
        "temperature": st.sampled_from([0, 0.5, 1, 1.7]),
        "top_p": st.sampled_from([0.1, 0.97, 1]),
        "top_k": st.sampled_from([-1, 0, 5]),
        "stop": st.sampled_from(["x", "\n", ["a", " ", "a"], []]),
        "stop_sequences": st.sampled_from([["a", "b"], [" "], None]),
        "system": text | st.lists(text_part, max_size=3) | st.none(),
        "tools": st.lists(tool | other_forms_of_tools, max_size=3, unique_by=name_of),
        "tool_choice": st.sampled_from(
            [
                *("auto", "none", "required", None),
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
                {"type": "allowed_tools", "mode": "auto", "tools": []},
                {"type": "any", "disable_parallel_tool_use": True},
                {"type": "tool", "name": "get_weather"},
            ]
        ),
        "web_search_options": st.sampled_from([{}, {"search_context_size": "low"}]),
        "thinking": st.sampled_from([None, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 2000}]),
        "output_config": st.sampled_from([None, {"effort": "low"}]),
        "container": st.just("container_1"),
        "n": st.sampled_from([1, 3]),
        "prompt_cache_key": text,
        "parallel_tool_calls": st.booleans(),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max", None]),
        "user": text,
        "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
        "metadata": st.just({"user_id": "u"}),
        "cache_control": control,
        "response_format": st.sampled_from(
            [
                None,
                {"type": "text"},
                {"type": "json_object"},
                *(
                    {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
                    for schema in (
                        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}},
                        {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "string"}}},
                        {"type": "object", "additionalProperties": {"type": "string"}},
                        {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    )
                ),
            ]
        ),
    },
)
json_value: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
odd_message: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "name", "refusal"]), json_value
) | st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional={"content": json_value, "tool_calls": json_value, "tool_call_id": json_value, "refusal": json_value},
)


def translated(body: dict[str, Any]) -> Translation:
    options = Options(caching="auto")
    return to_message_params(chat_request(dict(body)), facts_for(body["model"], OVERLAY), options)


@thorough
@given(request)
def test_any_valid_conversation_becomes_a_request_that_the_api_takes(body: dict[str, Any]) -> None:
    try:
        made = translated(body)
    except InvalidRequest as refused:
        assert refused.param
        assert refused.code in (
            *("empty_array", "invalid_value", "unsupported_parameter", "unsupported_value"),
            "missing_required_parameter",  # a result without an id, where it is what the client says now
        )
        return
    sent = orjson.loads(orjson.dumps(made.body))
    model = SIMULATED.find(sent["model"])
    assert model is not None
    validate(sent, made.headers, model)


@thorough
@given(request)
def test_the_next_turn_begins_with_the_same_bytes(body: dict[str, Any]) -> None:
    """Prompt caches, and thinking that is bound to what stood before it, hang on that."""
    body = {**body, "messages": [*body["messages"], {"role": "user", "content": "Well?"}]}
    longer = [*body["messages"], {"role": "assistant", "content": "Well."}, {"role": "user", "content": "Go on."}]
    try:
        before = translated(body).body
        after = translated({**body, "messages": longer}).body
    except InvalidRequest:
        return
    for kept in ("system", "tools", "tool_choice"):
        assert orjson.dumps(after.get(kept)) == orjson.dumps(before.get(kept))
    assert without_breakpoints(after["messages"][: len(before["messages"])]) == without_breakpoints(before["messages"])


def without_breakpoints(messages: Any) -> bytes:
    """Of more than four the latest are kept, so that they wander; they count for nothing else."""
    for message in messages:
        for block in message["content"]:
            block.pop("cache_control", None)
    return orjson.dumps(messages)


@thorough
@given(request)
def test_the_same_request_gives_the_same_bytes(body: dict[str, Any]) -> None:
    try:
        first = orjson.dumps(translated(body).body)
    except InvalidRequest:
        return
    assert orjson.dumps(translated(orjson.loads(orjson.dumps(body))).body) == first


@thorough
@given(
    st.dictionaries(
        st.sampled_from(
            ["messages", "tools", "tool_choice", "reasoning", "thinking", "stop", "metadata", "stream_options", "top_k",
             "system", "stop_sequences", "temperature", "max_tokens", "user", "response_format", "reasoning_effort",
             "functions", "n", "logit_bias"]
        ),
        json_value,
    ),
    st.lists(
        odd_message,
        min_size=1,
        max_size=4,
    ),
)  # fmt: skip
def test_whatever_json_comes_it_is_translated_or_refused_with_a_path(body: dict[str, Any], messages: list[Any]) -> None:
    asked = {"messages": messages, **body, "model": "claude-opus-4-6"}
    try:
        orjson.dumps(translated(asked).body)
    except InvalidRequest as refused:
        assert refused.param
        assert refused.message
