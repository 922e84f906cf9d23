"""How hard Claude thinks: OpenAI's reasoning_effort by what the model can do.

https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.exact_json import whole_number
from app.translate.facts import ModelFacts
from app.translate.notes import Notes

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
_NEXT_LOWER = {"max": "xhigh", "xhigh": "high", "high": "medium", "medium": "low", "minimal": "low"}
_TYPES = ("enabled", "adaptive", "disabled", "between_tools")
_LEAST_BUDGET = 1024
_SMALL_LIMIT = 2048
_TINY_LIMIT = 1024
"""Below it thinking may take all that there is, and the answer is empty."""


@dataclass(frozen=True)
class Reasoning:
    """`thinking` and `output_config.effort` of the request; `asked_for`: the client itself wants it to think;
    `replays`: thinking of earlier answers is of use, since the model may think now."""

    thinking: dict[str, Any] | None
    effort: str | None
    asked_for: bool
    exposed: bool
    replays: bool = True

    @property
    def is_manual(self) -> bool:
        return self.thinking is not None and self.thinking["type"] == "enabled"

    @property
    def may_think(self) -> bool:
        return self.thinking is not None and self.thinking["type"] in ("enabled", "adaptive")


_NOTHING = Reasoning(None, None, asked_for=False, exposed=False, replays=False)


@dataclass(frozen=True)
class _Wish:
    """What the client asked for: a level, or a budget in tokens, or neither; `own` is Anthropic's own form of it."""

    level: str | None = None
    budget: int | None = None
    exposed: bool = True
    own: Mapping[str, Any] | None = None


def to_reasoning(
    request: Mapping[str, Any],
    facts: ModelFacts,
    *,
    expose: bool,
    max_tokens: int,
    limit_is_explicit: bool,
    notes: Notes,
) -> Reasoning:
    wish = _wish(request)
    exposed = expose and wish.exposed
    small = limit_is_explicit and max_tokens < _SMALL_LIMIT
    if wish.level == "none":
        return _switched_off(facts, notes, wish.own)
    if wish == _Wish(exposed=wish.exposed) and limit_is_explicit and max_tokens < _TINY_LIMIT:
        off = _off(facts)
        if off is not None:
            return off
    if wish.own is not None and wish.own["type"] not in facts.thinking:
        notes.warn("thinking_rewritten", "thinking", f"{facts.id} does not take thinking of type {wish.own['type']!r}.")
    elif wish.own is not None and wish.own["type"] == "adaptive":
        return _verbatim(wish, facts, exposed)
    elif wish.own is not None:
        return _manual(wish, facts, exposed, max_tokens, limit_is_explicit, notes)
    if "adaptive" in facts.thinking:
        return _adaptive(wish, facts, exposed, small=small)
    if "enabled" in facts.thinking and (wish.level or wish.budget or wish.own):
        return _manual(wish, facts, exposed, max_tokens, limit_is_explicit, notes)
    return Reasoning(None, None, asked_for=False, exposed=exposed, replays=False)


def _verbatim(wish: _Wish, facts: ModelFacts, exposed: bool) -> Reasoning:
    thinking = dict(wish.own or {})
    thinking.setdefault("display", "summarized" if exposed else "omitted")
    return Reasoning(thinking, nearest(wish.level, facts.effort), asked_for=True, exposed=exposed)


def _wish(request: Mapping[str, Any]) -> _Wish:
    """By precedence: Anthropic's `thinking`, OpenRouter's `reasoning`, OpenAI's `reasoning_effort`."""
    thinking = request.get("thinking")
    if thinking is not None:
        return _wish_of_thinking(thinking, request)
    reasoning = request.get("reasoning")
    if reasoning is not None:
        return _wish_of_reasoning(reasoning)
    level = _level(request.get("reasoning_effort"), "reasoning_effort")
    return _Wish(level or ("none" if _is_switched_off_elsewhere(request) else None))


def _is_switched_off_elsewhere(request: Mapping[str, Any]) -> bool:
    """The words of clients made for Qwen and vLLM."""
    template = request.get("chat_template_kwargs")
    inner = template.get("enable_thinking") if isinstance(template, dict) else None
    return request.get("enable_thinking") is False or inner is False


def _level(value: Any, param: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and value in LEVELS:
        return value
    raise UntranslatableRequest(
        f"{param} is {shown(value)}; accepted are {', '.join(LEVELS)}.", param=param, code="invalid_value"
    )


def _wish_of_thinking(thinking: Any, request: Mapping[str, Any]) -> _Wish:
    if isinstance(thinking, dict) and thinking.get("type") == "auto":
        thinking = {"type": "adaptive"}  # as other vendors call it
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in _TYPES:
        raise UntranslatableRequest(
            f"thinking.type must be one of {', '.join(_TYPES)}.", param="thinking.type", code="invalid_value"
        )
    if kind in ("disabled", "between_tools"):
        return _Wish("none", own=thinking)
    exposed = thinking.get("display") != "omitted"
    level = _level(request.get("reasoning_effort"), "reasoning_effort")
    level = None if level == "none" else level  # Anthropic's own form goes before OpenAI's
    budget = _budget(thinking.get("budget_tokens"), "thinking.budget_tokens")
    if kind == "enabled" and budget is None and level is None:
        level = "high"
    return _Wish(level, budget, exposed, own=thinking)


def _wish_of_reasoning(reasoning: Any) -> _Wish:
    if not isinstance(reasoning, dict):
        raise UntranslatableRequest("reasoning must be an object.", param="reasoning", code="invalid_type")
    exposed = reasoning.get("exclude") is not True
    if reasoning.get("enabled") is False:
        return _Wish("none")
    budget = _budget(reasoning.get("max_tokens"), "reasoning.max_tokens")
    level = _level(reasoning.get("effort"), "reasoning.effort")
    if level is None and budget is None and reasoning.get("enabled") is True:
        level = "medium"
    return _Wish(level, budget, exposed)


def _budget(value: Any, param: str) -> int | None:
    if value is None:
        return None
    budget = whole_number(value)
    if budget is None or budget < 1:
        raise UntranslatableRequest(f"{param} must be a whole number above 0.", param=param, code="invalid_value")
    return budget


def _switched_off(facts: ModelFacts, notes: Notes, own: Mapping[str, Any] | None) -> Reasoning:
    if own is not None and own["type"] in facts.thinking:
        return replace(_NOTHING, thinking=dict(own))
    off = _off(facts)
    if off is not None:
        return off
    notes.warn("reasoning_cannot_be_disabled", "reasoning_effort", f"{facts.id} always thinks.")
    return replace(_NOTHING, effort="low" if "low" in facts.effort else None)


def _off(facts: ModelFacts) -> Reasoning | None:
    """What makes the model not think, None where nothing does."""
    if not facts.thinks_by_default:
        return _NOTHING
    kind = next((kind for kind in ("disabled", "between_tools") if kind in facts.thinking), None)
    return None if kind is None else replace(_NOTHING, thinking={"type": kind})


def _adaptive(wish: _Wish, facts: ModelFacts, exposed: bool, *, small: bool) -> Reasoning:
    display = "summarized" if exposed else "omitted"
    if wish.level is None and wish.budget is None:
        # Thinks by itself or not at all: the client said nothing, so only what is shown is decided here.
        if not facts.thinks_by_default and wish.own is None:
            return Reasoning(None, None, asked_for=False, exposed=exposed, replays=False)
        effort = "low" if small and "low" in facts.effort else None
        return Reasoning({"type": "adaptive", "display": display}, effort, asked_for=False, exposed=exposed)
    level = wish.level or _level_for_budget(wish.budget or 0)
    return Reasoning(
        {"type": "adaptive", "display": display}, nearest(level, facts.effort), asked_for=True, exposed=exposed
    )


def _manual(
    wish: _Wish, facts: ModelFacts, exposed: bool, max_tokens: int, limit_is_explicit: bool, notes: Notes
) -> Reasoning:
    wanted = wish.budget or _BUDGETS[wish.level or "high"]
    if wanted < _LEAST_BUDGET:
        param = "thinking.budget_tokens" if wish.own is not None else "reasoning.max_tokens"
        notes.warn(
            "thinking_budget_raised",
            param,
            f"Claude thinks with a budget of at least {_LEAST_BUDGET} tokens.",
            strict_code="invalid_value",
        )
        wanted = _LEAST_BUDGET
    budget = min(wanted, max_tokens - _LEAST_BUDGET)
    if budget < _LEAST_BUDGET:
        if limit_is_explicit:
            notes.warn(
                "thinking_dropped_small_max_tokens",
                "max_tokens",
                f"max_tokens of {max_tokens} leaves no room for thinking.",
            )
            return Reasoning(None, None, asked_for=False, exposed=exposed, replays=False)
        budget = _LEAST_BUDGET
    own = wish.own if wish.own is not None and wish.own["type"] == "enabled" else {}
    thinking = {"type": "enabled", **own, "budget_tokens": budget}
    effort = nearest(wish.level, facts.effort) if wish.level else None
    return Reasoning(thinking, effort, asked_for=True, exposed=exposed)


def nearest(level: str | None, levels: tuple[str, ...]) -> str | None:
    """`level`, or the next lower one that the model has: never more than was asked for. None: the model has none."""
    while level is not None and level not in levels:
        level = _NEXT_LOWER.get(level)
    return level


def _level_for_budget(budget: int) -> str:
    for most, level in ((2048, "low"), (8192, "medium"), (24576, "high")):
        if budget <= most:
            return level
    return "xhigh"
