"""The list of prices: what it must hold, and what an admin may put over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from app.money.prices import BadPrices, to_rows
from app.money.shipped import DATA, PRICES
from app.upstream.names import OVERLAY

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def dollars(model: str, at: datetime = NOW) -> float | None:
    price = PRICES.price(model, at)
    return None if price is None else price.rates.input / 10**6


def test_every_model_that_is_known_has_a_price() -> None:
    assert [model for model in OVERLAY if PRICES.price(model, NOW) is None] == []


def test_prices_are_whole_however_they_are_multiplied() -> None:
    for rows in PRICES.models.values():
        for row in rows:
            for rates in (row.rates, row.fast, row.above and row.above[1]):
                assert rates is None or all(pico % 20 == 0 and type(pico) is int for pico in vars(rates).values())


@pytest.mark.parametrize(
    ("model", "input_price"),
    [
        ("claude-opus-4-5", 5),
        ("claude-opus-4-5-20251101", 5),
        ("claude-sonnet-4-20250514", 3),
        ("claude-opus-4-0", 15),
        ("claude-3-5-haiku-20241022", 0.8),
        ("claude-opus-9", None),
        ("claude-opus-5-5-mini", None),
        ("claude-opus", None),
        ("opus-5", None),
    ],
)
def test_a_price_is_found_by_id_alias_or_dated_id_and_by_nothing_else(model: str, input_price: float | None) -> None:
    assert dollars(model) == input_price


def test_a_row_is_in_force_from_the_very_instant_on() -> None:
    change = datetime(2026, 10, 7, tzinfo=UTC)
    before, after = (PRICES.price("claude-sonnet-5-5", change + timedelta(seconds=s)) for s in (-1, 0))
    assert before and after
    assert (before.rates.read, after.rates.read) == (200_000, 100_000)
    assert PRICES.price("claude-haiku-5-5", change - timedelta(seconds=1)) is None


def test_an_override_wins_from_its_date_on() -> None:
    rows = to_rows(
        {"claude-opus-5": {"from": "2026-11-01", "input": "3", "output": 9}, "my-model": {"input": 1, "output": 2}},
        "o:7",
    )
    prices = PRICES.overridden(rows)
    before, now, own = (
        prices.price("claude-opus-5", NOW - timedelta(days=60)),
        prices.price("claude-opus-5", NOW),
        prices.price("my-model", NOW),
    )
    assert before and now and own
    assert (before.rates.input, before.version) == (5_000_000, f"f:{DATA['as_of']}")
    assert (now.rates.input, now.version) == (3_000_000, "o:7")
    assert vars(own.rates) == {
        "input": 10**6,
        "write_5m": 1_250_000,
        "write_1h": 2 * 10**6,
        "read": 10**5,
        "output": 2 * 10**6,
    }


ROW = {"input": "1", "output": "5"}


@pytest.mark.parametrize(
    ("models", "path"),
    [
        ([], ""),
        ({"m": []}, "m"),
        ({"m": 3}, "m"),
        ({"m": [3]}, "m[0]"),
        ({"m": [{"input": "1"}]}, "m[0].output"),
        ({"m": [{**ROW, "input": "cheap"}]}, "m[0].input"),
        ({"m": [{**ROW, "input": True}]}, "m[0].input"),
        ({"m": [{**ROW, "input": -1}]}, "m[0].input"),
        ({"m": [{**ROW, "input": "NaN"}]}, "m[0].input"),
        ({"m": [{**ROW, "input": "Infinity"}]}, "m[0].input"),
        ({"m": [{**ROW, "input": 10**9}]}, "m[0].input"),
        ({"m": [{**ROW, "input": "0.00001"}]}, "m[0].input"),
        ({"m": [{**ROW, "imput": 1}]}, "m[0].imput"),
        ({"m": [{**ROW, "from": "yesterday"}]}, "m[0].from"),
        ({"m": [{**ROW, "from": "2026-10-07T00:00:00"}]}, "m[0].from"),
        ({"m": [{**ROW, "from": 5}]}, "m[0].from"),
        ({"m": [{**ROW, "from": "2026-10-07"}, ROW]}, "m[1].from"),
        ({"m": [ROW, ROW]}, "m[1].from"),
        ({"m": [{**ROW, "fast": {"input": 1}}]}, "m[0].fast.output"),
        ({"m": [{**ROW, "fast": {**ROW, "prompt": 1}}]}, "m[0].fast.prompt"),
        ({"m": [{**ROW, "above": ROW}]}, "m[0].above.prompt"),
        ({"m": [{**ROW, "above": 5}]}, "m[0].above.prompt"),
    ],
)
def test_a_wrong_price_is_refused_with_the_path_of_the_field(models: Any, path: str) -> None:
    with pytest.raises(BadPrices) as caught:
        to_rows(models, "o:1")
    assert caught.value.path == path


def test_a_price_may_be_a_number_or_its_digits() -> None:
    for written in ("0.1", 0.1, "1e-1"):
        rows = to_rows(orjson.loads(orjson.dumps({"m": {"input": written, "output": 1}})), "o:1")
        assert rows["m"][0].rates.input == 100_000
