"""What a 400 of Anthropic's teaches: a few of its texts are stable enough to know better and to ask once more.

That a request holds both temperature and top_p is not among them: it never does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.translate.facts import ModelFacts


@dataclass(frozen=True)
class Lesson:
    """`facts` hold for the model from now on, `options` for the repeated request alone."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


_THINKING_REFUSED = re.compile(r'thinking\.type\W*"?(disabled|between_tools)\b.*not supported')
_MAXIMUM = re.compile(r"max_tokens: \d+ > (\d+), which is the maximum")
_LEVEL = re.compile(r"\beffort\b\W*(low|medium|high|xhigh|max)\b")
_SAMPLING = re.compile(r"\b(temperature|top_p|top_k)\b.*(deprecated for this model|extra inputs are not permitted)")
_FORMAT_REFUSED = re.compile(
    r"output_config\.format`?:? (is |structured outputs? (is|are) )?not supported|not support `?output_config\.format"
)
_NO_REPLAY = Lesson("thinking_refused", options={"replays_thinking": False})

# (fragments that must all be there, what they teach)
_TEXTS: tuple[tuple[tuple[str, ...], Lesson], ...] = (
    (("does not support assistant message prefill",), Lesson("prefill", {"prefill": False})),
    (('type "tool" and "any" are not supported for this model',), Lesson("forced_tool", {"forced_tool": False})),
    (("role 'system' is not supported on this model",), Lesson("mid_system", {"mid_system": False})),
    (("invalid `signature` in `",), _NO_REPLAY),
    (("invalid `data` in `redacted_thinking`",), _NO_REPLAY),
    (("bound to a different conversation",), _NO_REPLAY),
    (
        ("expected `thinking` or `redacted_thinking`, but found",),
        Lesson("open_loop_without_thinking", options={"may_think": False}),
    ),
    (("schema is too complex",), Lesson("schema_too_complex", options={"enforces_schemas": False})),
    (("grammar compilation timed out",), Lesson("schema_too_complex", options={"enforces_schemas": False})),
)


def lesson_of(text: str, facts: ModelFacts) -> Lesson | None:
    """`text` is the message of an invalid_request_error. None where it teaches nothing, or what was known already."""
    lowered = text.lower()
    lesson = _by_pattern(lowered, facts) or next(
        (lesson for fragments, lesson in _TEXTS if all(fragment in lowered for fragment in fragments)), None
    )
    if lesson is None or (lesson.facts and all(getattr(facts, name) == to for name, to in lesson.facts.items())):
        return None
    return lesson


def _by_pattern(lowered: str, facts: ModelFacts) -> Lesson | None:
    if _SAMPLING.search(lowered):
        return Lesson("sampling", {"sampling": False})
    if '"thinking.type.enabled" is not supported' in lowered:
        return Lesson("thinking_enabled", {"thinking": facts.thinking - {"enabled"} | {"adaptive"}})
    if "adaptive thinking is not supported" in lowered:
        return Lesson("thinking_adaptive", {"thinking": facts.thinking - {"adaptive"} | {"enabled"}})
    refused = _THINKING_REFUSED.search(lowered)
    if refused:
        return Lesson(f"thinking_{refused[1]}", {"thinking": facts.thinking - {refused[1]}})
    maximum = _MAXIMUM.search(lowered)
    if maximum:
        return Lesson("max_tokens", {"max_tokens": int(maximum[1])})
    if _FORMAT_REFUSED.search(lowered):
        return Lesson("structured_outputs", {"structured_outputs": False})
    if "effort" in lowered and "not support" in lowered and "with thinking type" not in lowered:
        return Lesson("effort", {"effort": _levels(lowered, facts)})
    return None


def _levels(lowered: str, facts: ModelFacts) -> tuple[str, ...]:
    """Those that a refusal lists; else all but the one it names; none where it speaks of effort as such."""
    refused, _, listed = lowered.partition("supported levels")
    if listed:
        return tuple(level for level in facts.effort if re.search(rf"\b{level}\b", listed))
    named = _LEVEL.search(refused.partition("output_config.effort")[2] or refused)
    return tuple(level for level in facts.effort if level != named[1]) if named else ()
