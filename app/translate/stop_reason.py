"""How an answer ended, and what that has to tell.

https://docs.anthropic.com/en/api/handling-stop-reasons
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WARNINGS = {"model_context_window_exceeded": "context_window_exceeded", "refusal": "refusal"}
FAILED_SEARCH = "server_tool_failed"
_DECLINED = "The model declined to answer."


def checked_stop_reason(stop_reason: Any) -> str:
    """Raises ValueError for none: what does not say why it ended has not ended."""
    if not isinstance(stop_reason, str) or not stop_reason:
        raise ValueError("an answer without a stop_reason")
    return stop_reason


def late_warnings(stop_reason: str, content: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the end of an answer has to tell that its head could not know."""
    codes = [_WARNINGS[stop_reason]] if stop_reason in _WARNINGS else []
    if any(has_failed_search(block) for block in content):
        codes.append(FAILED_SEARCH)
    return codes


def has_failed_search(block: Mapping[str, Any]) -> bool:
    result = block.get("content")
    is_error = isinstance(result, dict) and str(result.get("type", "")).endswith("_error")
    return is_error and str(block["type"]).endswith("_tool_result")


def refusal_text(stop_details: Mapping[str, Any] | None) -> str:
    explanation = (stop_details or {}).get("explanation")
    return explanation if isinstance(explanation, str) and explanation else _DECLINED
