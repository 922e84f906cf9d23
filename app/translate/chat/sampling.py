"""temperature, top_p and top_k, which newer Claude models refuse.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import UntranslatableRequest
from app.translate.chat.reasoning import Reasoning
from app.translate.exact_json import whole_number
from app.translate.facts import ModelFacts
from app.translate.notes import Notes


def to_sampling(
    request: Mapping[str, Any], facts: ModelFacts, reasoning: Reasoning, notes: Notes
) -> dict[str, float | int]:
    """The parameters to send; when there are any, the request needs `anthropic-version: 2023-06-01`."""
    temperature = request.get("temperature")
    top_p = request.get("top_p")
    top_k = _top_k(request.get("top_k"))
    if not facts.sampling:
        for name, value, default in (("temperature", temperature, 1), ("top_p", top_p, 1), ("top_k", top_k, None)):
            if value is not None and value != default:
                notes.warn("sampling_ignored", name, f"{facts.id} takes no sampling parameters.")
        return {}
    if reasoning.may_think:
        return _with_thinking(temperature, top_p, top_k, notes)
    sampling: dict[str, float | int] = {}
    if temperature is not None and temperature > 1:
        notes.warn("temperature_clamped", "temperature", "Claude's temperature goes up to 1.")
        temperature = 1
    if top_p is not None and top_p != 1 and temperature in (None, 1):
        sampling["top_p"] = top_p
    elif temperature is not None:
        sampling["temperature"] = temperature
        if top_p is not None and top_p != 1:
            notes.warn("top_p_ignored", "top_p", f"{facts.id} takes temperature or top_p, not both.")
    if top_k is not None:
        sampling["top_k"] = top_k
    return sampling


def _with_thinking(temperature: Any, top_p: Any, top_k: int | None, notes: Notes) -> dict[str, float | int]:
    reason = "While it thinks, Claude takes a temperature of 1, a top_p from 0.95 and no top_k."
    if temperature not in (None, 1):
        notes.warn("sampling_ignored", "temperature", reason)
    if top_k is not None:
        notes.warn("sampling_ignored", "top_k", reason)
    if top_p is None or top_p == 1:
        return {}
    if top_p >= 0.95:
        return {"top_p": top_p}
    notes.warn("sampling_ignored", "top_p", reason)
    return {}


def _top_k(value: Any) -> int | None:
    if value is None:
        return None
    number = whole_number(value)
    if number is None:
        raise UntranslatableRequest("top_k must be a whole number.", param="top_k", code="invalid_type")
    return number if number > 0 else None  # 0 and -1 are other servers' way to switch it off
