"""JSON Schemas as clients may write them, for properties: of any draft, half right, and wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(
    ["a", "b", "c.d", "filter[name]", "größe", "城市", "x" * 70, "", " ", "properties", "type", "$ref", "a/b"]
)
scalars = st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=4
)
types = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null", "STRING", "any", "file"])
numbers = st.integers(-2, 5) | st.sampled_from([0.5, 2.0, -1.5, True, False, "5"])
names = st.lists(NAMES, max_size=3) | st.booleans()
references = st.sampled_from(
    ["#", "#/$defs/a", "#/definitions/b", "#/properties/größe", "#/properties/a/items/0", "https://e.example/s", ""]
)

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "type": types | st.lists(types, max_size=3),
    "title": NAMES,
    "description": NAMES,
    "format": st.sampled_from(["date", "email", "int32"]),
    "pattern": st.sampled_from(["^a+$", "(?=x)", "["]),
    "enum": st.lists(scalars, max_size=4) | st.lists(anything, max_size=2),
    "const": scalars | anything,
    "default": anything,
    "examples": st.lists(anything, max_size=2),
    "required": names,
    "nullable": st.booleans(),
    "$schema": st.sampled_from(["http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"]),
    "$id": st.sampled_from(["https://e.example/x", "x#y", ""]),
    "id": NAMES,
    "$ref": references,
    "$anchor": st.sampled_from(["a", "1", ""]),
    "x-note": anything,
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "divisibleBy"), numbers
    ),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxContains"), numbers),
    **dict.fromkeys(("uniqueItems", "readOnly", "deprecated"), st.booleans()),
    **dict.fromkeys(("dependencies", "dependentRequired"), st.dictionaries(NAMES, names | NAMES, max_size=2)),
}


def _of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    part = inner | st.booleans() | st.none()
    nested: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(("properties", "$defs", "definitions"), st.dictionaries(NAMES, part, max_size=4)),
        **dict.fromkeys(
            ("patternProperties", "dependentSchemas", "dependencies"), st.dictionaries(NAMES, part, max_size=2)
        ),
        **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), st.lists(part, max_size=3)),
        **dict.fromkeys(
            ("additionalProperties", "additionalItems", "contains", "not", "if", "then", "propertyNames"), part
        ),
        "items": part | st.lists(part, max_size=3),
    }
    known = {**PLAIN, **nested}
    entry = st.sampled_from(sorted(known)).flatmap(
        # mostly what the keyword is for, now and then what it is not
        lambda key: st.tuples(st.just(key), st.one_of(known[key], known[key], known[key], anything))
    )
    return st.lists(entry, max_size=6).map(dict)


schemas: st.SearchStrategy[dict[str, Any]] = st.recursive(st.just({}), _of, max_leaves=12)
"""Objects, whatever they hold."""
object_schemas = st.builds(
    lambda schema, properties: {**schema, "type": "object", "properties": properties},
    schemas,
    st.dictionaries(NAMES, schemas, max_size=4),
)
