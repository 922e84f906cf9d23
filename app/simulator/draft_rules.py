"""Which JSON Schemas a tool may have: those of draft 2020-12, at any depth, with property names that the API takes.

https://json-schema.org/draft/2020-12/schema
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.simulator.rules import fail

PROPERTY_KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
TYPES = frozenset(["object", "array", "string", "integer", "number", "boolean", "null"])

Check = Callable[[Any], bool]
Nested = Iterator[tuple[str, Any]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_array(value: Any) -> bool:
    return isinstance(value, list)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_string, value)) and len(set(value)) == len(value)


def _are_types(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(v, str) and v in TYPES for v in listed) and len(set(listed)) == len(listed)


def _is_regex(value: Any) -> bool:
    try:
        re.compile(value)
    except (TypeError, re.error, OverflowError, RecursionError):
        return False
    return True


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.search(value) is not None


PLAIN: Mapping[str, Check] = {
    **dict.fromkeys(("title", "description", "$comment", "format", "$ref", "$dynamicRef"), _is_string),
    **dict.fromkeys(("contentEncoding", "contentMediaType", "$schema", "$recursiveRef"), _is_string),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _is_number),
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxContains", "minContains"), _is_count),
    **dict.fromkeys(("maxProperties", "minProperties"), _is_count),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _is_bool),
    **dict.fromkeys(("enum", "examples"), _is_array),
    **dict.fromkeys(("$anchor", "$dynamicAnchor", "$recursiveAnchor"), _matches(r"^[A-Za-z_][-A-Za-z0-9._]*$")),
    "$id": _matches(r"^[^#]*#?$"),
    "$vocabulary": lambda value: isinstance(value, dict) and all(map(_is_bool, value.values())),
    "pattern": _is_regex,
    "patternProperties": lambda value: isinstance(value, dict) and all(map(_is_regex, value)),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "required": _are_names,
    "type": _are_types,
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_are_names, value.values())),
}
ONE = (
    *("items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"),
    *("not", "if", "then", "else", "contentSchema"),
)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")


def check_draft(schema: Any, path: str) -> None:
    """Raises a Refusal for what draft 2020-12 does not admit, and for names of properties that the API does not."""
    waiting: list[tuple[str, Any]] = [("", schema)]
    while waiting:
        below, node = waiting.pop()
        if not isinstance(node, dict | bool):
            _invalid(path)
        if isinstance(node, dict):
            if not all(check(node[key]) for key, check in PLAIN.items() if key in node):
                _invalid(path)
            waiting += _nested(node, path, below)


def _nested(node: Mapping[str, Any], path: str, below: str) -> Nested:
    for key in ONE:
        if key in node:
            yield f"{below}.{key}", node[key]
    for key in LISTS:
        if key in node:
            if not isinstance(node[key], list) or not node[key]:
                _invalid(path)
            yield from ((f"{below}.{key}.{place}", part) for place, part in enumerate(node[key]))
    for key in MAPS:
        if key in node:
            if not isinstance(node[key], dict):
                _invalid(path)
            if key == "properties" and not all(map(PROPERTY_KEY.fullmatch, node[key])):
                fail(f"{path}{below}.properties", f"Property keys should match pattern '^{PROPERTY_KEY.pattern}$'")
            yield from ((f"{below}.{key}.{name}", part) for name, part in node[key].items())
    dependencies = node.get("dependencies", {})
    if not isinstance(dependencies, dict):
        _invalid(path)
    yield from ((f"{below}.dependencies.{name}", p) for name, p in dependencies.items() if not _are_names(p))


def _invalid(path: str) -> None:
    fail(path, "JSON schema is invalid. It must match JSON Schema draft 2020-12")
