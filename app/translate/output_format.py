"""OpenAI's response_format: natively where Claude can enforce the schema, by instruction where it cannot.

https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import UntranslatableRequest, shown
from app.translate.content import Block, text_block
from app.translate.facts import ModelFacts
from app.translate.notes import Notes
from app.translate.schema import Inexpressible, normalise

ONE_OBJECT = "Respond with a single valid JSON object and nothing else."
_MATCHING = "Respond with a single JSON value that matches this JSON Schema, and nothing else:\n"
WRAPPER = "result"
"""The property that a root which is no object is wrapped in: Claude enforces objects only."""


@dataclass(frozen=True)
class OutputFormat:
    """`enforced` is output_config.format; `instruction` stands last in the system text where nothing is enforced, and
    then prose around the JSON is `stripped` from the answer; `wrapped` says that the answer is to be unwrapped."""

    enforced: dict[str, Any] | None = None
    instruction: Block | None = None
    stripped: bool = False
    wrapped: bool = False


def to_output_format(response_format: Any, facts: ModelFacts, notes: Notes) -> OutputFormat:
    """Raises UntranslatableRequest for what is no response_format."""
    if response_format is None:
        return OutputFormat()
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    if kind == "text":
        return OutputFormat()
    if kind == "json_object":
        return OutputFormat(instruction=text_block(ONE_OBJECT), stripped=True)
    if kind != "json_schema":
        raise UntranslatableRequest(
            f"response_format.type is {shown(kind)}; accepted are 'text', 'json_object' and 'json_schema'.",
            param="response_format.type",
            code="invalid_value",
        )
    return _of_schema(response_format, facts, notes)


def _of_schema(response_format: Mapping[str, Any], facts: ModelFacts, notes: Notes) -> OutputFormat:
    described = response_format.get("json_schema")
    if not isinstance(described, dict):
        raise UntranslatableRequest(
            "response_format.json_schema must be an object with a `schema`.",
            param="response_format.json_schema",
            code="missing_required_parameter",
        )
    schema = described.get("schema")
    if schema is None:
        return OutputFormat(instruction=text_block(ONE_OBJECT), stripped=True)
    if not isinstance(schema, dict):
        raise UntranslatableRequest(
            "response_format.json_schema.schema must be a JSON Schema object.",
            param="response_format.json_schema.schema",
            code="invalid_type",
        )
    try:
        return _enforced(schema, facts)
    except Inexpressible as reason:
        notes.warn(
            "schema_not_enforced",
            "response_format.json_schema.schema",
            f"Claude cannot enforce this schema ({reason}); it is asked to follow it.",
        )
        return OutputFormat(instruction=text_block(_MATCHING + orjson.dumps(schema).decode()), stripped=True)


def _enforced(schema: dict[str, Any], facts: ModelFacts) -> OutputFormat:
    if not facts.structured_outputs:
        raise Inexpressible("", f"{facts.id} has no structured output")
    made = normalise(schema)
    if made.get("type") == "object":
        return OutputFormat(enforced={"type": "json_schema", "schema": made})
    definitions: dict[str, Any] = {name: made.pop(name) for name in ("$defs", "definitions") if name in made}
    wrapper: dict[str, Any] = {
        "type": "object",
        "properties": {WRAPPER: made},
        "additionalProperties": False,
        "required": [WRAPPER],
        **definitions,
    }
    return OutputFormat(enforced={"type": "json_schema", "schema": wrapper}, wrapped=True)
