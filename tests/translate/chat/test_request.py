"""Requests: the body that goes upstream for what the client asked."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from app.errors import InvalidRequest, UntranslatableRequest
from app.schemas.chat import chat_request
from app.storage.validation import MODEL_FLAGS
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import FLAGS, ModelFacts, facts_for, with_operator
from app.translate.translation import API_VERSION, API_VERSION_WITH_SAMPLING, Translation
from app.upstream.names import OVERLAY

SUMMARIZED = {"type": "adaptive", "display": "summarized"}
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather.", "parameters": {"type": "object", "properties": {}}},
}


def facts(model: str) -> ModelFacts:
    return facts_for(model, OVERLAY)


def translated(model: str = "claude-opus-5-5", options: Options | None = None, **fields: Any) -> Translation:
    request = chat_request({"model": model, "messages": HI, **fields})
    return to_message_params(request, facts(model), options or Options())


def body(model: str = "claude-opus-5-5", **fields: Any) -> dict[str, Any]:
    return translated(model, **fields).body


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        translated(**fields)
    return caught.value


def test_the_smallest_request_asks_for_all_that_the_model_can_write() -> None:
    assert body() == {
        "model": "claude-opus-5-5",
        "max_tokens": 128_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "thinking": {**SUMMARIZED, "block_binding": {"prefix_mismatch_behavior": "drop_block"}},
    }


def test_a_full_request_is_carried_over() -> None:
    made = translated(
        "claude-opus-4-6",
        messages=[{"role": "system", "content": "Be brief."}, *HI],
        max_tokens=5,
        max_completion_tokens=500,
        temperature=0.3,
        stop=["END", "END", None, "\n\n"],
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        user="user-17",
        metadata={"team": "blue"},
        service_tier="flex",
        n=1,
        prompt_cache_key="k",
    )
    assert made.body == {
        "model": "claude-opus-4-6",
        "max_tokens": 500,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [
            {
                "name": "get_weather",
                "description": "Weather.",
                "input_schema": {"type": "object", "properties": {}},
            }
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "user-17"},
        "service_tier": "standard_only",
        "temperature": 0.3,
    }
    assert made.headers["anthropic-version"] == API_VERSION_WITH_SAMPLING
    assert made.reply.stops == ("\n\n",)
    assert made.reply.metadata == {"team": "blue"}
    assert made.reply.warnings == ()


@pytest.mark.parametrize(
    ("fields", "expected", "warnings"),
    [
        ({"max_tokens": 999_999}, 128_000, ("max_tokens_clamped",)),
        ({"max_tokens": 7}, 7, ()),
        ({"max_tokens": None}, 128_000, ()),
    ],
)
def test_limits_are_kept_within_what_the_model_can(
    fields: dict[str, Any], expected: int, warnings: tuple[str, ...]
) -> None:
    made = translated(**fields)
    assert (made.body["max_tokens"], made.reply.warnings) == (expected, warnings)


def test_a_model_that_nobody_knows_gets_a_modest_limit_and_no_risky_parameter() -> None:
    made = translated("claude-quartz-9", temperature=0.2)
    assert made.body["max_tokens"] == 32_000
    assert "temperature" not in made.body


def test_long_answers_are_streamed_upstream_whatever_the_client_wants() -> None:
    assert translated().may_run_long
    assert not translated(max_tokens=16_000).may_run_long


@pytest.mark.parametrize(
    ("model", "fields", "sent", "warnings"),
    [
        ("claude-opus-5-5", {"temperature": 0.7, "top_p": 0.9}, {}, ("sampling_ignored",)),
        ("claude-opus-5-5", {"temperature": 1, "top_p": 1}, {}, ()),
        ("claude-opus-4-6", {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7}, ("top_p_ignored",)),
        ("claude-opus-4-6", {"temperature": 1, "top_p": 0.9}, {"top_p": 0.9}, ()),
        ("claude-opus-4-6", {"temperature": 1.5}, {"temperature": 1}, ("temperature_clamped",)),
        ("claude-opus-4-6", {"top_k": 40}, {"top_k": 40}, ()),
        ("claude-opus-4-6", {"top_k": -1}, {}, ()),
        (
            "claude-sonnet-4-5",
            {"temperature": 0.7, "reasoning_effort": "low", "max_tokens": 9000},
            {},
            ("sampling_ignored",),
        ),
        ("claude-sonnet-4-5", {"top_p": 0.97, "reasoning_effort": "low", "max_tokens": 9000}, {"top_p": 0.97}, ()),
    ],
)
def test_sampling_goes_only_where_it_is_taken(
    model: str, fields: dict[str, Any], sent: dict[str, Any], warnings: tuple[str, ...]
) -> None:
    made = translated(model, **fields)
    assert {k: v for k, v in made.body.items() if k in ("temperature", "top_p", "top_k")} == sent
    assert made.reply.warnings == warnings
    assert made.headers["anthropic-version"] == (API_VERSION_WITH_SAMPLING if sent else API_VERSION)


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort"),
    [
        ("claude-opus-5-5", {}, SUMMARIZED, None),
        ("claude-opus-4-8", {}, None, None),
        ("claude-sonnet-4-5", {}, None, None),
        ("claude-opus-5-5", {"reasoning_effort": "none"}, None, "low"),
        ("claude-opus-5", {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        ("claude-sonnet-5-5", {"reasoning_effort": "none"}, {"type": "between_tools"}, None),
        ("claude-opus-4-8", {"reasoning_effort": "none"}, None, None),
        ("claude-opus-5-5", {"reasoning_effort": "minimal"}, SUMMARIZED, "low"),
        ("claude-opus-5-5", {"reasoning_effort": "xhigh"}, SUMMARIZED, "xhigh"),
        ("claude-opus-4-6", {"reasoning_effort": "xhigh"}, SUMMARIZED, "high"),
        ("claude-sonnet-4-6", {"reasoning_effort": "max"}, SUMMARIZED, "max"),
        ("claude-sonnet-4-5", {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 16384}, None),
        (
            "claude-opus-4-5",
            {"reasoning_effort": "low", "max_tokens": 2500},
            {"type": "enabled", "budget_tokens": 1476},
            "low",
        ),
        ("claude-sonnet-4-5", {"reasoning_effort": "high", "max_tokens": 1500}, None, None),
        ("claude-opus-5-5", {"max_tokens": 100}, SUMMARIZED, "low"),
        ("claude-opus-5-5", {"reasoning": {"effort": "high", "exclude": True}},
         {"type": "adaptive", "display": "omitted"}, "high"),
        ("claude-opus-5-5", {"thinking": {"type": "enabled", "budget_tokens": 5000}}, SUMMARIZED, "medium"),
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 5000}},
         {"type": "enabled", "budget_tokens": 5000}, None),
        ("claude-haiku-5-5", {"thinking": {"type": "disabled"}}, {"type": "disabled"}, None),
    ],
)  # fmt: skip
def test_reasoning_follows_from_what_the_model_can(
    model: str, fields: dict[str, Any], thinking: dict[str, Any] | None, effort: str | None
) -> None:
    made = body(model, **fields)
    sent = {key: value for key, value in made.get("thinking", {}).items() if key != "block_binding"}
    assert (sent or None) == thinking
    assert (made.get("output_config") or {}).get("effort") == effort


def test_thinking_that_fits_no_more_is_to_be_dropped_where_it_is_bound_to_what_stood_before() -> None:
    """In each turn, so that `thinking` does not change between them: that would cost the prompt cache."""
    made = translated("claude-opus-5-5")
    assert made.body["thinking"]["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}
    assert made.headers["anthropic-beta"] == "thinking-binding-controls-2026-08-01"
    for model, effort in (("claude-opus-5", None), ("claude-sonnet-5-5", "none"), ("claude-opus-5-5", "none")):
        made = translated(model, reasoning_effort=effort)
        assert "block_binding" not in made.body.get("thinking", {})
        assert "anthropic-beta" not in made.headers


def test_reasoning_is_not_shown_when_the_operator_hides_it() -> None:
    made = translated(options=Options(expose_reasoning=False))
    assert made.body["thinking"]["display"] == "omitted"
    assert not made.reply.exposes_reasoning


def test_manual_thinking_is_left_off_where_a_tool_loop_has_none() -> None:
    history = [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    made = body("claude-sonnet-4-5", messages=history, tools=[WEATHER], reasoning_effort="high")
    assert "thinking" not in made


def test_manual_thinking_gives_way_to_a_forced_tool() -> None:
    made = translated("claude-sonnet-4-5", tools=[WEATHER], tool_choice="required", reasoning_effort="high")
    assert "thinking" not in made.body
    assert made.reply.warnings == ("thinking_dropped_for_forced_tool",)


def test_a_history_with_tools_but_no_tools_declares_them_and_forbids_calls() -> None:
    history = [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]
    made = body(messages=history)
    assert made["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]
    assert made["tool_choice"] == {"type": "none"}


def test_names_of_functions_that_claude_refuses_are_mapped_and_mapped_back() -> None:
    tool = {"type": "function", "function": {"name": "mcp.files/read"}}
    made = translated("claude-opus-4-6", tools=[tool], tool_choice={"type": "function", "function": tool["function"]})
    name = made.body["tools"][0]["name"]
    assert name.startswith("mcp_files_read_")
    assert made.body["tool_choice"] == {"type": "tool", "name": name}
    assert made.reply.tool_names == {name: "mcp.files/read"}


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"$schema": "x", "properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (
            {
                "anyOf": [
                    {"properties": {"a": {}}, "required": ["a", "c"]},
                    {"properties": {"b": {}}, "required": ["c"]},
                ]
            },
            {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["c"]},
        ),
        (
            {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]},
            {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]},
        ),
    ],
)
def test_parameters_become_an_object_schema(parameters: Any, schema: dict[str, Any]) -> None:
    made = body(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert made["tools"][0]["input_schema"] == schema


@pytest.mark.parametrize("identifier", ["ann@example.com", "+49-170-1234567", "Ann Smith", "x" * 300])
def test_what_could_name_a_person_is_hashed(identifier: str) -> None:
    made = body(safety_identifier=identifier, user="somebody-else")["metadata"]["user_id"]
    assert made == hashlib.sha256(identifier.encode()).hexdigest()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"seed": 7}, "seed_ignored"),
        ({"presence_penalty": 0.5}, "presence_penalty_ignored"),
        ({"verbosity": "low"}, "verbosity_ignored"),
        ({"store": True}, "store_ignored"),
        ({"min_p": 0.1}, "unknown_field"),
    ],
)
def test_what_is_left_out_is_told(fields: dict[str, Any], code: str) -> None:
    assert translated(**fields).reply.warnings == (code,)
    with pytest.raises(UntranslatableRequest) as caught:
        translated(options=Options(strict=True), **fields)
    assert (caught.value.param, caught.value.code) == (next(iter(fields)), "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 0, "frequency_penalty": None, "logit_bias": {}, "logprobs": False, "store": False},
        {"prediction": {"type": "content"}, "prompt_cache_key": "x", "verbosity": "medium", "n": None},
        {"response_format": {"type": "text"}, "modalities": ["text"], "tools": [], "tool_choice": "auto"},
    ],
)
def test_what_changes_nothing_is_taken_in_silence(fields: dict[str, Any]) -> None:
    assert translated(**fields).reply.warnings == ()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 5.5}, "max_tokens", "invalid_type"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_parameter"),
        ({"stop": [1]}, "stop", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort", "invalid_value"),
        ({"thinking": {"type": "maybe"}}, "thinking.type", "invalid_value"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "invalid_value"),
        ({"response_format": "json"}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        ({"functions": [], "tools": []}, "functions", "invalid_value"),
        ({"functions": {}}, "functions", "invalid_type"),
        ({"functions": [], "function_call": "maybe"}, "function_call", "invalid_value"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].name", "missing_required_parameter"),
        ({"cache_control": {"type": "permanent"}}, "cache_control", "invalid_value"),
        ({"prompt_cache_retention": "1y"}, "prompt_cache_retention", "invalid_value"),
        ({"prompt_cache_options": {"mode": "always"}}, "prompt_cache_options", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "x", "cache_control": {"type": "x"}}]},
            "messages[0].cache_control",
            "invalid_value",
        ),
        ({"tools": [{"type": "custom"}]}, "tools[0].custom", "missing_required_parameter"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error.status, error.param, error.code) == (400, param, code)
    assert error.message.endswith(".")


def test_a_missing_model_is_a_missing_parameter() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"messages": HI})
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_a_schema_is_enforced_by_claude_itself_beside_tools_and_effort() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    made = body(response_format=schema_format(schema), tools=[WEATHER], reasoning_effort="low")
    assert made["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}},
    }
    assert "tool_choice" not in made


def test_a_schema_whose_root_is_no_object_is_wrapped() -> None:
    made = translated(response_format=schema_format({"type": "array", "items": {"type": "integer"}}))
    schema = made.body["output_config"]["format"]["schema"]
    assert schema["properties"] == {"result": {"type": "array", "items": {"type": "integer"}}}
    assert made.reply.unwraps_json


def test_a_schema_that_claude_cannot_enforce_is_asked_for_in_words() -> None:
    made = translated(
        messages=[{"role": "system", "content": "Be brief."}, *HI],
        response_format=schema_format({"type": "object", "additionalProperties": {"type": "integer"}}),
    )
    assert "output_config" not in made.body
    assert made.body["system"][0] == {"type": "text", "text": "Be brief."}
    assert '"additionalProperties":{"type":"integer"}' in made.body["system"][1]["text"]
    assert made.reply.strips_json
    assert made.reply.warnings == ("schema_map_lossy",)


def test_a_json_object_is_asked_for_in_words() -> None:
    made = translated(response_format={"type": "json_object"})
    assert "JSON object" in made.body["system"][-1]["text"]
    assert made.reply.strips_json


def test_an_enforced_format_takes_the_place_of_a_prefill() -> None:
    history = [*HI, {"role": "assistant", "content": "{"}]
    made = translated(
        "claude-sonnet-4-5",
        messages=history,
        response_format=schema_format({"type": "object", "properties": {"a": {"type": "string"}}}),
    )
    assert made.body["messages"][-1]["role"] == "user"
    assert made.reply.warnings == ("prefill_emulated",)


CITY = {
    "type": "function",
    "function": {
        "name": "get.weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get.weather"}}])
def test_a_single_tool_is_forced_by_its_schema_where_the_model_cannot_be(choice: Any) -> None:
    made = translated(tools=[CITY], tool_choice=choice)
    assert made.body["tool_choice"] == {"type": "none"}
    assert made.body["output_config"]["format"]["schema"]["required"] == ["city"]
    assert made.reply.text_is_call_of == made.body["tools"][0]["name"]
    assert made.reply.warnings == ("forced_tool_emulated",)


def test_one_of_several_tools_is_demanded_in_words_where_the_model_cannot_be_forced() -> None:
    made = translated(tools=[CITY, WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert made.body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "must answer by calling" in made.body["system"][-1]["text"]
    assert made.reply.text_is_call_of is None


def test_a_named_tool_without_a_schema_to_enforce_is_the_only_one_left() -> None:
    made = translated(tools=[CITY, WEATHER], tool_choice={"type": "function", "function": {"name": "get_weather"}})
    assert [t["name"] for t in made.body["tools"]] == ["get_weather"]
    assert "output_config" not in made.body


def test_strict_mode_refuses_to_force_a_model_that_cannot_be() -> None:
    with pytest.raises(UntranslatableRequest) as caught:
        translated(options=Options(strict=True), tools=[CITY], tool_choice="required")
    assert caught.value.param == "tool_choice"


def test_functions_and_their_results_are_tools_of_one_call_at_a_time() -> None:
    history = [
        *HI,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "two"},
    ]
    made = translated("claude-opus-4-6", messages=history, functions=[{"name": "f"}], function_call={"name": "f"})
    assert made.body["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    uses = [b for m in made.body["messages"] for b in m["content"] if b["type"] == "tool_use"]
    results = [b for m in made.body["messages"] for b in m["content"] if b["type"] == "tool_result"]
    assert [u["id"] for u in uses] == [r["tool_use_id"] for r in results] == ["toolu_fc_1", "toolu_fc_3"]
    assert [r["content"] for r in results] == ["one", "two"]
    assert made.reply.calls_functions


def test_an_operator_may_know_better_what_a_model_takes() -> None:
    assert FLAGS == MODEL_FLAGS
    known = with_operator(facts("claude-opus-5-5"), {"id": "claude-opus-5-5", "sampling": True, "max_tokens": 5000})
    request = chat_request({"model": "claude-opus-5-5", "messages": HI, "temperature": 0.5, "reasoning_effort": "none"})
    made = to_message_params(request, known, Options())
    assert (made.body["temperature"], made.body["max_tokens"]) == (0.5, 5000)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"max_tokens": 1024.0}, {"max_tokens": 1024}),
        ({"max_completion_tokens": 2048.0}, {"max_tokens": 2048}),
        ({"max_completion_tokens": 2048.0, "max_tokens": 5.0}, {"max_tokens": 2048}),
        ({"max_tokens": 1e3}, {"max_tokens": 1000}),
        ({"n": 1.0}, {}),
        ({"n": 3.0}, {}),
        ({"top_k": 40.0}, {"top_k": 40}),
        ({"top_k": -1.0}, {}),
        ({"top_k": 0.0}, {}),
        ({"seed": 7.0}, {}),
        ({"top_logprobs": 0.0}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096.0}},
         {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        ({"reasoning": {"max_tokens": 4096.0}}, {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
    ],
)  # fmt: skip
def test_a_whole_number_may_be_written_as_a_float(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    made = body("claude-haiku-4-5", **fields)
    for name, value in sent.items():
        assert made[name] == value
        assert repr(made[name]) == repr(value)  # 40.0 is equal to 40, and not what the API takes
    if "n" in fields:
        asked = chat_request({"model": "m", "messages": HI, **fields})["n"]
        assert (asked, type(asked)) == (fields["n"], int)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": 1024.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": "1024"}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1e300}, "max_tokens", "invalid_type"),
        ({"max_tokens": float("inf")}, "max_tokens", "invalid_type"),
        ({"max_tokens": -1.0}, "max_tokens", "integer_below_min_value"),
        ({"n": 9.0}, "n", "integer_above_max_value"),
        ({"top_k": 0.5}, "top_k", "invalid_type"),
        ({"top_k": True}, "top_k", "invalid_type"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "4096"}}, "thinking.budget_tokens", "invalid_value"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096.5}}, "thinking.budget_tokens", "invalid_value"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", "invalid_value"),
        ({"reasoning": {"max_tokens": 0.0}}, "reasoning.max_tokens", "invalid_value"),
    ],
)
def test_what_is_no_whole_number_is_refused(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort", "warnings"),
    [
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 800}},
         {"type": "enabled", "budget_tokens": 1024}, None, ("thinking_budget_raised",)),
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1}},
         {"type": "enabled", "budget_tokens": 1024}, None, ("thinking_budget_raised",)),
        ("claude-haiku-4-5", {"reasoning": {"max_tokens": 800}},
         {"type": "enabled", "budget_tokens": 1024}, None, ("thinking_budget_raised",)),
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1024}},
         {"type": "enabled", "budget_tokens": 1024}, None, ()),
        ("claude-sonnet-5", {"thinking": {"type": "enabled", "budget_tokens": 800}, "max_tokens": 2000},
         SUMMARIZED, "low", ("thinking_rewritten",)),
        ("claude-sonnet-5", {"thinking": {"type": "enabled", "budget_tokens": 4096.0}},
         SUMMARIZED, "medium", ("thinking_rewritten",)),
        ("claude-sonnet-5", {"thinking": {"type": "auto"}}, SUMMARIZED, None, ()),
        ("claude-sonnet-5", {"thinking": {"type": "auto", "include_thoughts": True}}, SUMMARIZED, None, ()),
        ("claude-opus-4-8", {"thinking": {"type": "auto"}, "reasoning_effort": "low"}, SUMMARIZED, "low", ()),
        ("claude-haiku-4-5", {"thinking": {"type": "auto"}}, {"type": "enabled", "budget_tokens": 16384}, None,
         ("thinking_rewritten",)),
    ],
)  # fmt: skip
def test_a_wish_to_think_that_claude_words_otherwise_is_understood(
    model: str, fields: dict[str, Any], thinking: Any, effort: str | None, warnings: tuple[str, ...]
) -> None:
    made = translated(model, **fields)
    assert made.body["thinking"] == thinking
    assert made.body.get("output_config", {}).get("effort") == effort
    assert made.reply.warnings == warnings


def test_strict_mode_raises_no_budget() -> None:
    with pytest.raises(InvalidRequest) as caught:
        translated(
            "claude-haiku-4-5",
            Options(strict=True),
            thinking={"type": "enabled", "budget_tokens": 800},
            max_tokens=9000,
        )
    assert caught.value.param == "thinking.budget_tokens"


BETWEEN = {"type": "between_tools"}
DISABLED = {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort"),
    [
        ("claude-sonnet-5", {"max_tokens": 100}, DISABLED, None),
        ("claude-sonnet-5", {"max_tokens": 1023}, DISABLED, None),
        ("claude-sonnet-5", {"max_completion_tokens": 1}, DISABLED, None),
        ("claude-opus-5", {"max_tokens": 1000}, DISABLED, None),
        ("claude-haiku-5-5", {"max_tokens": 1000}, DISABLED, None),
        ("claude-sonnet-5-5", {"max_tokens": 1000}, BETWEEN, None),
        ("claude-opus-4-8", {"max_tokens": 1000}, None, None),
        ("claude-haiku-4-5", {"max_tokens": 1000}, None, None),
        ("claude-opus-5-5", {"max_tokens": 1000}, SUMMARIZED, "low"),
        ("claude-quartz-9", {"max_tokens": 1000}, SUMMARIZED, "low"),
        ("claude-sonnet-5", {"max_tokens": 1024}, SUMMARIZED, "low"),
        ("claude-sonnet-5", {"max_tokens": 2047}, SUMMARIZED, "low"),
        ("claude-sonnet-5", {"max_tokens": 2048}, SUMMARIZED, None),
        ("claude-sonnet-5", {}, SUMMARIZED, None),
        ("claude-sonnet-5", {"max_tokens": 100, "reasoning": {"exclude": True}}, DISABLED, None),
        ("claude-sonnet-5", {"max_tokens": 100, "reasoning_effort": None, "thinking": None}, DISABLED, None),
        ("claude-sonnet-5", {"max_tokens": 100, "reasoning_effort": "medium"}, SUMMARIZED, "medium"),
        ("claude-sonnet-5", {"max_tokens": 100, "reasoning": {"enabled": True}}, SUMMARIZED, "medium"),
        ("claude-sonnet-5", {"max_tokens": 100, "reasoning": {"max_tokens": 50}}, SUMMARIZED, "low"),
        ("claude-sonnet-5", {"max_tokens": 100, "thinking": {"type": "adaptive"}}, SUMMARIZED, None),
        ("claude-sonnet-5-5", {"max_tokens": 100, "reasoning_effort": "high"}, SUMMARIZED, "high"),
    ],
)
def test_below_1024_tokens_nobody_thinks_who_was_not_asked_to(
    model: str, fields: dict[str, Any], thinking: Any, effort: str | None
) -> None:
    made = translated(model, **fields)
    sent = made.body.get("thinking")
    assert (sent and {name: value for name, value in sent.items() if name != "block_binding"}) == thinking
    assert made.body.get("output_config", {}).get("effort") == effort
    assert made.reply.warnings == ()


def test_a_configured_limit_is_no_wish_of_the_clients() -> None:
    made = translated("claude-sonnet-5", Options(default_max_tokens=500))
    assert (made.body["max_tokens"], made.body["thinking"]) == (500, SUMMARIZED)
