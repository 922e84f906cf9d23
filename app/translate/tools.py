"""Tools, tool choice, and the names and ids of calls.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate import exact_json, json_pieces
from app.translate.caching import mark_last, to_cache_control
from app.translate.facts import ModelFacts
from app.translate.json_depth import is_deeper_than
from app.translate.json_schema import Renamed, modernised, with_names
from app.translate.native import MCP_BETA
from app.translate.notes import Notes
from app.translate.schema import StrictBudget
from app.translate.search import is_openai_search, to_web_search

Tool = dict[str, Any]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EMPTY_OBJECTS = re.compile(r"\A(?:\{\}(?=\{)){0,1000}")
"""Left in histories by gateways that sent an empty object before the real one."""
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_LONGEST_ID = 1000
_MOST_VALUES = 100_000
"""In a call's arguments, which were an answer of Claude's once: that many do not fit into one."""
_MAX_INPUT_DEPTH = 200
UNION_WORDS = ("anyOf", "oneOf", "allOf", "enum", "not")
_NATIVE = re.compile(
    r"(web_search|web_fetch|code_execution|bash|text_editor|memory|computer|advisor|browser_toolset|computer_toolset)"
    r"_\d{8}|tool_search_tool_(bm25|regex)(_\d{8})?|mcp_toolset"
)
_NATIVE_BETAS = (
    (r"computer_20241022", "computer-use-2024-10-22"),
    (r"computer_20250124", "computer-use-2025-01-24"),
    (r"computer_2025112\d|computer_2026", "computer-use-2025-11-24"),
    (r"code_execution_20250522", "code-execution-2025-05-22"),
    (r"advisor_", "advisor-tool-2026-03-01"),
    (r"mcp_toolset", MCP_BETA),
)
_CHOICES = "'none', 'auto', 'required' or an object that names a function"


class ToolNames:
    """Function names as Claude accepts them, and the way back. `reserved` are the names of Anthropic's own tools in the
    request, which no tool of the client's may have."""

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._original: dict[str, str] = {}
        self._parameters: dict[str, Renamed] = {}
        self._reserved = frozenset(reserved)

    def to_upstream(self, name: str) -> str:
        if _NAME.fullmatch(name) and name not in self._reserved:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        mapped = f"{_NOT_IN_NAME.sub('_', name[:57])}_{digest}"
        self._original[mapped] = name
        return mapped

    def rename_parameters(self, tool: str, renamed: Renamed) -> None:
        """`tool` is an upstream name, `renamed` its parameters that are called otherwise there."""
        if renamed:
            self._parameters[tool] = renamed

    def to_upstream_input(self, tool: str, given: dict[str, Any]) -> dict[str, Any]:
        """A call's arguments with the names that the tool of that upstream name has for them."""
        renamed = self._parameters.get(tool)
        return given if renamed is None else with_names(given, renamed)

    @property
    def parameters(self) -> dict[str, dict[str, str]]:
        """By upstream name of the tool, its parameters' upstream names to the client's, of those that were altered."""
        return {tool: {mapped: own for own, mapped in renamed.items()} for tool, renamed in self._parameters.items()}

    def original(self, mapped: str) -> str:
        return self._original.get(mapped, mapped)

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
        is_usable = isinstance(call_id, str) and len(call_id) <= _LONGEST_ID
        wanted = _NOT_IN_NAME.sub("_", call_id) if is_usable else ""
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
    value = _parsed(arguments, param, notes)
    if value is None:
        return {}
    if isinstance(value, dict) and not is_deeper_than(value, _MAX_INPUT_DEPTH):
        return value
    notes.warn("bad_tool_arguments", param, "These tool call arguments are not a JSON object.")
    return {"_raw": arguments if isinstance(arguments, str) else exact_json.dumps(arguments).decode()}


def _parsed(arguments: Any, param: str, notes: Notes) -> Any:
    """What the text says, however often it was encoded; the text itself where it says nothing."""
    value = arguments
    while isinstance(value, str):
        notes.pause()
        text = value.strip()
        if not text:
            return None
        if len(text) > _MOST_VALUES and json_pieces.are_more_than(_MOST_VALUES, _as_bytes(text), notes.pause):
            return arguments
        text = _EMPTY_OBJECTS.sub("", text, count=1)
        try:
            value = _loaded(text, param, notes)
        except ValueError:
            return arguments
    return value


def _loaded(text: str, param: str, notes: Notes) -> Any:
    """Raises ValueError."""
    try:
        return exact_json.loads(text, notes.pause)
    except ValueError:
        notes.pause()
        written = _as_bytes(text)
        whole = exact_json.with_whole_characters(written, notes.pause)
        notes.pause()
        value = exact_json.loads_as_meant(whole.decode())
        notes.pause()
        if whole != written:
            reason = "Half a character stands in these tool call arguments."
            notes.warn("broken_character", param, reason, strict_code="invalid_value")
        return value


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # halves of characters may have come from JSON's escapes


def is_upstream_name(name: str) -> bool:
    """Whether Claude takes the name of a tool as it is."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Tools:
    """`tools` as they go upstream and their `names`; `custom` holds the upstream names of OpenAI's custom tools,
    `hosted` the name of each tool that Anthropic runs by what the client calls its type."""

    tools: list[Tool]
    custom: frozenset[str] = frozenset()
    hosted: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def to_tools(tools: Any, names: ToolNames, facts: ModelFacts, notes: Notes, *, enforces: bool = True) -> Tools:
    """Raises UntranslatableRequest with the path of what is wrong. `enforces`: strict schemas may be sent."""
    translated: list[Tool] = []
    taken: set[str] = set()
    custom: set[str] = set()
    hosted: dict[str, str] = {}
    budget = StrictBudget(enforces and facts.structured_outputs)
    for i, tool in enumerate(_list_of_tools(tools)):
        notes.pause()
        path = f"tools[{i}]"
        if not isinstance(tool, dict):
            raise UntranslatableRequest(f"{path} must be an object.", param=path, code="invalid_type")
        kind = _kind_of(tool, path)
        if kind == "function":
            made = _to_function(tool, path, names, budget, notes)
        elif kind == "custom":
            made = _to_custom(tool, path, names, notes)
            custom.add(made["name"])
        elif is_openai_search(kind):
            made = to_web_search(tool, path, facts)
            hosted[kind] = made["name"]
        elif is_native(kind):
            made = _to_native(tool, path, notes)
            if made.get("name"):
                hosted[kind] = made["name"]
        else:
            raise UntranslatableRequest(
                f"{path}.type is {shown(kind)}; accepted are 'function', 'custom', 'web_search' and Anthropic's own "
                "tools, such as 'web_search_20250305'.",
                param=f"{path}.type",
                code="invalid_type" if not isinstance(kind, str) else "unsupported_value",
            )
        if made.get("name") in taken:
            param = f"{_described(tool, path, kind)[1]}.name" if kind in ("function", "custom") else f"{path}.type"
            raise UntranslatableRequest(
                f"{param}: there are two tools called {shown(names.original(made['name']))}.",
                param=param,
                code="invalid_value",
            )
        if made.get("name"):
            taken.add(made["name"])
        mark_last([made], to_cache_control(tool, path))
        translated.append(made)
    return Tools(translated, frozenset(custom), hosted, frozenset(taken))


def _kind_of(tool: Mapping[str, Any], path: str) -> Any:
    """Anthropic's tools have no type, or the type `custom` and a schema: they are functions."""
    kind = tool.get("type")
    if kind is not None:
        return "function" if kind == "custom" and "input_schema" in tool else kind
    has_schema = "input_schema" in tool or "parameters" in tool
    if "name" in tool and not has_schema and "function" not in tool:
        raise UntranslatableRequest(  # a schema under another name would be lost
            f"{path}.input_schema must be a JSON Schema object.",
            param=f"{path}.input_schema",
            code="missing_required_parameter",
        )
    return "function" if has_schema or "function" in tool else None


def is_native(kind: Any) -> bool:
    return isinstance(kind, str) and _NATIVE.fullmatch(kind) is not None


def _list_of_tools(tools: Any) -> list[Any]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise UntranslatableRequest("tools must be an array.", param="tools", code="invalid_type")
    return tools


def reserved_names(request: Mapping[str, Any]) -> set[str]:
    """The names of Anthropic's own tools that a request brings in."""
    tools = request.get("tools")
    reserved = {"web_search"} if request.get("web_search_options") is not None else set()
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and is_openai_search(tool.get("type")):
            reserved.add("web_search")
        elif isinstance(tool, dict) and is_native(tool.get("type")) and isinstance(tool.get("name"), str):
            reserved.add(tool["name"])
    return reserved


def _described(tool: Mapping[str, Any], path: str, kind: str) -> tuple[Mapping[str, Any], str]:
    """The object that names and describes a function or custom tool, and its path: the tool itself in Anthropic's form
    and in that of OpenAI's Responses API."""
    is_flat = tool.get(kind) is None and ("name" in tool or "input_schema" in tool)
    described, path = (tool, path) if is_flat else (tool.get(kind), f"{path}.{kind}")
    if not isinstance(described, dict):
        raise UntranslatableRequest(f"{path} must be an object.", param=path, code="missing_required_parameter")
    if not isinstance(described.get("name"), str) or not described["name"]:
        raise UntranslatableRequest(
            f"{path}.name must be a non-empty string.", param=f"{path}.name", code="missing_required_parameter"
        )
    if not isinstance(described.get("description"), str | None):
        raise UntranslatableRequest(
            f"{path}.description must be a string.", param=f"{path}.description", code="invalid_type"
        )
    return described, path


def _to_function(tool: Mapping[str, Any], path: str, names: ToolNames, budget: StrictBudget, notes: Notes) -> Tool:
    function, inner = _described(tool, path, "function")
    made: Tool = {"name": names.to_upstream(function["name"])}
    parameters = "input_schema" if "input_schema" in function else "parameters"
    schema, in_words, renamed = _input_schema(function.get(parameters), f"{inner}.{parameters}", notes)
    names.rename_parameters(made["name"], renamed)
    description = "\n".join(text for text in (function.get("description"), in_words) if text)
    if description:
        made["description"] = description
    made["input_schema"] = schema
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        raise UntranslatableRequest(
            f"{inner}.strict must be true or false.", param=f"{inner}.strict", code="invalid_type"
        )
    if strict:
        enforced = budget.fit(schema)
        if enforced is None:
            notes.warn("strict_dropped", f"{inner}.strict", f"Claude cannot enforce this schema ({budget.reason}).")
        else:
            made.update(input_schema=enforced, strict=True)
    _copy_extensions(made, (tool, path), (function, inner))
    if renamed and "input_examples" in made:
        made["input_examples"] = with_names(made["input_examples"], renamed)
    mark_last([made], to_cache_control(function, inner))
    return made


def _to_custom(tool: Mapping[str, Any], path: str, names: ToolNames, notes: Notes) -> Tool:
    """A tool that takes free text: a function with one string."""
    custom, inner = _described(tool, path, "custom")
    lines = [custom["description"]] if custom.get("description") else []
    lines.append("`input` is the raw text for this tool, not JSON.")
    form: Any = custom.get("format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "grammar":
        grammar: Any = form.get("grammar") if isinstance(form.get("grammar"), dict) else form
        notes.warn("grammar_not_enforced", f"{inner}.format", "Claude cannot enforce a grammar; it is told it.")
        lines.append(f"It must follow this {grammar.get('syntax') or ''} grammar:\n{grammar.get('definition') or ''}")
    elif kind != "text":
        raise UntranslatableRequest(
            f"{inner}.format.type is {shown(kind)}; accepted are 'text' and 'grammar'.",
            param=f"{inner}.format.type",
            code="invalid_value",
        )
    made: Tool = {
        "name": names.to_upstream(custom["name"]),
        "description": "\n".join(lines),
        "input_schema": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
    }
    _copy_extensions(made, (tool, path), (custom, inner))
    return made


_EXTENSIONS: Mapping[str, tuple[type, str]] = {
    "defer_loading": (bool, "true or false"),
    "eager_input_streaming": (bool, "true or false"),
    "input_examples": (list, "an array"),
    "allowed_callers": (list, "an array"),
}


def _copy_extensions(made: Tool, *holders: tuple[Mapping[str, Any], str]) -> None:
    for holder, path in holders:
        for name, (kind, said) in _EXTENSIONS.items():
            value = holder.get(name)
            if value is None:
                continue
            if not isinstance(value, kind):
                raise UntranslatableRequest(
                    f"{path}.{name} must be {said}.", param=f"{path}.{name}", code="invalid_type"
                )
            made[name] = value


def _to_native(tool: Mapping[str, Any], path: str, notes: Notes) -> Tool:
    """A tool of Anthropic's own, as the client gives it."""
    kind = tool["type"]
    if not isinstance(tool.get("name"), str | None):
        raise UntranslatableRequest(f"{path}.name must be a string.", param=f"{path}.name", code="invalid_type")
    for pattern, beta in _NATIVE_BETAS:
        if re.match(pattern, kind):
            notes.need_beta(beta)
    made = dict(tool)
    if re.fullmatch(r"web_search_\d{8}", kind) and kind >= "web_search_20260209":
        made.setdefault("allowed_callers", ["direct"])  # else code execution blocks would appear
    for breakpoint in ("cache_control", "prompt_cache_breakpoint"):  # checked and set elsewhere
        made.pop(breakpoint, None)
    return made


def _input_schema(parameters: Any, param: str, notes: Notes) -> tuple[dict[str, Any], str, Renamed]:
    """An object schema of today's draft without a union at its top (the API refuses all others), in words what that
    lost, and the properties that are called otherwise in it."""
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise UntranslatableRequest(f"{param} must be a JSON Schema object.", param=param, code="invalid_type")
    modern = modernised(parameters, notes.pause)
    schema = dict(modern.schema)
    if schema.get("type", "object") != "object" and "object" not in schema["type"]:
        notes.warn("schema_rewritten", param, "A tool's arguments are an object, whatever type its schema has.")
    if modern.lost:
        lost = ", ".join(modern.lost)
        notes.warn("schema_rewritten", param, f"JSON Schema admits no such value of {lost}, which was left out.")
    if modern.renamed:
        altered = ", ".join(map(shown, modern.renamed))
        notes.warn(
            "parameters_renamed",
            param,
            f"Claude refuses these names of parameters, so they are altered on the way: {altered}.",
        )
    unions = [word for word in UNION_WORDS if word in schema]
    in_words = ""
    if unions:
        notes.warn("schema_rewritten", param, "Claude refuses anyOf, oneOf, allOf, enum and not at a schema's top.")
        schema, in_words = _without_top_unions(schema, unions)
    if "properties" not in schema:
        schema["properties"] = {}
    return {"type": "object", **{k: v for k, v in schema.items() if k != "type"}}, in_words, modern.renamed


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
        demanded = [dict.fromkeys(_required(part)) for part in alternatives]
        required.update({name: None for name in (demanded or [{}])[0] if all(name in names for names in demanded)})
    schema["properties"] = properties
    schema["required"] = list(required)
    lost = {word: value for word, value in removed.items() if word != "allOf"}
    if not lost:
        return schema, ""
    return schema, f"The arguments must also satisfy this JSON Schema: {exact_json.dumps(lost).decode()}"


def _object_schemas(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def to_tool_choice(choice: Any, *, parallel: bool, offered: Tools, names: ToolNames) -> tuple[list[Tool], Any]:
    """The tools to send, and Anthropic's `tool_choice` or None where its default says the same."""
    choice, parallel = _in_words(choice, parallel)
    if not offered.tools:
        if choice in (None, "none", "auto"):
            return [], None
        raise UntranslatableRequest(
            "tool_choice asks for a tool, but there are no tools.", param="tool_choice", code="invalid_value"
        )
    tools, translated = _to_choice(choice, offered, names)
    if not parallel and translated["type"] != "none":
        translated["disable_parallel_tool_use"] = True
    return tools, None if translated == {"type": "auto"} else translated


_PLAIN_CHOICES = {None: "auto", "auto": "auto", "none": "none", "required": "any", "any": "any"}


def _in_words(choice: Any, parallel: bool) -> tuple[Any, bool]:
    """Anthropic's `{"type": "auto"}` as OpenAI's "auto", and whether several calls at once are wanted."""
    if not isinstance(choice, dict):
        return choice, parallel
    alone = choice.get("disable_parallel_tool_use")
    if not isinstance(alone, bool | None):
        raise UntranslatableRequest(
            "tool_choice.disable_parallel_tool_use must be true or false.",
            param="tool_choice.disable_parallel_tool_use",
            code="invalid_type",
        )
    kind = choice.get("type")
    return kind if isinstance(kind, str) and kind in _PLAIN_CHOICES else choice, parallel and not alone


def _to_choice(choice: Any, offered: Tools, names: ToolNames) -> tuple[list[Tool], dict[str, Any]]:
    if isinstance(choice, str | None) and choice in _PLAIN_CHOICES:
        return offered.tools, {"type": _PLAIN_CHOICES[choice]}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        return _allowed(choice, offered, names)
    name = _named(choice, offered, names) if isinstance(choice, dict) else None
    if name is None:
        raise UntranslatableRequest(f"tool_choice must be {_CHOICES}.", param="tool_choice", code="invalid_value")
    return offered.tools, {"type": "tool", "name": name}


def _named(choice: Mapping[str, Any], offered: Tools, names: ToolNames) -> str | None:
    """The upstream name of the tool that a choice names. Raises UntranslatableRequest for one that is not there."""
    kind = choice.get("type")
    if isinstance(kind, str) and kind in offered.hosted:
        return offered.hosted[kind]
    if kind not in ("function", "custom", "tool"):
        return None
    named = choice.get(kind, choice)  # Anthropic's choice, and that of OpenAI's Responses API, names the tool itself
    name = named.get("name") if isinstance(named, dict) else None
    if kind == "tool" and name in offered.hosted.values():
        return str(name)
    if not isinstance(name, str) or names.to_upstream(name) not in offered.names:
        raise UntranslatableRequest(
            f"tool_choice names the tool {shown(name)}, which is not in tools.",
            param="tool_choice",
            code="invalid_value",
        )
    return names.to_upstream(name)


def _allowed(choice: Mapping[str, Any], offered: Tools, names: ToolNames) -> tuple[list[Tool], dict[str, Any]]:
    """Claude has no list of allowed tools: the others are left out, which costs the prompt cache."""
    is_flat = "allowed_tools" not in choice and "tools" in choice  # as in OpenAI's Responses API
    allowed, path = (choice, "tool_choice") if is_flat else (choice.get("allowed_tools"), "tool_choice.allowed_tools")
    entries = allowed.get("tools") if isinstance(allowed, dict) else None
    mode = allowed.get("mode", "auto") if isinstance(allowed, dict) else None
    if not isinstance(entries, list) or mode not in ("auto", "required"):
        raise UntranslatableRequest(
            f"{path} must be an object with a mode of auto or required, and tools.", param=path, code="invalid_value"
        )
    wanted = {_named(entry, offered, names) if isinstance(entry, dict) else None for entry in entries}
    if None in wanted:
        raise UntranslatableRequest(
            f"{path}.tools must be objects that name a function.", param=f"{path}.tools", code="invalid_value"
        )
    if not wanted:
        return offered.tools, {"type": "none"}
    return [t for t in offered.tools if t.get("name") in wanted], {"type": "any" if mode == "required" else "auto"}


def tools_table() -> str:
    """The table of tools for docs/compatibility.md."""
    rows = ["| tool | what becomes of it |", "|---|---|"]
    rows += [f"| {kind} | {becomes} |" for kind, becomes in _KINDS]
    return "\n".join(rows)


_KINDS = (
    (
        "`function`",
        "A tool; names that Claude refuses are altered reversibly. `strict` where Claude can enforce the schema, else "
        "told as `strict_dropped`. `cache_control`, `defer_loading`, `eager_input_streaming`, `input_examples` and "
        "`allowed_callers` are copied. Anthropic's form (`name`, `description`, `input_schema`; no type, or `custom`) "
        "and the flat one of OpenAI's Responses API are the same tool.",
    ),
    (
        "`custom`",
        "A tool with one string. Calls come back as custom calls, in streams as functions whose argument is "
        '`{"input": …}` (no client library can add up streamed custom calls). Grammars are told, not enforced '
        "(`grammar_not_enforced`).",
    ),
    ("`web_search`, `web_search_preview`", "Anthropic's `web_search_20250305`, as with `web_search_options`."),
    ("Anthropic's own, as `bash_20250124`", "Passed on, with the beta header that it needs."),
    ("any other", "400 that names it."),
)
