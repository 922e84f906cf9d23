"""Whatever clients take for a JSON Schema becomes one that Claude takes; its calls come back in the client's words."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.schemas.chat import chat_request
from app.simulator.models import catalogue
from app.simulator.validator import validate
from app.translate import exact_json
from app.translate.argument_names import ArgumentNames
from app.translate.chat.request import Options, to_message_params
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.facts import facts_for
from app.translate.json_schema import modernised, with_names
from app.translate.translation import Translation
from app.upstream.names import OVERLAY
from tests.json_schemas import NAMES, anything, object_schemas, schemas

SIMULATED = catalogue()
MODELS = ("claude-opus-5-5", "claude-opus-4-8", "claude-sonnet-4-5")
HI = [{"role": "user", "content": "hi"}]
usual = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
models = st.sampled_from(MODELS)


def translated(model: str, **request: Any) -> Translation:
    asked = chat_request({"model": model, "messages": HI, **request})
    return to_message_params(asked, facts_for(model, OVERLAY), Options())


def accepted(model: str, made: Translation) -> None:
    """Raises the simulator's Refusal."""
    simulated = SIMULATED.find(model)
    assert simulated is not None
    headers = {name.lower(): value for name, value in made.headers.items()}
    validate(orjson.loads(exact_json.dumps(made.body)), headers, simulated)


def tool(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": schema, **more}}


@usual
@given(models, schemas | object_schemas, st.sampled_from([None, True, False]), st.sampled_from(["auto", "required"]))
def test_any_schema_of_a_tool_goes_upstream_as_one_that_is_taken(
    model: str, schema: dict[str, Any], strict: bool | None, choice: str
) -> None:
    made = translated(model, tools=[tool(schema, strict=strict)], tool_choice=choice)
    accepted(model, made)
    assert made == translated(model, tools=[tool(schema, strict=strict)], tool_choice=choice)


@usual
@given(models, schemas | object_schemas)
def test_any_schema_of_an_answer_goes_upstream_as_one_that_is_taken(model: str, schema: dict[str, Any]) -> None:
    answer = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    accepted(model, translated(model, response_format=answer))


@usual
@given(schemas | object_schemas)
def test_a_schema_of_today_stays_as_it_is(schema: dict[str, Any]) -> None:
    once = modernised(schema)
    again = modernised(once.schema)
    assert again.schema == once.schema
    assert not again.renamed
    assert not again.lost


def events(arguments: str, tool: str, pieces: list[str] | None) -> list[dict[str, Any]]:
    start = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {} if pieces else orjson.loads(arguments)}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces or ()]
    head = {"id": "msg_1", "model": "m", "content": [], "usage": {}}
    return [
        {"type": "message_start", "message": head},
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
        {"type": "message_stop"},
    ]


@usual
@given(object_schemas, st.dictionaries(NAMES, anything, max_size=4), st.integers(1, 9), st.booleans())
def test_arguments_come_back_under_the_clients_names_streamed_and_whole(
    schema: dict[str, Any], arguments: dict[str, Any], step: int, spaced: bool
) -> None:
    schema = {**schema, "properties": {**schema["properties"], **{name: {} for name in arguments}}}
    made = translated("claude-opus-4-8", tools=[tool(schema)])
    renamed = modernised(schema).renamed
    name = made.body["tools"][0]["name"]
    known = with_names(arguments, renamed)
    assert set(known) <= set(made.body["tools"][0]["input_schema"]["properties"])
    written = json.dumps(known, ensure_ascii=False, separators=(", ", ": ") if spaced else (",", ":"))
    pieces = [written[at : at + step] for at in range(0, len(written), step)]
    translator = StreamTranslator(made.reply, created=0)
    chunks = [chunk for event in events(written, name, pieces) for chunk in translator.feed(event)]
    deltas = [call for chunk in chunks for c in chunk["choices"] for call in c["delta"].get("tool_calls", ())]
    streamed = "".join(delta["function"].get("arguments", "") for delta in deltas)
    message = {"id": "msg_1", "model": "m", "stop_reason": "tool_use", "usage": {}}
    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": json.loads(written), "partial_json": written}
    completion = to_chat_completion([{**message, "content": [block]}], made.reply, created=0)
    whole = completion["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert streamed == whole
    assert json.loads(whole) == arguments


@usual
@given(st.dictionaries(NAMES, anything, max_size=4), st.integers(0, 60), st.integers(1, 9))
def test_arguments_that_are_cut_lose_nothing(arguments: dict[str, Any], end: int, step: int) -> None:
    written = json.dumps(arguments, ensure_ascii=False)[:end]
    names = ArgumentNames({"nothing": "is renamed"})
    pieces = [written[at : at + step] for at in range(0, len(written), step)]
    assert "".join([*map(names.feed, pieces), names.release()]) == written
