"""What a 400 of Anthropic's teaches: a few of its texts are stable enough to know better and to ask once more.

A text may quote what the client sent, and what is learned of a model holds for all clients. So texts that teach facts
are matched from their beginning, where only Anthropic's own words stand, and whoever learns keeps a fact only when the
request that it led to was answered.

That a request holds both temperature and top_p is not among them: it never does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.translate.facts import ModelFacts


@dataclass(frozen=True)
class Lesson:
    """`facts` hold for the model from now on, `options` for the repeated request alone."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def lesson_of(text: str, facts: ModelFacts, body: Mapping[str, Any]) -> Lesson | None:
    """`text` is the message of an invalid_request_error that answered `body`. None where it teaches nothing, or what
    was known already."""
    lowered = text[:_LONGEST].lower()
    for pattern, teach in _OF_MODELS:
        match = pattern.match(lowered)
        if match is not None:
            lesson = teach(match, facts, body)
            is_new = lesson is not None and any(getattr(facts, name) != to for name, to in lesson.facts.items())
            return lesson if is_new else None
    for fragment, lesson in _OF_REQUESTS:
        if fragment in lowered:
            return lesson
    return None


Teach = Callable[[re.Match[str], ModelFacts, Mapping[str, Any]], Lesson | None]
_LONGEST = 2000


def _false(name: str) -> Teach:
    return lambda match, facts, body: Lesson(name, {name: False})


def _thinking_refused(match: re.Match[str], facts: ModelFacts, body: Mapping[str, Any]) -> Lesson:
    kind = match[1]
    instead = {"enabled": {"adaptive"}, "adaptive": {"enabled"}}.get(kind, set())
    return Lesson(f"thinking_{kind}", {"thinking": facts.thinking - {kind} | instead})


def _max_tokens(match: re.Match[str], facts: ModelFacts, body: Mapping[str, Any]) -> Lesson | None:
    """Of a number that was really asked for."""
    asked, most = int(match[1]), int(match[2])
    return Lesson("max_tokens", {"max_tokens": most}) if asked == body.get("max_tokens") and 0 < most < asked else None


def _effort(match: re.Match[str], facts: ModelFacts, body: Mapping[str, Any]) -> Lesson:
    """The levels that a refusal lists; else all but the one it names; none where it speaks of effort as such."""
    _, _, listed = match.string.partition("supported levels")
    if listed:
        return Lesson("effort", {"effort": tuple(e for e in facts.effort if re.search(rf"\b{e}\b", listed))})
    return Lesson("effort", {"effort": tuple(e for e in facts.effort if e != match[1]) if match[1] else ()})


_OF_MODELS: tuple[tuple[re.Pattern[str], Teach], ...] = tuple(
    (re.compile(pattern), teach)
    for pattern, teach in (
        (r"this model does not support assistant message prefill", _false("prefill")),
        (r'(?:tool_choice(?:\.type)?: )?type "tool" and "any" are not supported for this model', _false("forced_tool")),
        (r"(?:messages\.\d{1,6}(?:\.role)?: )?role 'system' is not supported on this model", _false("mid_system")),
        (r"(?:temperature|top_p|top_k): extra inputs are not permitted", _false("sampling")),
        (r"`?(?:temperature|top_p|top_k)`? is deprecated for this model", _false("sampling")),
        (
            r'(?:thinking: )?"?thinking\.type\W{1,3}(enabled|disabled|between_tools)"? is not supported',
            _thinking_refused,
        ),
        (r"(?:thinking(?:\.type)?: )?(adaptive) thinking is not supported", _thinking_refused),
        (r"max_tokens: (\d{1,9}) > (\d{1,9}), which is the maximum", _max_tokens),
        (r'output_config\.effort: effort "(low|medium|high|xhigh|max)" is not supported by this model', _effort),
        (r"(?:output_config\.effort: )?this model does not support (?:the )?effort()", _effort),
        (r"output_config\.format: (?:structured outputs? )?(?:is |are )?not supported", _false("structured_outputs")),
    )
)

_NO_REPLAY = Lesson("thinking_refused", options={"replays_thinking": False})
_IN_WORDS = Lesson("schema_too_complex", options={"enforces_schemas": False})
_OF_REQUESTS: tuple[tuple[str, Lesson], ...] = (
    ("invalid `signature` in `", _NO_REPLAY),
    ("invalid `data` in `redacted_thinking`", _NO_REPLAY),
    ("bound to a different conversation", _NO_REPLAY),
    (
        "expected `thinking` or `redacted_thinking`, but found",
        Lesson("open_loop_without_thinking", options={"may_think": False}),
    ),
    ("schema is too complex", _IN_WORDS),
    ("grammar compilation timed out", _IN_WORDS),
)
