"""/openapi.json, from what the views declare and their marshmallow schemas."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from app.access.endpoint import Access, Endpoint, declared, endpoint
from app.schemas import base, chat
from app.translate.chat.fields import fields_table
from app.version import VERSION

blueprint = Blueprint("openapi", __name__)
_ORDER = ("chat", "messages", "models", "usage", "config", "verify", "health", "openapi")
"""The blueprints as a reader wants them: first what a client calls."""
_CONVERTER = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    "client": [{"bearer": []}, {"x-api-key": []}],
    "client_or_admin": [{"bearer": []}, {"x-api-key": []}],
    "admin": [{"bearer": []}, {"x-api-key": []}],
    "metrics": [{"bearer": []}],
}
_NEEDS: dict[Access, str] = {
    "anyone": "Needs no key.",
    "client": "Needs a **client key**.",
    "admin": "Needs an **admin key**.",
    "client_or_admin": "Needs a **client key** or an **admin key**.",
    "metrics": "Needs `METRICS_TOKEN` as Bearer, or a call from the machine itself.",
}
_FIELD_TYPES = {
    base.Boolean: "boolean",
    base.Integer: "integer",
    base.Float: "number",
    base.String: "string",
    base.List: "array",
    base.Object: "object",
    chat.Flag: "boolean",
    chat.Text: "string",
    chat.Number: "number",
    chat.StringMap: "object",
    chat.StreamOptions: "object",
    chat.Array: "array",
    chat.Stop: None,
}
_TRANSLATED_TYPES: dict[str, Any] = {
    "system": ["string", "array", "null"],
    "top_k": ["integer", "null"],
    "reasoning": ["object", "null"],
    "thinking": ["object", "null"],
    "web_search_options": ["object", "null"],
    "output_config": ["object", "null"],
    "tool_choice": ["string", "object", "null"],
    "response_format": ["object", "null"],
}
"""Of fields of a chat request that its schema leaves to translate/."""
_CHAT_DESCRIPTIONS = {
    "model": "The id of a model, as `/v1/models` lists them, or an alias.",
    "messages": "The conversation as OpenAI takes it: text, images, tool calls and their results.",
}
_EXAMPLES = {
    chat.ChatRequestSchema: {
        "model": "claude-sonnet-5-5",
        "messages": [{"role": "user", "content": "Hello, Claude!"}],
    },
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


_ANTHROPICS_ERROR = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object", "properties": {"error_code": {"type": "string"}}},
            },
            "required": ["type", "message"],
        },
        "request_id": {"type": ["string", "null"]},
    },
    "required": ["type", "error"],
}


@blueprint.get("/openapi.json")
@endpoint("anyone", "This description", answers={200: "application/json"})
def openapi() -> Response:
    return Response(orjson.dumps(specification(current_app)), mimetype="application/json")


def specification(app: Flask) -> dict[str, Any]:
    """Made once for an application."""
    made: dict[str, Any] | None = app.extensions.get("dragoman.openapi")
    if made is None:
        made = app.extensions["dragoman.openapi"] = _specification(app)
    return made


def _specification(app: Flask) -> dict[str, Any]:
    plugin = MarshmallowPlugin(schema_name_resolver=_schema_name)
    spec = APISpec(
        title="Dragoman",
        version=VERSION,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": "OpenAI's API for Anthropic's Claude, and the gateway's own configuration."},
    )
    assert plugin.converter is not None
    for field, kind in _FIELD_TYPES.items():
        plugin.map_to_openapi_type(field, kind, None)  # type: ignore[no-untyped-call]  # apispec
    plugin.converter.add_attribute_function(_bounds)  # type: ignore[no-untyped-call]  # apispec
    spec.components.schema("Error", _ERROR)
    spec.components.schema("AnthropicError", _ANTHROPICS_ERROR)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("x-api-key", {"type": "apiKey", "in": "header", "name": "x-api-key"})
    for rule in sorted(app.url_map.iter_rules(), key=_place):
        declaration = declared(app.view_functions[rule.endpoint])
        if declaration is not None and declaration.documented:
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            operations = {method.lower(): _operation(declaration, rule) for method in sorted(methods)}
            spec.path(_CONVERTER.sub(r"{\1}", rule.rule), operations=operations)
    made = spec.to_dict()
    _describe_chat_fields(made["components"]["schemas"]["ChatRequest"]["properties"])
    return made


def _place(rule: Rule) -> tuple[int, bool, str]:
    part = rule.endpoint.partition(".")[0]
    return _ORDER.index(part) if part in _ORDER else len(_ORDER), not rule.rule.startswith("/v1/"), rule.rule


def field_rows() -> list[tuple[str, str, str]]:
    """docs/compatibility.md's table: a chat request's field, what becomes of it, and how or why."""
    rows = [line.strip("| ").split(" | ", 2) for line in fields_table().splitlines()[2:]]
    return [(name.strip("`"), fate, why) for name, fate, why in rows]


def _describe_chat_fields(properties: dict[str, Any]) -> None:
    for name, fate, why in field_rows():
        if name not in properties and fate == "translated":
            properties[name] = {"type": _TRANSLATED_TYPES[name]} if name in _TRANSLATED_TYPES else {}
        if name in properties:
            told = why if fate == "translated" else f"{fate[:1].upper()}{fate[1:]}. {why}"
            properties[name].setdefault("description", _CHAT_DESCRIPTIONS.get(name, told))


def _schema_name(schema: Any) -> str:
    return str(resolver(schema)).removesuffix("Schema")


def _bounds(self: Any, field: Any, **_: Any) -> dict[str, Any]:
    """Limits that our own fields know."""
    if isinstance(field, chat.Number):
        bounds: dict[str, Any] = {"minimum": field.least}
        if field.most != float("inf"):
            bounds["maximum"] = field.most
        return {**bounds, **({"type": ["integer", "null"]} if field.whole else {})}
    if isinstance(field, chat.Text) and field.choices:
        return {"enum": [*field.choices, *([] if field.required else [None])]}
    if isinstance(field, chat.Array):
        return {"items": {}}
    return {}


def _operation(declaration: Endpoint, rule: Rule) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": declaration.summary,
        "operationId": rule.endpoint.rpartition(".")[2],
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in sorted(rule.arguments)
        ]
        + [
            {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
            for name, meaning in declaration.query.items()
        ],
        "responses": {
            str(status): {"description": HTTPStatus(status).phrase, "content": _content(answer)}
            for status, answer in declaration.answers.items()
        }
        | {"default": {"description": "An error", "content": {"application/json": {"schema": _error_schema(rule)}}}},
    }
    operation["description"] = "\n\n".join(filter(None, (declaration.description, _NEEDS.get(declaration.access))))
    if declaration.access in _SECURITY:
        operation["security"] = _SECURITY[declaration.access]
    if declaration.body is not None:
        media: dict[str, Any] = {"schema": declaration.body}
        if declaration.body in _EXAMPLES:
            media["example"] = _EXAMPLES[declaration.body]
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    return operation


def _error_schema(rule: Rule) -> Any:
    """Of `/v1/models` the client decides which of the two it gets."""
    anthropics = {"$ref": "#/components/schemas/AnthropicError"}
    if rule.rule.startswith("/v1/models"):
        return {"anyOf": [{"$ref": "#/components/schemas/Error"}, anthropics]}
    return anthropics if rule.rule.startswith("/v1/messages") else "Error"


def _content(answer: Any) -> dict[str, Any]:
    return {answer: {}} if isinstance(answer, str) else {"application/json": {"schema": answer}}
