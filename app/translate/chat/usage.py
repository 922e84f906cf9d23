"""Token counts as OpenAI has them.

Anthropic's input_tokens leaves out what the prompt cache served or stored; OpenAI's prompt_tokens is all of it.
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CACHE_COUNTS = ("cache_creation_input_tokens", "cache_read_input_tokens")
_SERVICE_TIERS = {"standard": "default", "batch": "default", "priority": "priority"}


def to_completion_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    written = usage.get("cache_creation_input_tokens") or 0
    read = usage.get("cache_read_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + written + read
    completion = usage.get("output_tokens") or 0
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    translated: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thinking,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    for name in (*_CACHE_COUNTS, "cache_creation", "server_tool_use"):
        if usage.get(name):
            translated[name] = usage[name]
    return translated


def to_service_tier(usage: Mapping[str, Any]) -> str | None:
    """OpenAI's name of the tier that served the request; None when Anthropic did not say."""
    if usage.get("speed") == "fast":
        return "fast"
    return _SERVICE_TIERS.get(usage.get("service_tier") or "")
