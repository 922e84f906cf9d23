"""Which JSON schemas structured output and strict tools take.

https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
"""

import re
from dataclasses import dataclass, field
from typing import Any

from app.simulator.rules import fail, obj

UNSUPPORTED = frozenset(
    [
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("maxItems", "uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties"),
        *("patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "dependentRequired"),
        *("dependentSchemas", "dependencies", "if", "then", "else", "not", "oneOf", "prefixItems"),
    ]
)
FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"])
TYPES = frozenset(["object", "array", "string", "integer", "number", "boolean", "null"])
BEYOND_SIMPLE_PATTERNS = re.compile(r"\(\?[=!<]|\\[1-9]|\\[bB]|\{\d{4,}")
MAX_OPTIONAL, MAX_UNIONS = 24, 16


@dataclass
class SchemaCheck:
    """One walk over a schema; counts what is limited for the whole of it."""

    root: Any
    path: str
    optional: int = 0
    unions: int = 0
    open_refs: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Raises a Refusal for what the API cannot compile."""
        obj(self.root, self.path)
        self._node(self.root, self.path)
        if self.optional > MAX_OPTIONAL:
            fail(self.path, f"Schema is too complex: {self.optional} optional parameters, at most {MAX_OPTIONAL}")
        if self.unions > MAX_UNIONS:
            fail(self.path, f"Schema is too complex: {self.unions} union types, at most {MAX_UNIONS}")

    def _node(self, node: Any, path: str) -> None:
        if not isinstance(node, dict):
            fail(path, "boolean schemas are not supported")
        if unsupported := sorted(UNSUPPORTED & node.keys()):
            kind = node.get("type", "schema")
            fail(path, f"For '{kind}' type, properties {', '.join(unsupported)} are not supported")
        if "$ref" in node:
            self._reference(node["$ref"], path)
            return
        self._type(node, path)
        self._values(node, path)
        for key in ("anyOf", "allOf"):
            for place, part in enumerate(node.get(key, ())):
                if key == "allOf" and "$ref" in part:
                    fail(f"{path}.{key}.{place}", "$ref inside allOf is not supported")
                self._node(part, f"{path}.{key}.{place}")
        self.unions += "anyOf" in node or isinstance(node.get("type"), list)
        if "items" in node:
            self._node(node["items"], f"{path}.items")
        if "object" in types_of(node):
            self._object(node, path)

    def _reference(self, reference: Any, path: str) -> None:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            fail(path, f"External $ref is not supported: {reference}")
        if reference in self.open_refs:
            fail(path, f"Circular reference detected in schema definitions: {reference}")
        target: Any = self.root
        for step in reference[2:].split("/"):
            if not isinstance(target, dict) or step not in target:
                fail(path, f"$ref cannot be resolved: {reference}")
            target = target[step]
        self.open_refs.append(reference)
        self._node(target, path)
        self.open_refs.pop()

    def _type(self, node: dict[str, Any], path: str) -> None:
        types = types_of(node)
        if not types and not node.keys() & {"anyOf", "allOf", "enum", "const"}:
            fail(path, "Schema type is required: a schema that admits any JSON is not supported")
        for kind in types:
            if kind not in TYPES:
                fail(f"{path}.type", f"Unknown type: {kind}")

    def _values(self, node: dict[str, Any], path: str) -> None:
        types = types_of(node)
        for key in ("enum", "const"):
            values = node[key] if key == "enum" and key in node else [node[key]] if key in node else []
            if not isinstance(values, list) or any(isinstance(value, dict | list) for value in values):
                fail(f"{path}.{key}", "Only primitive values are supported")
            for value in values:
                if types and not any(fits(value, kind) for kind in types):
                    fail(path, f"Invalid schema: {key.title()} value {value!r} does not match declared type {types}")
        if "format" in node and node["format"] not in FORMATS:
            fail(f"{path}.format", f"String format '{node['format']}' is not supported")
        if node.get("minItems", 0) not in (0, 1):
            fail(f"{path}.minItems", "For 'array' type, 'minItems' values other than 0 or 1 are not supported")
        if BEYOND_SIMPLE_PATTERNS.search(str(node.get("pattern", ""))):
            fail(f"{path}.pattern", "Pattern is too complex: look-arounds and back-references are not supported")

    def _object(self, node: dict[str, Any], path: str) -> None:
        if node.get("additionalProperties") is not False:
            fail(path, "For 'object' type, 'additionalProperties' must be explicitly set to false")
        properties = node.get("properties") or {}
        required = node.get("required") or ()
        self.optional += sum(name not in required for name in properties)
        for name, part in properties.items():
            self._node(part, f"{path}.properties.{name}")


def types_of(node: dict[str, Any]) -> list[str]:
    kind = node.get("type")
    return kind if isinstance(kind, list) else [] if kind is None else [kind]


def fits(value: Any, kind: str) -> bool:
    """Whether a primitive value is of a type."""
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, str):
        return kind == "string"
    return kind == "number" or (kind == "integer" and value == int(value))


def check_schema(schema: Any, path: str) -> None:
    """Raises a Refusal for a schema that structured output does not take."""
    SchemaCheck(schema, path).run()
