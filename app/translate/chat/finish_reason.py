"""Why an answer ended, in OpenAI's words.

https://docs.anthropic.com/en/api/handling-stop-reasons
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def finish_reason(stop_reason: str) -> str:
    """`stop` for a reason that is not known."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def choice_extras(
    stop_reason: str, stop_sequence: str | None, stop_details: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Fields beside `finish_reason`: OpenRouter's native_finish_reason, vLLM's stop_reason, a refusal's details."""
    extras: dict[str, Any] = {"native_finish_reason": stop_reason}
    if stop_sequence is not None:
        extras["stop_reason"] = stop_sequence
    if stop_details:
        extras["stop_details"] = dict(stop_details)
    return extras
