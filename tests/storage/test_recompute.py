"""Charging rows of the books again: sums follow, and what is not known stays so."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from flask import Flask

from app.money.charges import Charge
from app.money.tokens import Tokens
from app.storage import ledger
from app.storage.recompute import Recomputed, recompute
from tests.conftest import AppMaker
from tests.storage.test_ledger import AT, HOURS, KEYS, ONE, book, rows, sums, sums_of_rows

PRICES = {
    "priced": {"input": 1, "output": 5},
    "steps": {"input": 1, "output": 5, "above": {"prompt": 9, "input": 10, "output": 50}},
}
UNPRICED = replace(
    ONE, model="priced", input_tokens=10, cache_read_tokens=0, output_tokens=2, cost_micros=None, saved_micros=None,
    cost_state="unknown", stream=False, ttft_ms=None,
)  # fmt: skip
BEGIN = datetime.fromtimestamp(AT / 1000 - 60, UTC)
END = BEGIN + timedelta(hours=3)


@pytest.fixture
def app(make_storage_app: AppMaker, either_database: dict[str, str]) -> Flask:
    return make_storage_app(**either_database, runtime={"MODEL_PRICES": json.dumps(PRICES)})


def at(minutes: int, **more: Any) -> ledger.Entry:
    moment = AT + minutes * 60_000
    return replace(UNPRICED, id=f"{ledger.id_at(moment)}{minutes:012x}", at=moment, **more)


def again(app: Flask, **more: Any) -> Recomputed:
    return recompute(app, more.pop("begin", BEGIN), more.pop("end", END), who="tests", **more)


def costs(app: Flask) -> list[tuple[Any, ...]]:
    return rows(app, "SELECT cost_micros, cost_state FROM requests ORDER BY id")


def test_a_row_without_a_price_gets_the_one_that_there_is_now(app: Flask) -> None:
    book(app, at(0), at(1, user_ref="ann"), at(2, model="nobody knows it"))
    done = again(app)
    assert (done.rows, done.changed, done.still_unknown) == (3, 2, 1)
    assert (done.before_micros, done.after_micros, done.by_model) == (0, 40, {"priced": 2})
    assert costs(app) == [(20, "exact"), (20, "exact"), (None, "unknown")]
    assert rows(app, "SELECT price_version FROM requests WHERE model = 'priced' LIMIT 1") == [("o:1",)]


def test_the_sums_follow(app: Flask) -> None:
    book(app, at(0, user_ref="ann"), at(1), at(70, key_id="key_2"))
    again(app)
    assert sums(app, "usage_hours", *HOURS) == sums_of_rows(app, *HOURS)
    assert sums(app, "usage_keys", *KEYS) == sums_of_rows(app, *KEYS)
    assert rows(app, "SELECT requests, unknown, cost_micros FROM usage_users") == [(1, 0, 20)]
    assert rows(app, "SELECT sum(n) FROM usage_times") == [(3,)]


def test_a_second_time_changes_nothing(app: Flask) -> None:
    book(app, at(0), at(1))
    assert again(app).changed == 2
    assert again(app).changed == 0
    assert sums(app, "usage_hours", *HOURS) == sums_of_rows(app, *HOURS)
    assert rows(app, "SELECT count(*) FROM audit WHERE action = 'books.recompute'") == [(1,)]


def test_a_dry_run_tells_and_writes_nothing(app: Flask) -> None:
    book(app, at(0))
    assert again(app, is_dry=True).after_micros == 20
    assert costs(app) == [(None, "unknown")]
    assert rows(app, "SELECT count(*) FROM audit") == [(0,)]


def test_only_the_range_and_the_model_that_were_named(app: Flask) -> None:
    book(app, at(0), at(1, model="steps"), at(2), at(3))
    middle = datetime.fromtimestamp((AT + 60_000) / 1000, UTC)
    again(app, begin=middle, end=middle + timedelta(minutes=2), model="priced")
    assert [cost for cost, _ in costs(app)] == [None, None, 20, None]


def test_a_row_of_another_price_is_charged_at_the_one_in_force_and_one_of_an_equal_price_left(app: Flask) -> None:
    wrong = {"cost_micros": 99, "saved_micros": 0, "cost_state": "exact", "price_version": "f:2026-01-01"}
    book(app, at(0, **wrong), at(1, **{**wrong, "cost_micros": 20}))
    done = again(app)
    assert (done.changed, done.before_micros, done.after_micros) == (1, 99, 20)
    assert costs(app) == [(20, "exact"), (20, "exact")]
    assert rows(app, "SELECT price_version FROM requests ORDER BY id") == [("o:1",), ("f:2026-01-01",)]


@pytest.mark.parametrize(
    "row",
    [
        {"input_tokens": 0, "output_tokens": 0},
        {"cost_micros": 0, "saved_micros": 0, "cost_state": "exact", "ending": "refusal"},
        {"cost_micros": 0, "cost_state": "exact", "input_tokens": 0, "output_tokens": 0, "ending": "upstream_error"},
    ],
    ids=["nothing is known", "a free refusal", "an error"],
)
def test_what_has_no_price_for_another_reason_stays_as_it_is(app: Flask, row: dict[str, Any]) -> None:
    book(app, at(0, **row))
    assert again(app).changed == 0


@pytest.mark.parametrize(
    "row", [{"ending": "client_gone"}, {"cost_state": "estimated", "cost_micros": 1, "price_version": "o:9"}]
)
def test_what_was_an_estimate_stays_one(app: Flask, row: dict[str, Any]) -> None:
    book(app, at(0, **row))
    again(app)
    assert costs(app) == [(20, "estimated")]


def part(**more: Any) -> dict[str, Any]:
    tokens = Tokens(input=more.pop("input", 10), output=2)
    told: dict[str, Any] = {"connection": "conn_1", "model": "priced", "speed": None, "geo": None, "tier": None}
    told |= {
        "searches": 0,
        "messages": 1,
        "micros": None,
        "saved_micros": None,
        "state": "unknown",
        "price_version": None,
    }
    return ledger.part_of(Charge(tokens=tokens, **{**told, **more}))


def test_of_a_row_of_several_charges_each_is_charged_anew(app: Flask) -> None:
    known = {"model": "other", "micros": 7, "saved_micros": 1, "state": "exact", "price_version": "f:1"}
    parts = {"tries": [1], "charges": [part(), part(**known)]}
    book(app, at(0, parts=orjson.dumps(parts).decode()))
    again(app)
    assert costs(app) == [(27, "exact")]
    ((told,),) = rows(app, "SELECT parts FROM requests")
    assert orjson.loads(told)["tries"] == [1]
    assert [charge["cost_micros"] for charge in orjson.loads(told)["charges"]] == [20, 7]


def test_of_messages_charged_together_the_length_of_each_prompt_is_lost(app: Flask) -> None:
    parts = {"tries": [], "charges": [part(model="steps", messages=2)]}
    book(app, at(0, model="steps", parts=orjson.dumps(parts).decode()))
    again(app)
    assert costs(app)[0][1] == "estimated"


def test_more_rows_than_go_into_one_transaction(app: Flask) -> None:
    book(app, *(replace(at(0), id=f"{ledger.id_at(AT + n)}{n:012x}", at=AT + n) for n in range(1203)))
    assert again(app).changed == 1203
    assert sums(app, "usage_hours", *HOURS) == sums_of_rows(app, *HOURS)


def test_messages_charged_together_at_an_override_stay_as_they_are(app: Flask) -> None:
    """The number of an override grows with any change of the configuration: whether it costs something else is not
    known, and what each of the messages was is not, either."""
    known: dict[str, Any] = {"model": "steps", "messages": 2, "micros": 33, "saved_micros": 0, "state": "exact"}
    priced = {"cost_micros": 33, "saved_micros": 0, "cost_state": "exact"}
    for minute, version in enumerate(("o:0", "f:2026-01-01")):
        parts = {"tries": [], "charges": [part(**known, price_version=version)]}
        book(app, at(minute, model="steps", parts=orjson.dumps(parts).decode(), **priced))
    assert again(app).changed == 1
    assert [state for _, state in costs(app)] == ["exact", "estimated"]
