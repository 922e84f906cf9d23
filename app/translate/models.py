"""Models in OpenAI's list format, with the fields that other clients look for; and in Anthropic's, for its clients.

https://platform.openai.com/docs/api-reference/models/object, https://docs.anthropic.com/en/api/models-list
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.errors import InvalidRequest, shown

_PAGE, _LARGEST_PAGE = 20, 1000
SUPPORTED_PARAMETERS = (
    "max_completion_tokens",
    "max_tokens",
    "n",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "stop",
    "stream",
    "tool_choice",
    "tools",
    "web_search_options",
)


def to_model_object(info: Mapping[str, Any]) -> dict[str, Any]:
    """`info` is a merged model entry: id, name, created (Unix seconds), max_input_tokens, max_tokens, capabilities,
    lifecycle, retires_at, owned_by and, for an alias, alias_of."""
    name = info.get("name") or info["id"]
    shutdown = info.get("retires_at")
    model: dict[str, Any] = {
        "id": info["id"],
        "object": "model",
        "created": info.get("created") or 0,
        "owned_by": info.get("owned_by") or "anthropic",
        "shutdown_date": shutdown[:10] if isinstance(shutdown, str) else None,
        "name": name,
        "display_name": name,
        "lifecycle": info.get("lifecycle") or "active",
        "capabilities": info.get("capabilities") or {},
        "supported_parameters": [*SUPPORTED_PARAMETERS, *(("temperature", "top_p") if info.get("sampling") else ())],
        "info": {"meta": {"capabilities": {"usage": True}}},
    }
    window, most = info.get("max_input_tokens"), info.get("max_tokens")
    if window:
        model.update(context_length=window, context_window=window, max_model_len=window, tokens_per_message=window)
    if most:
        model.update(max_output_tokens=most, max_tokens=most, tokens_per_request=most)
    if info.get("alias_of"):
        model["alias_of"] = info["alias_of"]
    for name in ("tokens_per_message", "tokens_per_request", "tags"):
        if info.get(name):
            model[name] = info[name]
    return model


def to_anthropic_model(info: Mapping[str, Any]) -> dict[str, Any]:
    """The same entry as Anthropic describes a model."""
    created = datetime.fromtimestamp(info.get("created") or 0, UTC)
    return {
        "type": "model",
        "id": info["id"],
        "display_name": _display_name(info),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": info.get("lifecycle") or "active",
        "retires_at": info.get("retires_at"),
        "max_input_tokens": info.get("max_input_tokens"),
        "max_tokens": info.get("max_tokens"),
        "capabilities": info.get("capabilities"),
    }


def _display_name(info: Mapping[str, Any]) -> str:
    name: str = info.get("name") or info["id"]
    return f"{name} ({info['alias_of_name']})" if info.get("alias_of_name") else name


def to_anthropic_page(models: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Of `models` what `limit`, `after_id` and `before_id` ask for. Raises InvalidRequest."""
    limit = query.get("limit", str(_PAGE))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:10]) <= _LARGEST_PAGE):
        raise InvalidRequest(f"limit: must be a whole number from 1 to {_LARGEST_PAGE}.", param="limit")
    places = {info["id"]: place for place, info in enumerate(models)}
    start, end = 0, min(int(limit), len(models))
    has_more = end < len(models)
    if "after_id" in query:
        start = _place(query, "after_id", places) + 1
        end = min(start + int(limit), len(models))
        has_more = end < len(models)
    elif "before_id" in query:
        end = _place(query, "before_id", places)
        start = max(0, end - int(limit))
        has_more = start > 0
    page = models[start:end]
    return {
        "data": [to_anthropic_model(info) for info in page],
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _place(query: Mapping[str, str], name: str, places: Mapping[str, int]) -> int:
    if query[name] not in places:
        raise InvalidRequest(f"{name}: there is no model {shown(query[name])}.", param=name)
    return places[query[name]]
