"""Schemas for structured output: what is kept, what is said in words, and what cannot be expressed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.simulator.schema_rules import check_schema
from app.translate.schema import Inexpressible, normalise


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def closed(**properties: Any) -> dict[str, Any]:
    return {**obj(**properties), "additionalProperties": False}


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (obj(a=STRING), closed(a=STRING)),
        ({"properties": {"a": STRING}}, {"type": "object", "properties": {"a": STRING}, "additionalProperties": False}),
        (
            obj(a={"type": "integer", "minimum": 1, "maximum": 5, "description": "Stars."}),
            closed(a={"type": "integer", "description": "Stars.\nMust be: at least 1; at most 5."}),
        ),
        (obj(a={"type": ["string", "null"]}), closed(a={"anyOf": [STRING, {"type": "null"}]})),
        (obj(a={"type": "string", "nullable": True}), closed(a={"anyOf": [STRING, {"type": "null"}]})),
        (obj(a={"oneOf": [STRING, {"type": "null"}]}), closed(a={"anyOf": [STRING, {"type": "null"}]})),
        (
            obj(a={"type": "array", "items": STRING, "minItems": 1}),
            closed(a={"type": "array", "items": STRING, "minItems": 1}),
        ),
        (
            obj(a={"type": "array", "items": STRING, "minItems": 3}),
            closed(a={"type": "array", "description": "Must be: at least 3 items.", "items": STRING}),
        ),
        (obj(a={"type": "string", "pattern": "^[a-z]+$"}), closed(a={"type": "string", "pattern": "^[a-z]+$"})),
        (
            obj(a={"type": "string", "pattern": "(?=x)"}),
            closed(a={"type": "string", "description": "Must be: matches the regular expression (?=x)."}),
        ),
        (obj(a={"type": "string", "format": "date"}), closed(a={"type": "string", "format": "date"})),
        (
            obj(a={"type": "string", "format": "color"}),
            closed(a={"type": "string", "description": "Must be: in the format color."}),
        ),
        (obj(a={"enum": ["x", 1, None]}), closed(a={"enum": ["x", 1, None]})),
        (
            {**obj(a={"$ref": "#/$defs/A", "title": "x", "description": "d"}), "$defs": {"A": obj(b=STRING)}},
            {**closed(a={"$ref": "#/$defs/A", "description": "d"}), "$defs": {"A": closed(b=STRING)}},
        ),
        (
            {**obj(a={"allOf": [{"$ref": "#/definitions/A"}]}), "definitions": {"A": obj(b=STRING)}},
            {**closed(a=closed(b=STRING)), "definitions": {"A": closed(b=STRING)}},
        ),
        ({"allOf": [obj(a=STRING), obj(b=STRING)]}, closed(a=STRING, b=STRING)),
    ],
)
def test_a_schema_becomes_one_that_the_api_takes(schema: Any, expected: Any) -> None:
    made = normalise(schema)
    assert made == expected
    check_schema(made, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        obj(a={}),
        obj(a={"type": "object"}),
        obj(a={"type": "array"}),
        {**obj(a=STRING), "additionalProperties": True},
        obj(a={"type": "object", "additionalProperties": STRING}),
        obj(a={"not": STRING}),
        obj(a={"$ref": "https://example.com/x"}),
        obj(a={"$ref": "#/$defs/None"}),
        {**obj(a={"$ref": "#/$defs/A"}), "$defs": {"A": obj(a={"$ref": "#/$defs/A"})}},
        obj(a={"enum": [{"x": 1}]}),
        obj(a={"allOf": [STRING, {"type": "integer"}]}),
        {"type": "object", "properties": {f"p{i}": STRING for i in range(25)}},
        obj(**{f"p{i}": {"type": ["string", "null"]} for i in range(17)}),
    ],
)
def test_what_claude_cannot_enforce_is_inexpressible(schema: Any) -> None:
    with pytest.raises(Inexpressible):
        normalise(schema)


words = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array", "nonsense"])
leaf = st.fixed_dictionaries(
    {},
    optional={
        "type": words | st.lists(words, max_size=3),
        "enum": st.lists(st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3), max_size=3),
        "minimum": st.integers(-3, 3),
        "maxLength": st.integers(0, 9),
        "minItems": st.integers(0, 3),
        "pattern": st.sampled_from(["^a+$", "(?!x)", "a{1,5}", "\\bx"]),
        "format": st.sampled_from(["date", "color"]),
        "nullable": st.booleans(),
        "description": st.text(max_size=5),
        "$ref": st.sampled_from(["#/$defs/A", "#", "x"]),
    },
)
schemas: st.SearchStrategy[Any] = st.recursive(
    leaf,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": words,
            "properties": st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "additionalProperties": st.booleans() | inner,
            "$defs": st.fixed_dictionaries({"A": inner}),
        },
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(schemas)
def test_every_schema_is_taken_by_the_api_or_inexpressible(schema: Any) -> None:
    try:
        made = normalise(schema)
    except Inexpressible:
        return
    check_schema(made, "schema")
