"""JSON Schemas as Claude's structured output takes them.

What Claude cannot enforce but can be told (lengths, ranges, look-arounds) moves into the descriptions; what would
change the meaning makes a schema inexpressible.

https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.translate import exact_json

Schema = dict[str, Any]

WRAPPER = "result"
"""The property that a root which is no object is wrapped in: Claude enforces objects only."""

MOST_OPTIONAL = 24
MOST_UNIONS = 16
MOST_STRICT_TOOLS = 20
MOST_NODES = 5000
MOST_BYTES = 256 * 1024
DEEPEST = 100
_KEPT = ("title", "description", "default", "const")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_TO_WORDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} properties",
    "maxProperties": "at most {} properties",
    "uniqueItems": "no item twice",
    "pattern": "matches the regular expression {}",
    "format": "in the format {}",
}
_INEXPRESSIBLE = (
    *("not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
    *("prefixItems", "contains", "unevaluatedProperties", "unevaluatedItems"),
)
_HARD_PATTERN = re.compile(r"\(\?|\\[1-9]|\\[bBpP]|\{\d{3,}|\{\d*,\d{3,}")


class Inexpressible(Exception):
    """The schema says something that Claude cannot enforce, at `path`; `code` is the warning for it."""

    def __init__(self, path: str, reason: str, code: str = "schema_not_enforced") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.code = code


def normalise(schema: Any) -> Schema:
    """An equivalent schema that the API takes. Raises Inexpressible."""
    return _Normaliser(schema).run()


def normalised_arguments(schema: Any) -> Schema:
    """The same of a tool's schema, whose values are objects. Raises Inexpressible."""
    return _arguments(normalise(schema))


def _arguments(made: Schema) -> Schema:
    if made.get("type") != "object":
        raise Inexpressible("", "its values are no objects")
    return made


class StrictBudget:
    """What the strict tools of one request may have in all. `reason` says why the last one did not fit."""

    def __init__(self, is_open: bool) -> None:
        self.reason = "it has no structured output"
        self._is_open = is_open
        self._tools = self._optional = self._unions = 0

    def fit(self, schema: Any) -> Schema | None:
        """The schema as it can be enforced, or None."""
        if not self._is_open:
            return None
        walk = _Normaliser(schema)
        try:
            made = _arguments(walk.run())
        except Inexpressible as reason:
            self.reason = str(reason)
            return None
        if self._tools == MOST_STRICT_TOOLS:
            self.reason = f"there are more than {MOST_STRICT_TOOLS} strict tools"
        elif self._optional + walk.optional > MOST_OPTIONAL:
            self.reason = f"the strict tools have more than {MOST_OPTIONAL} optional parameters"
        elif self._unions + walk.unions > MOST_UNIONS:
            self.reason = f"the strict tools have more than {MOST_UNIONS} unions"
        else:
            self._tools += 1
            self._optional += walk.optional
            self._unions += walk.unions
            return made
        return None


class _Normaliser:
    """One walk over a schema; counts what is limited for the whole of it."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self.optional = 0
        self.unions = 0
        self._nodes = 0
        self._depth = 0
        self._open: list[str] = []
        self._made: dict[str, Schema] = {}
        """What became of each definition: it is walked once, however often it is referred to."""

    def run(self) -> Schema:
        if not isinstance(self._root, dict):
            raise Inexpressible("", "it is not an object")
        if len(exact_json.dumps(self._root)) > MOST_BYTES:
            raise Inexpressible("", "it is too large or too deep")
        made = self._node(self._root, "")
        for name in ("$defs", "definitions"):
            if isinstance(self._root.get(name), dict):
                made[name] = {key: self._definition(f"#/{name}/{key}", f"{name}.{key}") for key in self._root[name]}
        return made

    def _node(self, node: Any, path: str) -> Schema:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MOST_NODES or self._depth > DEEPEST:
            raise Inexpressible(path, "it is too large or too deep")
        made = self._made_of(node, path)
        self._depth -= 1
        return made

    def _made_of(self, node: Any, path: str) -> Schema:
        if not isinstance(node, dict):
            raise Inexpressible(path, "a schema that admits anything or nothing")
        inexpressible = next((word for word in _INEXPRESSIBLE if word in node), None)
        if inexpressible is not None:
            raise Inexpressible(path, f"{inexpressible} cannot be enforced")
        if "$ref" in node:
            return self._reference(node, path)
        if "allOf" in node:
            return self._node(self._merged(node, path), path)
        types = self._types(node, path)
        if node.get("nullable") is True and "null" not in types:
            types = [*types, "null"]
        if ("enum" in node or "const" in node) and (types or node.keys() & {"anyOf", "oneOf"}):
            node, types = _of_its_values(node, types)
        if len(types) > 1:
            return self._union_of_types(node, types, path)
        made = self._common(node, path)
        if "anyOf" in node or "oneOf" in node:
            made["anyOf"] = self._alternatives(node, path)
        elif types:
            made = {"type": types[0], **made, **self._of_type(types[0], node, path)}
        elif not made.keys() & {"enum", "const"}:
            raise Inexpressible(path, "a schema that admits any JSON")
        return made

    def _count(self, *, optional: int = 0, unions: int = 0) -> None:
        self.optional += optional
        self.unions += unions
        if self.optional > MOST_OPTIONAL:
            raise Inexpressible("", f"it has more than {MOST_OPTIONAL} optional properties")
        if self.unions > MOST_UNIONS:
            raise Inexpressible("", f"it has more than {MOST_UNIONS} unions")

    def _reference(self, node: Schema, path: str) -> Schema:
        reference = node["$ref"]
        self._target(reference, path)
        self._definition(reference, path)
        made: Schema = {"$ref": reference}
        if isinstance(node.get("description"), str):
            made["description"] = node["description"]
        return made

    def _definition(self, reference: str, path: str) -> Schema:
        """What becomes of a definition. Raises Inexpressible where it refers to itself."""
        if reference in self._open:
            raise Inexpressible(path, f"{reference} refers to itself")
        if reference not in self._made:
            self._open.append(reference)
            self._made[reference] = self._node(self._target(reference, path), path)
            self._open.pop()
        return self._made[reference]

    def _target(self, reference: Any, path: str) -> Any:
        """What a reference names."""
        if not isinstance(reference, str) or not reference.startswith(("#/$defs/", "#/definitions/")):
            raise Inexpressible(path, "a $ref that leads elsewhere than to $defs")
        target = self._root
        for step in reference[2:].split("/"):
            if not isinstance(target, dict) or step not in target:
                raise Inexpressible(path, f"{reference} leads nowhere")
            target = target[step]
        return target

    def _merged(self, node: Schema, path: str) -> Schema:
        """allOf as one schema; parts that disagree cannot be merged."""
        merged: Schema = {}
        required: dict[str, None] = {}
        properties: Schema = {}
        for part in self._parts(node, path):
            for key, value in part.items():
                if key == "required" and isinstance(value, list) and all(isinstance(name, str) for name in value):
                    required.update(dict.fromkeys(value))
                elif key == "properties" and isinstance(value, dict):
                    for name, inner in value.items():
                        if properties.setdefault(name, inner) != inner:
                            raise Inexpressible(path, f"the parts of allOf disagree on {key}")
                    merged[key] = properties
                elif merged.setdefault(key, value) != value and key not in ("title", "description", "default"):
                    raise Inexpressible(path, f"the parts of allOf disagree on {key}")
        if required:
            merged["required"] = list(required)
        return merged

    def _parts(self, node: Schema, path: str) -> Iterator[Schema]:
        """The schema's own words, then those of its allOf; what is referred to twice says nothing new."""
        yield {key: value for key, value in node.items() if key != "allOf"}
        if not isinstance(node["allOf"], list):
            raise Inexpressible(path, "allOf is not an array")
        known: set[str] = set()
        for part in node["allOf"]:
            if not isinstance(part, dict):
                raise Inexpressible(path, "a schema that admits anything or nothing")
            if "$ref" in part:
                self._definition(part["$ref"], path)
                if part["$ref"] not in known:
                    known.add(part["$ref"])
                    yield self._target(part["$ref"], path)
            yield {key: value for key, value in part.items() if key != "$ref"}

    def _types(self, node: Schema, path: str) -> list[str]:
        types = node.get("type")
        if types is None:
            inferred = (("properties", "object"), ("additionalProperties", "object"), ("items", "array"))
            found = next((kind for word, kind in inferred if word in node), None)
            return [found] if found and not node.keys() & {"anyOf", "oneOf"} else []
        types = types if isinstance(types, list) else [types]
        if not types or any(kind not in _TYPES for kind in types):
            raise Inexpressible(path, "a type that JSON Schema does not know")
        return list(dict.fromkeys(types))

    def _union_of_types(self, node: Schema, types: list[str], path: str) -> Schema:
        self._count(unions=1)
        made = {key: node[key] for key in _KEPT if key in node}
        rest = {key: value for key, value in node.items() if key not in (*_KEPT, "type", "nullable")}
        made["anyOf"] = [
            {"type": "null"} if kind == "null" else self._node({**_fitting(kind, rest), "type": kind}, path)
            for kind in types
        ]
        return made

    def _common(self, node: Schema, path: str) -> Schema:
        made = {key: node[key] for key in _KEPT if key in node}
        if "enum" in node:
            values = node["enum"]
            if not isinstance(values, list) or any(isinstance(value, dict | list) for value in values):
                raise Inexpressible(path, "enum holds more than strings, numbers, booleans and null")
            if not values:
                raise Inexpressible(path, "enum admits nothing")
            made["enum"] = values
        if isinstance(node.get("const"), dict | list):
            raise Inexpressible(path, "const is more than a string, a number, a boolean or null")
        words = [text for key in _TO_WORDS if key in node and (text := _in_words(key, node[key]))]
        if words:
            said = [made["description"]] if isinstance(made.get("description"), str) else []
            made["description"] = "\n".join([*said, f"Must be: {'; '.join(words)}."])
        return made

    def _alternatives(self, node: Schema, path: str) -> list[Schema]:
        self._count(unions=1)
        parts = node.get("anyOf", node.get("oneOf"))
        if not isinstance(parts, list) or not parts or ("anyOf" in node and "oneOf" in node):
            raise Inexpressible(path, "anyOf or oneOf is not an array of schemas")
        if node.keys() & {"properties", "items", "required"}:
            raise Inexpressible(path, "anyOf beside properties")
        return [self._node(part, f"{path}.anyOf[{i}]".lstrip(".")) for i, part in enumerate(parts)]

    def _of_type(self, kind: str, node: Schema, path: str) -> Schema:
        if kind == "object":
            return self._object(node, path)
        if kind == "array":
            if "items" not in node:
                raise Inexpressible(path, "an array of anything")
            made: Schema = {"items": self._node(node["items"], f"{path}.items".lstrip("."))}
            if node.get("minItems") in (0, 1):
                made["minItems"] = node["minItems"]
            return made
        return {
            key: node[key]
            for key in ("pattern", "format")
            if key in node and kind == "string" and _is_taken(key, node[key])
        }

    def _object(self, node: Schema, path: str) -> Schema:
        properties = node.get("properties") or {}
        required = node.get("required") or []
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise Inexpressible(path, "properties is not an object, or required not an array")
        if node.get("additionalProperties") not in (None, False):
            raise Inexpressible(path, "additional properties cannot be allowed", "schema_map_lossy")
        if not properties and "additionalProperties" not in node:
            raise Inexpressible(path, "an object of anything")
        if not all(isinstance(name, str) for name in required):
            raise Inexpressible(path, "required holds more than names")
        self._count(optional=len(properties.keys() - set(required)))
        made: Schema = {
            "properties": {name: self._node(p, f"{path}.{name}".lstrip(".")) for name, p in properties.items()},
            "additionalProperties": False,
        }
        if required:
            made["required"] = required
        return made


def _of_its_values(node: Schema, declared: list[str]) -> tuple[Schema, list[str]]:
    """A schema that lists its values, and their types, since the API refuses a value that is not of the declared one;
    the list says more than a type, or alternatives, beside it."""
    values = [node["const"]] if "const" in node else node["enum"]
    left_out = ("anyOf", "oneOf", "enum") if "const" in node else ("anyOf", "oneOf")
    if not isinstance(values, list) or any(isinstance(value, dict | list) for value in values):
        return node, declared
    found = [_type_of(value) for value in values]
    if "number" in (*declared, *found):
        found = ["number" if kind == "integer" else kind for kind in found]
    if node.get("nullable") is True:
        found.append("null")
    return {key: value for key, value in node.items() if key not in left_out}, list(dict.fromkeys(found))


def _type_of(value: Any) -> str:
    kinds = ("null", "boolean", "string", "integer", "number")
    return next(kind for kind in kinds if _is_of_type(value, kind))


def _fitting(kind: str, rest: Mapping[str, Any]) -> Schema:
    """Of a schema with several types, the part that speaks of `kind`."""
    own = {
        "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        "array": ("items", "minItems", "maxItems", "uniqueItems"),
        "string": ("pattern", "format", "minLength", "maxLength"),
        "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
    own["integer"] = own["number"]
    fitting: Schema = {key: rest[key] for key in own.get(kind, ()) if key in rest}
    if "enum" in rest and isinstance(rest["enum"], list):
        fitting["enum"] = [value for value in rest["enum"] if _is_of_type(value, kind)]
    return fitting


def _is_of_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": int | float, "null": type(None)}
    return kind in kinds and isinstance(value, kinds[kind])


def _is_taken(key: str, value: Any) -> bool:
    if key == "format":
        return value in _FORMATS
    return isinstance(value, str) and not _HARD_PATTERN.search(value)


def _in_words(key: str, value: Any) -> str | None:
    if key in ("pattern", "format") and _is_taken(key, value):
        return None
    if (key == "minItems" and value in (0, 1)) or value is False:
        return None
    return _TO_WORDS[key].format(value if isinstance(value, str) else exact_json.dumps(value).decode())
