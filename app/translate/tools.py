"""Tools, tool choice, and the names and ids of calls.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from app.errors import UntranslatableRequest, shown
from app.translate import exact_json
from app.translate.caching import mark_last, to_cache_control
from app.translate.notes import Notes

Tool = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_MAX_INPUT_DEPTH = 200
_UNION_WORDS = ("anyOf", "oneOf", "allOf", "enum", "not")
_CHOICES = "'none', 'auto', 'required' or an object that names a function"


class ToolNames:
    """Function names as Claude accepts them, and the way back."""

    def __init__(self) -> None:
        self._original: dict[str, str] = {}

    def to_upstream(self, name: str) -> str:
        if _NAME.fullmatch(name):
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        mapped = f"{_NOT_IN_NAME.sub('_', name)[:57]}_{digest}"
        self._original[mapped] = name
        return mapped

    @property
    def originals(self) -> dict[str, str]:
        """Upstream name to the client's, of those that had to be altered."""
        return self._original


class CallIds:
    """Ids of tool calls as Claude accepts them: unique over the conversation, the same every time it is sent."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._last_number: dict[str, int] = {}

    def to_upstream(self, call_id: Any, message_index: int, call_index: int) -> str:
        wanted = _NOT_IN_NAME.sub("_", call_id) if isinstance(call_id, str) else ""
        if not _ID.fullmatch(wanted):
            digest = hashlib.sha256(f"{message_index}.{call_index}".encode()).hexdigest()[:24]
            wanted = f"toolu_gw_{digest}"
        unique = wanted
        while unique in self._used:  # counts on, so that many equal ids do not cost the square of their number
            self._last_number[wanted] = self._last_number.get(wanted, 1) + 1
            unique = f"{wanted}_{self._last_number[wanted]}"
        self._used.add(unique)
        return unique


def to_tool_input(arguments: Any, param: str, notes: Notes) -> dict[str, Any]:
    """The `input` of a tool_use block. What is no JSON object (a client cannot repair its history) is kept as
    `{"_raw": text}`."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        raise UntranslatableRequest(f"{param} must be a string of JSON.", param=param, code="invalid_type")
    text = arguments.strip()
    if text.startswith("{}{"):  # left in histories by gateways that sent an empty object before the real one
        text = text[2:]
    try:
        value = exact_json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict) and not is_deeper_than(value, _MAX_INPUT_DEPTH):
        return value
    notes.warn("bad_tool_arguments", param, "These tool call arguments are not a JSON object.")
    return {"_raw": arguments}


def is_deeper_than(value: Any, limit: int) -> bool:
    """Whether arrays and objects are nested more than `limit` deep. Does not recurse."""
    level = [value]
    for _ in range(limit + 1):
        inner: list[Any] = []
        for node in level:
            if type(node) is dict:
                inner += [v for v in node.values() if type(v) is dict or type(v) is list]
            elif type(node) is list:
                inner += [v for v in node if type(v) is dict or type(v) is list]
        if not inner:
            return False
        level = inner
    return True


def to_tools(tools: Any, names: ToolNames, notes: Notes) -> list[Tool]:
    """Raises UntranslatableRequest with the path of what is wrong."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise UntranslatableRequest("tools must be an array.", param="tools", code="invalid_type")
    seen: set[str] = set()
    translated = []
    for i, tool in enumerate(tools):
        path = f"tools[{i}]"
        function = _function(tool, path)
        name = function["name"]
        if name in seen:
            raise UntranslatableRequest(
                f"{path}.function.name {shown(name)} is there twice.",
                param=f"{path}.function.name",
                code="invalid_value",
            )
        seen.add(name)
        made = _to_tool(function, path, names, notes)
        control = to_cache_control(tool, path) or to_cache_control(function, f"{path}.function")
        mark_last([made], control)
        translated.append(made)
    return translated


def _function(tool: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(tool, dict):
        raise UntranslatableRequest(f"{path} must be an object.", param=path, code="invalid_type")
    if tool.get("type") != "function":
        known = isinstance(tool.get("type"), str)
        raise UntranslatableRequest(
            f"{path}.type must be 'function'; {shown(tool.get('type'))} is not supported by this version of the "
            "gateway.",
            param=f"{path}.type",
            code="unsupported_parameter" if known else "invalid_type",
        )
    function = tool.get("function")
    if not isinstance(function, dict):
        raise UntranslatableRequest(
            f"{path}.function must be an object.", param=f"{path}.function", code="missing_required_parameter"
        )
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise UntranslatableRequest(
            f"{path}.function.name must be a non-empty string.",
            param=f"{path}.function.name",
            code="missing_required_parameter",
        )
    if not isinstance(function.get("description"), str | None):
        raise UntranslatableRequest(
            f"{path}.function.description must be a string.",
            param=f"{path}.function.description",
            code="invalid_type",
        )
    for holder, where in ((tool, path), (function, f"{path}.function")):
        for extension in ("defer_loading", "input_examples", "allowed_callers"):
            if holder.get(extension) is not None:
                raise UntranslatableRequest(
                    f"{where}.{extension} is not supported by this version of the gateway.",
                    param=f"{where}.{extension}",
                    code="unsupported_parameter",
                )
    return function


def _to_tool(function: Mapping[str, Any], path: str, names: ToolNames, notes: Notes) -> Tool:
    tool: Tool = {"name": names.to_upstream(function["name"])}
    schema, in_words = _input_schema(function.get("parameters"), f"{path}.function.parameters", notes)
    description = "\n".join(text for text in (function.get("description"), in_words) if text)
    if description:
        tool["description"] = description
    tool["input_schema"] = schema
    if function.get("strict"):
        notes.warn(
            "strict_dropped",
            f"{path}.function.strict",
            "Strict tool schemas are not enforced by this version of the gateway.",
        )
    return tool


def _input_schema(parameters: Any, param: str, notes: Notes) -> tuple[dict[str, Any], str]:
    """An object schema without a union at its top (the API refuses both), and in words what that lost."""
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise UntranslatableRequest(f"{param} must be a JSON Schema object.", param=param, code="invalid_type")
    schema = {k: v for k, v in parameters.items() if k not in ("$schema", "$id")}
    unions = [word for word in _UNION_WORDS if word in schema]
    in_words = ""
    if unions:
        notes.warn("schema_rewritten", param, "Claude refuses anyOf, oneOf, allOf, enum and not at a schema's top.")
        schema, in_words = _without_top_unions(schema, unions)
    if "properties" not in schema:
        schema["properties"] = {}
    return {"type": "object", **{k: v for k, v in schema.items() if k != "type"}}, in_words


def _without_top_unions(schema: dict[str, Any], unions: list[str]) -> tuple[dict[str, Any], str]:
    removed = {word: schema.pop(word) for word in unions}
    properties = dict(_properties(schema))
    required = dict.fromkeys(_required(schema))
    for part in _object_schemas(removed.get("allOf")):
        properties.update(_properties(part))
        required.update(dict.fromkeys(_required(part)))
    for word in ("anyOf", "oneOf"):
        alternatives = _object_schemas(removed.get(word))
        for part in alternatives:
            for name, inner in _properties(part).items():
                properties.setdefault(name, inner)
        demanded = [set(_required(part)) for part in alternatives]
        required.update(dict.fromkeys(sorted(set.intersection(*demanded)) if demanded else ()))
    schema["properties"] = properties
    schema["required"] = list(required)
    lost = {word: value for word, value in removed.items() if word != "allOf"}
    if not lost:
        return schema, ""
    return schema, f"The arguments must also satisfy this JSON Schema: {orjson.dumps(lost).decode()}"


def _object_schemas(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def to_tool_choice(choice: Any, *, parallel: bool, tools: list[Tool], names: ToolNames) -> dict[str, Any] | None:
    """Anthropic's `tool_choice`, or None where its default says the same."""
    if not tools:
        if choice in (None, "none", "auto"):
            return None
        raise UntranslatableRequest(
            "tool_choice asks for a tool, but there are no tools.", param="tool_choice", code="invalid_value"
        )
    translated = _to_choice(choice, tools, names)
    if not parallel and translated["type"] != "none":
        translated["disable_parallel_tool_use"] = True
    return None if translated == {"type": "auto"} else translated


def _to_choice(choice: Any, tools: list[Tool], names: ToolNames) -> dict[str, Any]:
    if choice is None or choice == "auto":
        return {"type": "auto"}
    if choice == "none":
        return {"type": "none"}
    if choice == "required":
        return {"type": "any"}
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or names.to_upstream(name) not in {t["name"] for t in tools}:
            raise UntranslatableRequest(
                f"tool_choice names the function {shown(name)}, which is not in tools.",
                param="tool_choice",
                code="invalid_value",
            )
        return {"type": "tool", "name": names.to_upstream(name)}
    if isinstance(choice, dict) and choice.get("type") in ("allowed_tools", "custom"):
        raise UntranslatableRequest(
            f"tool_choice of type {choice['type']!r} is not supported by this version of the gateway.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    raise UntranslatableRequest(f"tool_choice must be {_CHOICES}.", param="tool_choice", code="invalid_value")
