"""The books beside Anthropic's count: each difference is named, and what may explain it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.money.charges import Charge
from app.money.reconcile import Booked, Kind, Line, Reported, compare, costs, minutes, twice
from app.money.tokens import Tokens

BEGIN = datetime(2026, 11, 28, tzinfo=UTC)
END = BEGIN + timedelta(days=1)
NOON = BEGIN + timedelta(hours=12)
CHARGE = Charge(
    connection="c", model="m", speed=None, geo="not_available", tier="standard", tokens=Tokens(100, output=20),
    searches=0, messages=1, micros=1000, saved_micros=0, state="exact", price_version="f:1",
)  # fmt: skip
TOKENS = CHARGE.tokens


def row(id: str, at: datetime = NOON, **more: Any) -> Booked:
    return Booked(id, at, replace(CHARGE, **more), (f"msg_{id}",))


def told(requests: int = 1, at: datetime = NOON, tokens: Tokens = TOKENS, **more: Any) -> Reported:
    return Reported(at, Kind("m"), requests, tokens, **more)


def the_line(booked: list[Booked], *reported: Reported) -> Line:
    (line,) = compare(booked, reported, BEGIN, END)
    return line


def test_equal_counts_are_equal() -> None:
    line = the_line([row("a"), row("b")], told(), told())
    assert (line.verdict, list(line.causes)) == ("equal", [])


def test_kinds_are_compared_each_for_itself() -> None:
    lines = compare([row("a"), row("b", speed="fast")], [told(2, tokens=Tokens(200, output=40))], BEGIN, END)
    assert [(str(line.kind), line.verdict) for line in lines] == [("m fast", "differs"), ("m", "differs")]


def test_what_the_books_lack_is_told() -> None:
    line = the_line([row("a")], told(), told())
    assert (line.verdict, line.causes) == ("differs", ["1 that Anthropic counted is not in the books"])


def test_what_anthropic_did_not_count_is_told() -> None:
    line = the_line([row("a"), row("b"), row("c")], told())
    assert (line.verdict, line.causes) == ("differs", ["2 in the books are not among what Anthropic counted"])


def test_tokens_that_differ_for_no_known_reason_differ() -> None:
    assert the_line([row("a")], told(tokens=Tokens(101, output=20))).verdict == "differs"
    assert the_line([row("a")], told(searches=1)).verdict == "differs"


def test_an_estimate_may_be_otherwise_and_is_named() -> None:
    line = the_line([row("a"), row("b", state="estimated")], told(2, tokens=Tokens(200, output=77)))
    assert (line.verdict, line.causes) == ("explained", ["1 are estimates: b"])


def test_an_estimate_explains_no_request_that_is_lacking() -> None:
    assert the_line([row("b", state="estimated")], told(2, tokens=Tokens(200, output=77))).verdict == "differs"


@pytest.mark.parametrize("counted", [1, 2])
def test_a_request_of_which_nothing_was_heard_may_be_counted_or_not(counted: int) -> None:
    unheard = row("b", tokens=Tokens(), micros=None, state="unknown", price_version=None)
    line = the_line([row("a"), unheard], told(counted, tokens=Tokens(counted * 100, output=counted * 20)))
    assert line.verdict == "explained"
    assert "1 ended before anything was heard of what they used: b" in line.causes


def test_one_that_has_no_price_is_no_reason_for_other_tokens() -> None:
    unpriced = row("b", micros=None, state="unknown", price_version=None)
    assert the_line([unpriced], told(tokens=Tokens(1))).verdict == "differs"


@pytest.mark.parametrize("tokens", [Tokens(), Tokens(100, output=20)])
def test_a_free_refusals_tokens_may_be_counted_or_not(tokens: Tokens) -> None:
    free = row("b", micros=0, price_version=None)
    assert the_line([free], told(tokens=tokens)).verdict in ("equal", "explained")
    assert the_line([free], told(tokens=Tokens(50_000))).verdict == "differs"


@pytest.mark.parametrize("at", [BEGIN + timedelta(minutes=9), END - timedelta(minutes=9)])
def test_one_near_an_end_of_the_range_may_be_counted_on_either_side(at: datetime) -> None:
    assert the_line([row("a"), row("b", at)], told()).verdict == "explained"


@pytest.mark.parametrize("at", [BEGIN - timedelta(minutes=9), END + timedelta(minutes=9)])
def test_one_just_beyond_may_be_counted(at: datetime) -> None:
    assert the_line([row("a"), row("b", at)], told(2, tokens=Tokens(200, output=40))).verdict == "explained"
    assert the_line([row("a"), row("b", at)], told()).verdict == "equal"


def test_a_message_that_is_booked_twice_is_named_with_its_rows() -> None:
    assert list(twice([row("a"), replace(row("b"), message_ids=("msg_a",)), row("c")])) == [
        "msg_a is in the books 2 times: a, b"
    ]


def test_the_minute_in_which_the_two_differ_is_named() -> None:
    minute = timedelta(minutes=1)
    booked = [row("a"), row("b", NOON + minute), row("c", NOON + 5 * minute)]
    reported = [told(at=NOON), told(at=NOON + 2 * minute), told(at=NOON + 5 * minute), told(at=NOON + 9 * minute)]
    assert list(minutes(Kind("m"), booked, reported)) == [
        "2026-11-28T12:09Z: 1 requests and 120 tokens at Anthropic, 0 and 0 in the books"
    ]


def test_money_is_compared_by_model_at_list_prices() -> None:
    booked = [row("a", micros=500), row("b", micros=10_900, searches=1)]
    listed = {("m", "tokens"): (Decimal(2800), Decimal(2000)), ("", "web_search"): (Decimal(10_000), Decimal(10_000))}
    tokens, searches = costs(booked, listed, {"c": 5_000})
    assert [*map(int, (tokens.booked, tokens.listed, tokens.charged))] == [2800, 2800, 2000]
    assert int(searches.booked) == 10_000
    assert tokens.is_equal
    assert searches.is_equal


def test_money_that_is_not_known_is_counted() -> None:
    (cost,) = costs([row("a", micros=None)], {("m", "tokens"): (Decimal(9), Decimal(9))}, {})
    assert (cost.unknown, cost.is_equal) == (1, False)
