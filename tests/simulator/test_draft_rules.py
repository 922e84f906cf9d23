"""The simulator takes the schemas of draft 2020-12, and those alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from app.simulator.draft_rules import check_draft
from app.simulator.refusal import Refusal
from tests.json_schemas import schemas


def refusal(schema: Any) -> str | None:
    try:
        check_draft(schema, "tools.0.custom.input_schema")
    except Refusal as refused:
        return refused.message
    return None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas)
def test_what_is_no_schema_of_the_draft_is_refused(schema: dict[str, Any]) -> None:
    try:
        Draft202012Validator.check_schema(schema)
        is_valid = True
    except SchemaError:
        is_valid = False
    said = refusal(schema)
    if said is None or "Property keys" not in said:  # of which the draft knows nothing
        assert (said is None) == is_valid, schema


@pytest.mark.parametrize("name", ["filter[name]", "größe", "", "x" * 65, "a b", "$ref"])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"items": {"anyOf": [s]}}, lambda s: {"$defs": {"any name": s}}]
)
def test_names_of_properties_are_held_to_their_pattern_at_any_depth(name: str, wrap: Any) -> None:
    said = refusal(wrap({"properties": {name: {}}}))
    assert said is not None
    assert "Property keys should match pattern" in said
    assert refusal(wrap({"properties": {"a_B-1.x": {}}, "required": [name]})) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": 0, "exclusiveMinimum": True},
        {"items": [{"type": "number"}]},
        {"required": True},
        {"type": "any"},
        {"type": "STRING"},
        {"properties": None},
        {"anyOf": []},
        {"properties": {"a": {"properties": {"b": {"enum": "x"}}}}},
        {"dependencies": {"a": "b"}},
        {"description": 5},
    ],
)
def test_older_drafts_are_refused_in_the_apis_words(schema: dict[str, Any]) -> None:
    assert refusal(schema) == (
        "tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"
    ), json.dumps(schema)
