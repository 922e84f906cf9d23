"""Web search: OpenAI's options as the tool that Anthropic runs.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool,
https://platform.openai.com/docs/guides/tools-web-search
"""

from __future__ import annotations

import re
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.facts import ModelFacts

WEB_SEARCH = "web_search"
_TOOL_TYPE = "web_search_20250305"  # searches without code execution, on every model
_OPENAI_TYPES = re.compile(r"web_search(_preview)?(_\d{4}_\d{2}_\d{2})?")
_MOST_USES = {"low": 1, "medium": 3, "high": 8}
_PLACE = ("city", "region", "country", "timezone")


def is_openai_search(kind: Any) -> bool:
    return isinstance(kind, str) and _OPENAI_TYPES.fullmatch(kind) is not None


def to_web_search(options: Any, param: str, facts: ModelFacts) -> dict[str, Any]:
    """The tool for `web_search_options`, or for a tool of the type `web_search`. Raises UntranslatableRequest."""
    if not facts.web_search:
        raise UntranslatableRequest(f"{facts.id} cannot search the web.", param=param, code="unsupported_parameter")
    if not isinstance(options, dict):
        raise UntranslatableRequest(f"{param} must be an object.", param=param, code="invalid_type")
    tool: dict[str, Any] = {"type": _TOOL_TYPE, "name": WEB_SEARCH}
    size = options.get("search_context_size")
    if size is not None:
        if not isinstance(size, str) or size not in _MOST_USES:
            raise UntranslatableRequest(
                f"{param}.search_context_size is {shown(size)}; accepted are {', '.join(_MOST_USES)}.",
                param=f"{param}.search_context_size",
                code="invalid_value",
            )
        tool["max_uses"] = _MOST_USES[size]
    filters = options.get("filters")
    if filters is not None:
        tool.update(_domains(filters, f"{param}.filters"))
    location = options.get("user_location")
    if location is not None:
        tool["user_location"] = _location(location, f"{param}.user_location")
    return tool


def _domains(filters: Any, param: str) -> dict[str, list[str]]:
    known = ("allowed_domains", "blocked_domains")
    given = {name: filters[name] for name in known if filters.get(name)} if isinstance(filters, dict) else None
    if given is None or not all(isinstance(v, list) and all(isinstance(d, str) for d in v) for v in given.values()):
        raise UntranslatableRequest(
            f"{param} must be an object with allowed_domains or blocked_domains, arrays of strings.",
            param=param,
            code="invalid_type",
        )
    if len(given) > 1:
        raise UntranslatableRequest(
            f"{param} may have allowed_domains or blocked_domains, not both.", param=param, code="invalid_value"
        )
    return given


def _location(location: Any, param: str) -> dict[str, Any]:
    """OpenAI puts the place under `approximate` in chat completions, and beside the type in tools."""
    place: Any = location.get("approximate", location) if isinstance(location, dict) else None
    given = {name: place[name] for name in _PLACE if place.get(name)} if isinstance(place, dict) else None
    if given is None or not all(isinstance(value, str) for value in given.values()):
        raise UntranslatableRequest(
            f"{param} must be an object of the type approximate with {', '.join(_PLACE)}, all strings.",
            param=param,
            code="invalid_type",
        )
    return {"type": "approximate", **given}
