"""Tools and tool choice."""

import re
from typing import Any

from app.simulator.draft_rules import check_draft
from app.simulator.refusal import Refusal
from app.simulator.rules import (
    Check,
    Context,
    anything,
    array,
    boolean,
    cache_control,
    fail,
    fields,
    list_of,
    matching,
    non_empty,
    obj,
    one_of,
    optional,
    positive,
    string,
)
from app.simulator.schema_rules import check_schema

TOOL_NAME = matching(r"^[a-zA-Z0-9_-]{1,128}$")
NO_TOP_LEVEL = ("anyOf", "oneOf", "allOf", "enum", "not")
MAX_STRICT_TOOLS = 20
CALLERS = one_of("direct", "code_execution_20250825", "code_execution_20260120", "code_execution_20260521")
COMMON: dict[str, Check] = {
    "cache_control": cache_control,
    "strict": optional(boolean),
    "defer_loading": boolean,
    "allowed_callers": list_of(CALLERS),
}
CUSTOM: dict[str, Check] = {
    **COMMON,
    "type": optional(one_of("custom")),
    "description": string,
    "eager_input_streaming": optional(boolean),
    "input_examples": list_of(obj),
}
DOMAINS: dict[str, Check] = {
    "allowed_domains": optional(list_of(non_empty)),
    "blocked_domains": optional(list_of(non_empty)),
    "max_uses": optional(positive),
}
LOCATION: dict[str, Check] = {name: optional(string) for name in ("city", "region", "country", "timezone")}


def _location(value: Any, path: str) -> None:
    fields(value, path, {"type": one_of("approximate")}, LOCATION)


def _screen(*extra: str) -> dict[str, Check]:
    size = {"display_width_px": positive, "display_height_px": positive}
    return {**size, "display_number": optional(anything), **dict.fromkeys(extra, anything)}


HOSTED: tuple[tuple[str, str | None, dict[str, Check]], ...] = (
    (
        r"web_search_\d{8}",
        "web_search",
        {**DOMAINS, "user_location": optional(_location), "response_inclusion": anything},
    ),
    (
        r"web_fetch_\d{8}",
        "web_fetch",
        {**DOMAINS, "citations": optional(obj), "max_content_tokens": optional(positive), "use_cache": anything}
        | {"response_inclusion": anything},
    ),
    (r"code_execution_\d{8}", "code_execution", {}),
    (r"tool_search_tool_bm25(_\d{8})?", "tool_search_tool_bm25", {}),
    (r"tool_search_tool_regex(_\d{8})?", "tool_search_tool_regex", {}),
    (r"bash_\d{8}", "bash", {"input_examples": anything}),
    (r"text_editor_2024\d{4}|text_editor_20250124", "str_replace_editor", {"input_examples": anything}),
    (
        r"text_editor_\d{8}",
        "str_replace_based_edit_tool",
        {"max_characters": optional(positive), "input_examples": anything},
    ),
    (r"memory_\d{8}", "memory", {"input_examples": anything}),
    (r"computer_\d{8}", "computer", _screen("enable_zoom", "input_examples")),
    (
        r"advisor_\d{8}",
        "advisor",
        {"model": string, "max_uses": optional(positive), "max_tokens": optional(positive)} | {"caching": anything},
    ),
    (r"(browser|computer)_toolset_\d{8}", None, {"configs": anything, "default_config": anything, **_screen()}),
    (r"mcp_toolset", None, {"mcp_server_name": non_empty, "configs": anything, "default_config": anything}),
)
"""Tools of Anthropic's own: their type, the name they must have (None: they have none), their options."""
HOSTED_BETAS = (("computer_2", "computer-use-"), ("advisor_", "advisor-tool-"), ("mcp_toolset", "mcp-client-"))

CHOICES: dict[str, dict[str, Check]] = {
    "auto": {"disable_parallel_tool_use": boolean},
    "any": {"disable_parallel_tool_use": boolean},
    "tool": {"disable_parallel_tool_use": boolean, "name": non_empty},
    "none": {},
}


def check_tools(body: dict[str, Any], context: Context) -> None:
    """Raises a Refusal for the first tool, or the tool choice, that is not valid."""
    tools = body.get("tools", [])
    array(tools, "tools")
    names: set[str] = set()
    for place, tool in enumerate(tools):
        obj(tool, f"tools.{place}")
        name = _hosted(tool, place, context) if tool.get("type") not in (None, "custom") else _custom(tool, place)
        if name in names:
            raise Refusal("tools: Tool names must be unique.")
        if name:
            names.add(name)
    if sum(tool.get("strict") is True for tool in tools) > MAX_STRICT_TOOLS:
        fail("tools", f"Too many strict tools: at most {MAX_STRICT_TOOLS} are supported")
    if "tool_choice" in body:
        _choice(body, names, context)


def _custom(tool: dict[str, Any], place: int) -> str:
    path = f"tools.{place}.custom"
    fields(tool, path, {"name": TOOL_NAME, "input_schema": obj}, CUSTOM)
    schema = tool["input_schema"]
    if schema.get("type") != "object":
        fail(f"{path}.input_schema.type", "Input should be 'object'" if "type" in schema else "Field required")
    for key in NO_TOP_LEVEL:
        if key in schema:
            fail(
                f"{path}.input_schema",
                "input_schema does not support oneOf, allOf, anyOf, enum or not at the top level",
            )
    check_draft(schema, f"{path}.input_schema")
    if tool.get("strict") is True:
        check_schema(schema, f"{path}.input_schema")
    return str(tool["name"])


def _hosted(tool: dict[str, Any], place: int, context: Context) -> str | None:
    kind = tool["type"]
    string(kind, f"tools.{place}.type")
    found = next(((name, options) for pattern, name, options in HOSTED if re.fullmatch(pattern, kind)), None)
    if found is None:
        fail(f"tools.{place}", f"Input tag '{kind}' found using 'type' does not match any of the expected tags")
    name, options = found
    for beginning, beta in HOSTED_BETAS:
        if kind.startswith(beginning):
            context.need_beta(beta, f"tools.{place}")
    path = f"tools.{place}.{kind}"
    required: dict[str, Check] = {"type": string, **({"name": one_of(name)} if name else {})}
    fields(tool, path, required, {**COMMON, **options})
    if tool.get("allowed_domains") and tool.get("blocked_domains"):
        fail(path, "Only one of allowed_domains and blocked_domains may be given")
    return name


def _choice(body: dict[str, Any], names: set[str], context: Context) -> None:
    choice = body["tool_choice"]
    obj(choice, "tool_choice")
    kind = choice.get("type")
    if kind not in CHOICES:
        fail("tool_choice", f"Input tag '{kind}' found using 'type' does not match any of the expected tags")
    required: dict[str, Check] = {"type": string, **({"name": non_empty} if kind == "tool" else {})}
    fields(choice, f"tool_choice.{kind}", required, CHOICES[kind])
    if not body.get("tools"):
        fail("tool_choice", "tool_choice may only be specified while providing tools")
    if kind not in ("any", "tool"):
        return
    if kind == "tool" and choice["name"] not in names:
        fail("tool_choice", f"Tool '{choice['name']}' not found in provided tools")
    if not context.model.forced_tool:
        fail("tool_choice", 'type "tool" and "any" are not supported for this model')
    if (body.get("thinking") or {}).get("type") == "enabled":
        raise Refusal("Thinking may not be enabled when tool_choice forces tool use.")
