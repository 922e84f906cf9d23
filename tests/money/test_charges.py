"""What an answer costs, to the micro-dollar: the examples of Anthropic's pricing worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.money.charges import Charge, Message, charges
from app.money.shipped import PRICES

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
TEXT = [{"type": "text", "text": "Hello"}]
CYBER = {"type": "fallback", "trigger": {"category": "cyber"}}
NO_TRIGGER = {"type": "fallback"}


def usage(I: int = 0, W5: int = 0, W1: int = 0, R: int = 0, O: int = 0, **more: Any) -> dict[str, Any]:  # noqa: E741
    return {
        "input_tokens": I,
        "cache_creation_input_tokens": W5 + W1,
        "cache_read_input_tokens": R,
        "cache_creation": {"ephemeral_5m_input_tokens": W5, "ephemeral_1h_input_tokens": W1},
        "output_tokens": O,
        **more,
    }


def message(model: str, counts: dict[str, Any] | None, **more: Any) -> Message:
    return Message(**{"connection": "conn_1", "model": model, "at": NOW, "usage": counts, "content": TEXT, **more})


def of(*messages: Message) -> tuple[int | None, str]:
    """(micro-dollars, how sure they are) of an answer."""
    return summed(charges(messages, PRICES))


def summed(made: list[Charge]) -> tuple[int | None, str]:
    known = [charge.micros for charge in made if charge.micros is not None]
    states = {charge.state for charge in made}
    worst = next(state for state in ("unknown", "estimated", "exact") if state in states)
    return (sum(known) if len(known) == len(made) else None), worst


@dataclass
class Example:
    name: str
    message: Message
    micros: int | None
    state: str = "exact"


def entry(kind: str, I: int, O: int, model: str | None = None) -> dict[str, Any]:  # noqa: E741
    return {"type": kind, **({"model": model} if model else {}), **usage(I=I, O=O)}


def fell_back(block: dict[str, Any]) -> Message:
    told = [entry("message", 408, 0, "claude-fable-5"), entry("fallback_message", 412, 264, "claude-opus-4-8")]
    return message("claude-opus-4-8", usage(I=412, O=264, iterations=told), content=[block, *TEXT])


def refused(category: str | None) -> Message:
    return message("claude-fable-5", usage(I=106, O=1), content=[], stop_reason="refusal", refusal_category=category)


SEARCHED: Any = {"server_tool_use": {"web_search_requests": 1}}
EXAMPLES = [
    Example("E1", message("claude-sonnet-5-5", usage(I=1200, O=350)), 5_900),
    Example("E2", message("claude-opus-5-5", usage(I=12, W5=8000, O=500)), 50_048),
    Example("E3", message("claude-opus-5-5", usage(I=40, R=8000, O=300)), 7_760),
    Example("E4", message("claude-fable-5-2", usage(I=3, W1=20_000, O=10)), 320_424),
    Example("E5", message("claude-sonnet-4-6", usage(I=10, W5=1000, W1=2000, R=3000, O=100)), 18_180),
    Example("E6", message("claude-haiku-5-5", usage(I=1000, R=99_000, O=1000)), 1_590),
    Example("E7", message("claude-haiku-5-5", usage(I=1001, R=99_000, O=1000)), 7_951),
    Example("E8", message("claude-opus-5-5", usage(I=1000, R=10_000, O=200, speed="fast", inference_geo="us")), 22_000),
    Example("E9", message("claude-sonnet-4-5-20250929", usage(I=16_083, O=165, **SEARCHED)), 60_724),
    Example(
        "E10",
        message(
            "claude-opus-4-6",
            usage(I=682, O=1320, iterations=[entry("compaction", 60_385, 592), entry("message", 682, 1320)]),
        ),
        353_135,
    ),
    Example(
        "E11",
        message(
            "claude-sonnet-5",
            usage(
                I=2482,
                O=166,
                iterations=[
                    entry("message", 1128, 155),
                    entry("advisor_message", 2564, 99, "claude-fable-5"),
                    entry("message", 1354, 11),
                ],
            ),
        ),
        37_214,
    ),
    Example("E12, untold why", fell_back(NO_TRIGGER), 12_740, "estimated"),
    Example("E12, declined for nothing", fell_back(CYBER), 8_660),
    Example("E13, cyber", refused("cyber"), 0),
    Example("E13, no category", refused(None), 0),
    Example("E13, bio", refused("bio"), 1_110),
    Example(
        "E14",
        message("claude-opus-5", usage(I=51, O=1699, output_tokens_details={"thinking_tokens": 139})),
        42_730,
    ),
    Example("E15", message("claude-sonnet-5-5", usage(I=2000), is_cut=True, received=972), 7_600, "estimated"),
    Example("E16, half a micro-dollar", message("claude-haiku-5-5", usage(R=50)), 1),
    Example("E16, less", message("claude-haiku-5-5", usage(R=49)), 0),
    Example("E17", message("claude-opus-9", usage(I=10, O=10)), None, "unknown"),
    Example(
        "E18",
        message(
            "claude-sonnet-4-20250514",
            {
                **usage(I=17, R=64_992, O=606),
                "cache_creation_input_tokens": 11_627,
                "cache_creation": {"ephemeral_5m_input_tokens": 366, "ephemeral_1h_input_tokens": 0},
                "server_tool_use": {"web_search_requests": 2},
            },
        ),
        92_240,
        "estimated",
    ),
    Example(
        "E19, the second before",
        message("claude-sonnet-5-5", usage(R=1_000_000), at=datetime(2026, 10, 6, 23, 59, 59, tzinfo=UTC)),
        200_000,
    ),
    Example(
        "E19, the second of the change",
        message("claude-sonnet-5-5", usage(R=1_000_000), at=datetime(2026, 10, 7, tzinfo=UTC)),
        100_000,
    ),
    Example("E20", message("claude-sonnet-4-6", usage(I=1, R=1, inference_geo="us")), 4),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_costs_what_it_costs(example: Example) -> None:
    assert of(example.message) == (example.micros, example.state)


def test_messages_that_cost_alike_are_one_charge_and_rounded_once() -> None:
    half = message("claude-haiku-5-5", usage(R=50))
    assert [charge.micros for charge in charges([half] * 3, PRICES)] == [2]  # 1.5, not three times 1
    made = charges([half, replace(half, connection="conn_2")], PRICES)
    assert [(charge.connection, charge.micros) for charge in made] == [("conn_1", 1), ("conn_2", 1)]


def test_an_advisor_is_charged_by_its_own_model() -> None:
    advised = next(example for example in EXAMPLES if example.name == "E11").message
    assert {charge.model: charge.micros for charge in charges([advised], PRICES)} == {
        "claude-sonnet-5": 6_624,
        "claude-fable-5": 30_590,
    }


def test_a_discount_or_surcharge_of_a_connection_applies_to_tokens_and_not_to_searches() -> None:
    counts = usage(I=1_000_000, **SEARCHED)
    assert of(message("claude-sonnet-5", counts, factor=9_000)) == (1_800_000 + 10_000, "exact")
    assert of(message("claude-sonnet-5", counts, factor=11_000)) == (2_200_000 + 10_000, "exact")


@pytest.mark.parametrize(
    "counts",
    [
        None,
        [],
        {"input_tokens": -1},
        {"input_tokens": 10**13},
        {"input_tokens": 1.5},
        {"input_tokens": True},
        {"input_tokens": "12"},
        {"input_tokens": 1, "output_tokens_details": 3},
        {"input_tokens": 1, "iterations": [{"type": "message", "input_tokens": -5}]},
        {"input_tokens": 1, "iterations": [None]},
    ],
)
def test_what_is_no_count_is_unknown_and_in_no_sum(counts: Any) -> None:
    known = message("claude-sonnet-5", usage(I=10))
    (charge,) = charges([message("claude-sonnet-5", counts)], PRICES)
    assert (charge.micros, charge.state, charge.tokens.prompt) == (None, "unknown", 0)
    assert of(known, message("claude-sonnet-5", counts)) == (None, "unknown")


def test_a_usage_without_counts_is_one_of_nothing() -> None:
    assert of(message("claude-sonnet-5", {"input_tokens": None})) == (0, "exact")


def test_fast_mode_where_nothing_is_known_of_its_price_is_unknown() -> None:
    assert of(message("claude-sonnet-5", usage(I=1, speed="fast"))) == (None, "unknown")
    assert of(message("claude-opus-5", usage(I=1, speed="standard"))) == (5, "exact")


def test_a_batch_costs_half_and_what_was_paid_in_advance_is_an_estimate() -> None:
    assert of(message("claude-opus-5", usage(I=1000, service_tier="batch"))) == (2_500, "exact")
    assert of(message("claude-opus-5", usage(I=1000, service_tier="priority"))) == (5_000, "estimated")


def test_only_an_hours_cache_was_asked_for() -> None:
    counts = {"cache_creation_input_tokens": 1000}
    assert of(message("claude-opus-5", counts, only_1h=True)) == (10_000, "estimated")
    assert of(message("claude-opus-5", counts)) == (6_250, "estimated")


def test_counts_at_the_top_that_exceed_their_entries_are_taken() -> None:
    counts = usage(I=500, O=20, iterations=[entry("message", 400, 10), entry("compaction", 100, 1)])
    assert of(message("claude-opus-5", counts)) == (2_500 + 500 + 500 + 25, "estimated")


def test_the_cache_saves_what_its_reads_would_have_cost_less_what_writing_cost_more() -> None:
    (charge,) = charges([message("claude-opus-5", usage(W5=1000, R=10_000))], PRICES)
    assert charge.saved_micros == 10_000 * 5 - 5_000 - 1_250


@pytest.mark.parametrize(("received", "thought_s", "output"), [(0, 0, 7), (10, 0, 7), (27, 0, 10), (27, 2.0, 60)])
def test_an_answer_that_was_cut_is_estimated_from_what_came_of_it(received: int, thought_s: float, output: int) -> None:
    cut = message("claude-opus-5", usage(I=1, O=7), is_cut=True, received=received, thought_s=thought_s)
    (charge,) = charges([cut], PRICES)
    assert (charge.tokens.output, charge.state) == (output, "estimated")


COUNTS = st.builds(usage, *[st.integers(0, 10**7)] * 5)
MODELS = st.sampled_from(sorted(PRICES.models))


@given(MODELS, st.lists(COUNTS, min_size=1, max_size=5), st.integers(1, 100_000))
def test_what_is_charged_apart_differs_by_rounding_only(model: str, parts: list[dict[str, Any]], factor: int) -> None:
    messages = [message(model, counts, factor=factor) for counts in parts]
    together, _ = of(*messages)
    apart = [of(one)[0] for one in messages]
    assert isinstance(together, int)
    assert all(isinstance(each, int) for each in apart)
    assert abs(together - sum(each or 0 for each in apart)) <= len(parts) / 2 + 0.5


@given(
    st.sampled_from([m for m in sorted(PRICES.models) if m != "claude-haiku-5-5"]),
    COUNTS,
    st.sampled_from(["input_tokens", "cache_read_input_tokens", "output_tokens"]),
)
def test_more_tokens_never_cost_less(model: str, counts: dict[str, Any], name: str) -> None:
    less, more = of(message(model, counts))[0], of(message(model, {**counts, name: counts[name] + 1000}))[0]
    assert less is not None and more is not None
    assert less <= more
