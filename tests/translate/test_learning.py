"""What refusals teach: a known text changes one fact, or the repeated request; anything else changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.translate.facts import ModelFacts
from app.translate.learning import lesson_of

SENT = {"max_tokens": 200_000}
CAPABLE = ModelFacts(
    "claude-able",
    thinking=frozenset({"adaptive", "enabled", "disabled", "between_tools"}),
    sampling=True,
    prefill=True,
    forced_tool=True,
    mid_system=True,
)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            {"prefill": False},
        ),
        ('tool_choice: type "tool" and "any" are not supported for this model', {"forced_tool": False}),
        ("messages.2.role: role 'system' is not supported on this model", {"mid_system": False}),
        ("`temperature` is deprecated for this model.", {"sampling": False}),
        ("top_k: Extra inputs are not permitted", {"sampling": False}),
        (
            'thinking.type: "disabled" is not supported for this model',
            {"thinking": CAPABLE.thinking - {"disabled"}},
        ),
        (
            'thinking.type: "between_tools" is not supported for this model',
            {"thinking": CAPABLE.thinking - {"between_tools"}},
        ),
        (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".',
            {"thinking": CAPABLE.thinking - {"enabled"}},
        ),
        ("adaptive thinking is not supported on this model", {"thinking": CAPABLE.thinking - {"adaptive"}}),
        (
            'output_config.effort: effort "max" is not supported by this model. Supported levels: low, medium, high',
            {"effort": ("low", "medium", "high")},
        ),
        (
            'output_config.effort: effort "max" is not supported by this model',
            {"effort": ("low", "medium", "high", "xhigh")},
        ),
        ("output_config.effort: This model does not support the effort parameter", {"effort": ()}),
        (
            "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens for claude-able",
            {"max_tokens": 64_000},
        ),
        ("output_config.format: not supported by this model", {"structured_outputs": False}),
    ],
)
def test_a_refusal_of_a_parameter_teaches_what_the_model_can(text: str, facts: dict[str, Any]) -> None:
    lesson = lesson_of(text, CAPABLE, SENT)
    assert lesson is not None
    assert (dict(lesson.facts), dict(lesson.options)) == (facts, {})
    assert lesson_of(text, replace(CAPABLE, **facts), SENT) is None  # nothing new: asking again would change nothing


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("messages.1.content.0: Invalid `signature` in `thinking` block", {"replays_thinking": False}),
        ("messages.1.content.0: Invalid `data` in `redacted_thinking` block", {"replays_thinking": False}),
        ("messages.3.content.0: `thinking` block is bound to a different conversation", {"replays_thinking": False}),
        (
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When …",
            {"may_think": False},
        ),
        ("output_config.format.schema: Schema is too complex: 30 optional parameters", {"enforces_schemas": False}),
    ],
)
def test_a_refusal_of_this_very_request_changes_the_repeated_one_alone(text: str, options: dict[str, Any]) -> None:
    lesson = lesson_of(text, CAPABLE, SENT)
    assert lesson is not None
    assert (dict(lesson.facts), dict(lesson.options)) == ({}, options)


@pytest.mark.parametrize(
    "text",
    [
        "messages.0.content.0.text: text content blocks must be non-empty",
        "prompt is too long: 1234567 tokens > 1000000 maximum",
        "output_config.format: assistant message prefill is not supported with structured outputs",
        "output_config.format: citations are incompatible with structured outputs",
        "output_config.format.schema: For 'string' type, properties minLength are not supported",
        'output_config.effort: "max" is not supported with thinking type "disabled": use at most "high"',
        "Your credit balance is too low to access the Anthropic API.",
        "",
        # What clients can make Anthropic quote teaches nothing about a model.
        "output_config.max_tokens: 2 > 1, which is the maximum: Extra inputs are not permitted",
        "messages.0.content.0.image.source: Input tag 'max_tokens: 2 > 1, which is the maximum' found using 'type'",
        "output_config.temperature: Extra inputs are not permitted",
        "output_config.effort not support: Extra inputs are not permitted",
        "tools.0.custom.name: 'does not support assistant message prefill' should match pattern",
        "output_config.format.schema.properties.output_config.format: not supported",
        "max_tokens: 2 > 1, which is the maximum allowed number of output tokens",
    ],
)
def test_any_other_refusal_teaches_nothing(text: str) -> None:
    assert lesson_of(text, CAPABLE, SENT) is None
