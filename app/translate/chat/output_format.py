"""OpenAI's response_format: natively where Claude can enforce the schema, by instruction where it cannot.

https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate import exact_json
from app.translate.content import Block, text_block
from app.translate.facts import ModelFacts
from app.translate.json_schema import Modernised, modernised, without_renaming
from app.translate.notes import Notes
from app.translate.schema import WRAPPER, Inexpressible, normalise
from app.translate.tools import UNION_WORDS, Tool, ToolNames

ONE_OBJECT = "Respond with a single valid JSON object and nothing else."
_MATCHING = "Respond with a single JSON value that matches this JSON Schema, and nothing else:\n"
JSON_TOOL = "json_answer"


@dataclass(frozen=True)
class OutputFormat:
    """`enforced` is output_config.format; `instruction` stands last in the system text where nothing is enforced, and
    then prose around the JSON is `stripped` from the answer; `wrapped` says that the answer is to be unwrapped; `tool`
    is one whose arguments will be the answer, on models without structured output."""

    enforced: dict[str, Any] | None = None
    instruction: Block | None = None
    stripped: bool = False
    wrapped: bool = False
    tool: Tool | None = None


def to_output_format(
    response_format: Any, facts: ModelFacts, names: ToolNames, notes: Notes, *, enforces: bool = True
) -> OutputFormat:
    """Raises UntranslatableRequest for what is no response_format. Without `enforces` a schema is only told."""
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
    return _of_schema(response_format, facts, names, notes, enforces)


def _of_schema(response_format: Any, facts: ModelFacts, names: ToolNames, notes: Notes, enforces: bool) -> OutputFormat:
    described = response_format.get("json_schema") if isinstance(response_format, dict) else None
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
        if not enforces:
            raise Inexpressible("", "it is too complex", "schema_too_complex")
        if not facts.structured_outputs and facts.forced_tool:
            modern = modernised(schema, notes.pause)
            output = _as_tool(described.get("name"), modern, names)
        else:
            modern = without_renaming(schema, notes.pause)
            output = _enforced(modern, facts)
    except Inexpressible as reason:
        notes.warn(
            reason.code,
            "response_format.json_schema.schema",
            f"Claude cannot enforce this schema ({reason}); it is asked to follow it.",
        )
        # Prose around an object is told from it by its braces; around other values it is not.
        is_object = schema.get("type", "object") == "object"
        return OutputFormat(instruction=text_block(_MATCHING + exact_json.dumps(schema).decode()), stripped=is_object)
    if modern.lost:
        notes.warn(
            "schema_rewritten",
            "response_format.json_schema.schema",
            f"JSON Schema admits no such value of {', '.join(map(shown, modern.lost))}, which was left out.",
        )
    if output.wrapped:
        notes.warn(
            "schema_wrapped",
            "response_format.json_schema.schema",
            "Claude enforces objects only; the value is asked for as a property of one, and taken out of it.",
        )
    return output


def _enforced(modern: Modernised, facts: ModelFacts) -> OutputFormat:
    if not facts.structured_outputs:
        raise Inexpressible("", f"{facts.id} has no structured output")
    made = normalise(modern.schema)
    if made.get("type") == "object":
        return OutputFormat(enforced={"type": "json_schema", "schema": made})
    return OutputFormat(enforced={"type": "json_schema", "schema": _wrapped(made)}, wrapped=True)


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the schema as its only property; definitions stay at the root, where references look for them."""
    inner = dict(schema)
    definitions: dict[str, Any] = {name: inner.pop(name) for name in ("$defs", "definitions") if name in inner}
    return {
        "type": "object",
        "properties": {WRAPPER: inner},
        "additionalProperties": False,
        "required": [WRAPPER],
        **definitions,
    }


def _as_tool(name: Any, modern: Modernised, names: ToolNames) -> OutputFormat:
    """A tool with the schema, whose call is the answer."""
    if modern.renamed:
        raise Inexpressible("", "Claude refuses names of its properties")
    schema = modern.schema
    is_object = schema.get("type") == "object" and not schema.keys() & UNION_WORDS
    tool = {
        "name": names.to_upstream(f"{JSON_TOOL}_{name}" if isinstance(name, str) and name else JSON_TOOL),
        "description": "Gives the answer to the user. Call it with the whole answer.",
        "input_schema": schema if is_object else _wrapped(schema),
    }
    return OutputFormat(tool=tool, wrapped=not is_object)
