"""Every scenario yields a legal order of events, and the same ask gives the same answer."""

import pytest

from app.simulator.events import accumulate, frame
from app.simulator.generate import instance
from app.simulator.models import catalogue
from app.simulator.refusal import Refusal
from app.simulator.reply import SCENARIOS, Ask
from app.simulator.scenarios import answer, find, listed_names
from app.simulator.usage import PromptTokens

TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}}}
ODD = {"sim-unknown-events", "sim-whole-message", "sim-error-midstream", "sim-garbage"}
"""Scenarios whose point is an order of events that is not the usual one."""


def ask(name, **body):
    run, number, params = find(name) or (None, None, {})
    model = catalogue().find(name)
    assert model
    return Ask(
        body={
            "model": name,
            "max_tokens": 500,
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [TOOL],
            **body,
        },
        headers={},
        model=model,
        message_id="msg_1",
        prompt=PromptTokens(10),
        account="",
        scenario=run,
        number=number,
        params=params,
    )


def events_of(name, **body):
    return list(answer(ask(name, **body)).events)


def is_legal(events):
    """start, (block start, its deltas, block stop) with rising indexes, message_delta, message_stop; pings and
    comments anywhere."""
    kinds = [event["type"] for event in events if event["type"] not in ("ping", "comment")]
    if kinds[0] != "message_start" or kinds[-2:] != ["message_delta", "message_stop"]:
        return False
    index, is_open = -1, False
    for event in events:
        match event["type"]:
            case "content_block_start":
                if is_open or event["index"] != index + 1:
                    return False
                index, is_open = index + 1, True
            case "content_block_delta" | "content_block_stop":
                if not is_open or event["index"] != index:
                    return False
                is_open = event["type"] == "content_block_delta"
    return not is_open


@pytest.mark.parametrize(
    "name", [name for name in SCENARIOS if not name.startswith("sim-error-") and name != "sim-error"]
)
@pytest.mark.parametrize("max_tokens", [1, 7, 500])
def test_events_come_in_a_legal_order(name, max_tokens):
    if name not in ODD:
        assert is_legal(events_of(name, max_tokens=max_tokens))


@pytest.mark.parametrize(
    "name", ["claude-opus-5-5", "claude-haiku-4-5", "sim-thinking", "sim-parallel-tools", "sim-redacted"]
)
def test_an_answer_is_deterministic_and_accumulates_without_its_pings(name):
    first, again = events_of(name), events_of(name)
    assert first == again
    message = accumulate(first)
    assert message == accumulate(event for event in first if event["type"] != "ping")
    assert message["usage"]["output_tokens"] > 0
    assert all(frame(event).endswith(b"\n\n") for event in first)


def test_max_tokens_counts_thinking_that_is_not_shown():
    message = accumulate(events_of("claude-opus-5-5", max_tokens=10))
    assert (message["stop_reason"], message["content"][0]["thinking"]) == ("max_tokens", "")
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 10}


def test_a_truncated_tool_call_is_half_a_JSON_object():
    pieces = [
        event["delta"]["partial_json"]
        for event in events_of("sim-truncated-tool")
        if event["type"] == "content_block_delta"
    ]
    assert "".join(pieces)
    assert not "".join(pieces).endswith("}")


def test_every_listed_name_is_a_scenario():
    assert all(find(name) for name in listed_names())


@pytest.mark.parametrize(
    "name", [name for name in listed_names() if name.startswith("sim-error-") and "mid" not in name]
)
def test_every_error_is_one_before_the_stream(name):
    try:
        assert answer(ask(name)).raw
    except Refusal as refusal:
        assert refusal.status >= 400


def test_numbers_and_parameters_are_read_from_the_name():
    assert find("sim-cut-3") == (SCENARIOS["sim-cut"], 3, {})
    assert find("sim-text:tokens=5,gap_ms=2") == (SCENARIOS["sim-text"], None, {"tokens": 5, "gap_ms": 2})
    assert find("sim-nothing") is find("sim-text:tokens") is find("claude-opus-5") is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}, "required": ["a"]},
            {"a": "example a", "b": 1},
        ),
        ({"type": "array", "items": {"type": "number", "minimum": 3}, "minItems": 2}, [3, 3]),
        ({"anyOf": [{"type": "null"}, {"enum": ["x", "y"]}]}, "x"),
        ({"type": ["null", "boolean"]}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 7}}}, 7),
        ({"type": "string", "format": "date", "maxLength": 99}, "2026-11-22"),
        ({"type": "string", "minLength": 9, "maxLength": 9}, "examplexx"),
        ({"type": "boolean", "examples": {"one": False}}, True),
        ({"type": "object", "properties": True}, {}),
        ({"type": "string", "format": {"not": "a text"}}, "example"),
        ({"type": "string", "format": ["date"]}, "example"),
    ],
)
def test_a_value_fits_its_schema(schema, value):
    assert instance(schema) == value
