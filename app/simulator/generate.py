"""A plausible value for a JSON schema: the arguments of a tool call, or a structured answer."""

from typing import Any

Schema = dict[str, Any]

DEEPEST = 12
BY_NAME = {
    "city": "Paris",
    "location": "Paris, France",
    "country": "France",
    "unit": "celsius",
    "units": "celsius",
    "timezone": "Europe/Paris",
    "language": "en",
    "name": "Ada Lovelace",
    "title": "A short title",
    "expression": "2 + 2",
    "path": "README.md",
    "filename": "README.md",
    "command": "ls",
}
BY_FORMAT = {
    "date-time": "2026-11-22T12:00:00Z",
    "date": "2026-11-22",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "7b8e6b1c-8a52-4c6e-9a2f-3a7f2f7f1a10",
}
QUERY_NAMES = frozenset({"query", "question", "q", "text", "input", "prompt", "message", "search_query"})


def instance(schema: Any, said: str = "") -> Any:
    """A value that the schema admits, the same each time. `said` is used where a property asks for a query or text."""
    root = schema if isinstance(schema, dict) else {}
    return _value(root, root, "", said, 0)


def _value(schema: Any, root: Schema, name: str, said: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    schema = _resolved(schema, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:  # nothing says what examples are
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _value(_first_real(schema[key]), root, name, said, depth + 1)
    match _type(schema):
        case "object":
            return _object(schema, root, said, depth)
        case "array":
            return [_value(schema.get("items", {}), root, name, said, depth + 1)] * max(1, schema.get("minItems", 1))
        case "string":
            return _string(schema, name, said)
        case "integer" | "number" as kind:
            return _number(schema, kind)
        case "boolean":
            return True
    return None


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema with its `$ref` followed and its `allOf` merged in."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: Any = root
        for step in reference[2:].split("/"):
            target = target.get(step, {}) if isinstance(target, dict) else {}
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    merged = dict(schema)
    for part in schema.get("allOf", ()):
        part = _resolved(part, root)
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged = {**part, **merged, "properties": properties, "required": required}
    return merged


def _first_real(choices: list[Any]) -> Any:
    return next((choice for choice in choices if isinstance(choice, dict) and choice.get("type") != "null"), choices[0])


def _type(schema: Schema) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), None)
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _object(schema: Schema, root: Schema, said: str, depth: int) -> dict[str, Any]:
    """Required properties first, as the real API orders them; the optional ones too while it is not deep."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = [name for name in schema.get("required") or () if name in properties]
    optional = [name for name in properties if name not in required] if depth < 3 else []
    return {name: _value(properties[name], root, name, said, depth + 1) for name in (*required, *optional)}


def _string(schema: Schema, name: str, said: str) -> str:
    said_format = schema.get("format")
    if isinstance(said_format, str) and said_format in BY_FORMAT:  # a schema that nothing checked may hold anything
        return BY_FORMAT[said_format]
    asks_for_words = said and name in QUERY_NAMES
    text = said[:120] if asks_for_words else BY_NAME.get(name, f"example {name}".strip())
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _number(schema: Schema, kind: str) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1) - ("exclusiveMaximum" in schema))
    value = min(max(low, 1), max(high, low))
    return int(value) if kind == "integer" else value
