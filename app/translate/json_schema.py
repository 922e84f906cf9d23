"""JSON Schemas as clients write them, as draft 2020-12 has them: Claude refuses a request for one that is not.

Older drafts say the same in other words (`exclusiveMinimum: true`, an array of `items`, `required` on a property); what
no draft knows is left out. Names of properties that Claude refuses are altered reversibly.

https://json-schema.org/draft/2020-12/release-notes
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from app.translate import exact_json
from app.translate.pause import Pause, no_pause, paced

Schema = dict[str, Any]
Renamed = dict[str, str]
"""The client's name of a property to the one that Claude knows."""

TYPES = frozenset(["object", "array", "string", "integer", "number", "boolean", "null"])
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_.-]")
_LONGEST_REGEX = 1000
_ANCHOR = re.compile(r"[A-Za-z_][-A-Za-z0-9._]*")


@dataclass(frozen=True)
class Modernised:
    """`schema` is valid by draft 2020-12, whatever it was made of. `renamed` holds the properties that had to be called
    otherwise, `lost` the keywords that nobody could make sense of."""

    schema: Schema
    renamed: Renamed
    lost: tuple[str, ...]


def modernised(schema: Mapping[str, Any], pause: Pause = no_pause) -> Modernised:
    """What has become of a tool's schema. It is shared and not to be changed: clients send the same tools with each
    request, so it is made once for the latest ones."""
    written = exact_json.dumps(schema)
    return _kept(written) if len(written) <= _LONGEST_KEPT else _modernised(schema, pause)


def without_renaming(schema: Mapping[str, Any], pause: Pause = no_pause) -> Modernised:
    """The same for a schema in whose place Claude takes any names."""
    made = _Moderniser(schema, pause, renames=False)
    return Modernised(made.schema, {}, tuple(made.lost))


_LONGEST_KEPT = 4096
_MOST_KEPT = 1000


@lru_cache(_MOST_KEPT)
def _kept(written: bytes) -> Modernised:
    return _modernised(exact_json.loads(written.decode()), no_pause)


def _modernised(schema: Mapping[str, Any], pause: Pause) -> Modernised:
    made = _Moderniser(schema, pause)
    return Modernised(made.schema, made.renamed, tuple(made.lost))


class _Moderniser:
    def __init__(self, schema: Mapping[str, Any], pause: Pause, *, renames: bool = True) -> None:
        self._pause = pause
        self.renamed: Renamed = {}
        self.lost: dict[str, None] = {}
        self._renames = renames
        self._taken: set[str] | None = None
        self._root = schema
        self.schema: Schema = self._node(schema)
        if self.renamed:  # defaults and references may have come before the properties that they speak of
            self.schema = self._node(schema)

    def _schema(self, value: Any) -> Any:
        """A schema in any place; None where it is none."""
        if isinstance(value, dict):
            return self._node(value)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in TYPES:
            return {"type": value.lower()}  # a shorthand of some frameworks
        return None

    def _node(self, node: Mapping[str, Any]) -> Schema:
        self._pause()
        made: Schema = {}
        for key, value in node.items():
            keyword = _KEYWORDS.get(key)
            if keyword is None:
                if key not in _DROPPED:
                    made[key] = value  # a note of somebody's, which any draft allows
            elif value is not None or key in _MAY_BE_NULL:
                kept = keyword(self, value)
                if kept is not None or value is None:
                    made[key] = kept
                elif not (isinstance(value, bool) or (key == "items" and isinstance(value, list))):
                    self.lost[key] = None  # those are older drafts' words
        if not _LEGACY.isdisjoint(node):
            self._bring_up_to_date(made, node)
        if "pattern" in node and "pattern" not in made and isinstance(node["pattern"], str):
            said = (made.get("description"), f"Must match the regular expression {node['pattern']}")
            made["description"] = "\n".join(text for text in said if text)
            self.lost.pop("pattern", None)
        return made

    def _bring_up_to_date(self, made: Schema, node: Mapping[str, Any]) -> None:
        """What older drafts say in other words."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if node.get(exclusive) is True and bound in made:
                made[exclusive] = made.pop(bound)
        items = node.get("items")
        if isinstance(items, list):
            places = self._list(items)
            if places:
                made["prefixItems"] = places
            elif items:
                self.lost["items"] = None
            rest = self._schema(node.get("additionalItems"))
            if rest is not None:
                made["items"] = rest
        step = node.get("divisibleBy")
        if step is not None and _is_number(step) and step > 0:
            made.setdefault("multipleOf", step)
        demanded = [name for name, part in _items(node.get("properties")) if _is_required(part)]
        if demanded:
            made["required"] = list(dict.fromkeys([*made.get("required", ()), *map(self.name, demanded)]))
        for name, needed in _items(node.get("dependencies")):
            if isinstance(needed, str | list):
                names = self._names([needed] if isinstance(needed, str) else needed)
                made.setdefault("dependentRequired", {})[self.name(name)] = names
            elif (part := self._schema(needed)) is not None:
                made.setdefault("dependentSchemas", {})[self.name(name)] = part
            else:
                self.lost["dependencies"] = None

    def name(self, name: str) -> str:
        """What Claude knows a property as."""
        if not self._renames or _NAME.fullmatch(name):
            return name
        known = self.renamed.get(name)
        if known is None:
            if self._taken is None:
                self._taken = set(_property_names(self._root))
            known = known_name(name)
            while known in self._taken:
                known = known_name(f" {known}")
            self._taken.add(known)
            self.renamed[name] = known
        return known

    def _map(self, value: Any) -> Schema | None:
        if not isinstance(value, dict):
            return None
        found: Schema = {}
        for name, part in value.items():
            made = self._schema(part)
            if made is None and isinstance(part, str):
                made = {"description": part}  # a shorthand, too: what it is for
            elif made is None and part is not None:
                self.lost[name] = None
            found[name] = {} if made is None else made
        return found

    def _pattern_properties(self, value: Any) -> Schema | None:
        found = self._map(value)
        return None if found is None or not all(map(_is_regex, found)) else found

    def _property_names(self, value: Any) -> Any:
        made = self._schema(value)
        if isinstance(made, dict) and isinstance(made.get("enum"), list):
            made["enum"] = [self.name(name) if isinstance(name, str) else name for name in made["enum"]]
        return made

    def _properties(self, value: Any) -> Schema | None:
        found = self._map(value)
        return None if found is None else {self.name(name): self._titled(part, name) for name, part in found.items()}

    def _titled(self, part: Any, name: str) -> Any:
        """A name says what a parameter is for, the more so where nothing else does."""
        if name not in self.renamed or not isinstance(part, dict) or "title" in part:
            return part
        return {"title": name, **part}

    def _list(self, value: Any) -> list[Any] | None:
        if not isinstance(value, list):
            return None
        parts = [part for part in map(self._schema, value) if part is not None]
        if parts and len(parts) < len(value):
            self.lost["a part of a list of schemas"] = None
        return parts or None

    def _names(self, value: Any) -> list[str] | None:
        if not isinstance(value, list):
            return None
        names = [name for name in value if isinstance(name, str)]
        self._pause()
        if len(names) < len(value):
            self.lost["a name"] = None
        return list(dict.fromkeys(map(self.name, paced(names, self._pause))))

    def _dependent_names(self, value: Any) -> Schema | None:
        if not isinstance(value, dict):
            return None
        found = {self.name(name): self._names(needed) for name, needed in value.items()}
        return {name: needed for name, needed in found.items() if needed is not None}

    def _dependent_schemas(self, value: Any) -> Schema | None:
        found = self._map(value)
        return None if found is None else {self.name(name): part for name, part in found.items()}

    def _types(self, value: Any) -> str | list[str] | None:
        if isinstance(value, str):
            kind = value.lower()
            return kind if kind in TYPES else None
        listed = value if isinstance(value, list) else []
        known = [kind.lower() for kind in listed if isinstance(kind, str) and kind.lower() in TYPES]
        if known and len(known) < len(listed):
            self.lost["type"] = None
        return list(dict.fromkeys(known)) or None

    def _reference(self, value: Any) -> str | None:
        """A pointer leads through names that may have changed."""
        if not isinstance(value, str) or not value.startswith("#/"):
            return value if isinstance(value, str) else None
        steps = value.split("/")
        for i in range(2, len(steps)):
            if steps[i - 1] == "properties" and self.renamed:
                name = unquote(steps[i]).replace("~1", "/").replace("~0", "~")
                steps[i] = self.renamed.get(name, steps[i])
            elif steps[i - 1] == "items" and steps[i].isdigit():
                steps[i - 1] = "prefixItems"
        return "/".join(steps)

    def _any_value(self, value: Any) -> Any:
        """An example or a default, which speaks of properties by their names."""
        return with_names(value, self.renamed) if self.renamed else value

    def _values(self, value: Any) -> Any:
        return self._any_value(value) if isinstance(value, list) else None

    def _examples(self, value: Any) -> Any:
        return self._any_value(value if isinstance(value, list) else [value])


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_required(part: Any) -> bool:
    return isinstance(part, dict) and part.get("required") is True


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _property_names(schema: Any) -> Iterable[str]:
    """Those of all objects that a schema speaks of, and whatever else stands as a key in it."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def with_names(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value with the keys of its objects, at all depths, renamed."""
    if isinstance(value, dict):
        return {names.get(key, key): with_names(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_names(inner, names) for inner in value]
    return value


def known_name(name: str) -> str:
    """What a property of this name is called where Claude refuses it, but for one that is called so itself."""
    if _NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_NOT_IN_NAME.sub('_', name[:57])}_{digest[:6]}"


def with_known_names(value: Any) -> Any:
    """A JSON value with all names as Claude may know them, whichever of them were altered: for comparing."""
    if isinstance(value, dict):
        return {known_name(key): with_known_names(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_known_names(inner) for inner in value]
    return value


Keyword = Callable[[_Moderniser, Any], Any]


def _of(admits: Callable[[Any], bool]) -> Keyword:
    """A keyword whose value stays as it is."""
    return lambda _, value: value if admits(value) else None


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_regex(value: Any) -> bool:
    """In Python's words, by which Anthropic seems to judge; JavaScript has a few of its own."""
    if not isinstance(value, str) or len(value) > _LONGEST_REGEX:
        return False
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == value // 1


_KEYWORDS: Mapping[str, Keyword] = {
    **dict.fromkeys(("title", "description", "$comment", "format"), _of(_is_string)),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef", "contentEncoding", "contentMediaType"), _of(_is_string)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _of(_is_number)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"), _of(_is_count)),
    **dict.fromkeys(("minProperties", "maxProperties"), _of(_is_count)),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _of(lambda value: isinstance(value, bool))),
    **dict.fromkeys(
        ("$anchor", "$dynamicAnchor", "$recursiveAnchor"),
        _of(lambda value: isinstance(value, str) and _ANCHOR.fullmatch(value) is not None),
    ),
    "$ref": _Moderniser._reference,
    "pattern": _of(_is_regex),
    "multipleOf": _of(lambda value: _is_number(value) and value > 0),
    "enum": _Moderniser._values,
    "examples": _Moderniser._examples,
    "default": _Moderniser._any_value,
    "const": _Moderniser._any_value,
    "type": _Moderniser._types,
    "required": _Moderniser._names,
    "properties": _Moderniser._properties,
    "dependentRequired": _Moderniser._dependent_names,
    "dependentSchemas": _Moderniser._dependent_schemas,
    **dict.fromkeys(("$defs", "definitions"), _Moderniser._map),
    "patternProperties": _Moderniser._pattern_properties,
    "propertyNames": _Moderniser._property_names,
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _Moderniser._list),
    **dict.fromkeys(("items", "contains", "additionalProperties"), _Moderniser._schema),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties", "contentSchema"), _Moderniser._schema),
    **dict.fromkeys(("not", "if", "then", "else"), _Moderniser._schema),
}
_DROPPED = frozenset(("$schema", "$id", "id", "$vocabulary", "additionalItems", "dependencies", "divisibleBy"))
"""What would make it a schema of another draft, or leads nowhere here, or is said in other words."""
_MAY_BE_NULL = frozenset(("default", "const"))
_LEGACY = frozenset(("exclusiveMinimum", "exclusiveMaximum", "items", "divisibleBy", "properties", "dependencies"))
