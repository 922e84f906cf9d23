"""`dragoman reconcile` against the simulator's reports of what it answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app.errors import ConfigError, UpstreamError
from app.reconcile import Reconciled, reconcile
from app.storage import database
from app.storage.ledger import Entry
from tests.conftest import CLIENT, AppMaker

ADMIN_KEY = "sk-ant-admin01-of-these-tests"
KEY = "sk-ant-api03-of-the-reconciling-tests"
NUMBERS = count()
NOW = datetime.now(UTC).replace(second=0, microsecond=0)
"""Far enough from both ends of the range."""
BEGIN, END = NOW - timedelta(hours=1), NOW + timedelta(hours=2)


@pytest.fixture
def reports_are_complete(simulator: str) -> Iterator[None]:
    def tell(at: datetime | None) -> None:
        told = {"refreshed_at": at and at.isoformat()}
        assert requests.post(f"{simulator}/_sim/reports", json=told, timeout=10).ok

    tell(END)
    yield
    tell(None)


@pytest.fixture
def app(make_app: AppMaker, simulator: str, reports_are_complete: None) -> Flask:
    """With a key of its own: the simulator remembers what it answered other tests."""
    prices = {name: {"input": 1, "output": 5} for name in ("sim-text", "sim-web-search")}
    return make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": f"{KEY}-{next(NUMBERS):04}",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "MODEL_PRICES": json.dumps(prices),
        }
    )


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def ask(client: FlaskClient, model: str = "sim-text", **more: Any) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, **more}
    answer = client.post("/v1/chat/completions", json=body, headers=CLIENT)
    answer.get_data()
    answer.close()


def reconciled(app: Flask, **more: Any) -> Reconciled:
    app.extensions["dragoman"].books.enter()
    return reconcile(app, more.pop("begin", BEGIN), more.pop("end", END), ADMIN_KEY, who="tests", **more)


def change(app: Flask, statement: str) -> None:
    database.write(app, lambda session: session.execute(text(statement)))


def test_books_in_which_all_is_right_are_equal_to_the_reports(app: Flask, client: FlaskClient) -> None:
    for _ in range(3):
        ask(client)
        ask(client, stream=True)
    ask(client, n=2)
    ask(
        client, model="claude-sonnet-5", tools=[{"type": "web_search"}], messages=[{"role": "user", "content": "news?"}]
    )
    done = reconciled(app)
    assert (done.verdict, [line.verdict for line in done.lines]) == ("equal", ["equal", "equal"])
    by_model = {line.kind.model: line for line in done.lines}
    assert by_model["sim-text"].reported.requests == 8
    assert all(cost.is_equal and cost.booked > 0 for cost in done.costs)


def test_a_row_that_was_taken_out_is_missed_in_its_minute(app: Flask, client: FlaskClient) -> None:
    for _ in range(3):
        ask(client)
    app.extensions["dragoman"].books.enter()
    change(app, "DELETE FROM requests WHERE id = (SELECT min(id) FROM requests)")
    done = reconciled(app)
    assert done.verdict == "differs"
    (line,) = done.lines
    assert "1 that Anthropic counted is not in the books" in line.causes
    assert "at Anthropic" in done.minutes[0]
    assert [cost.is_equal for cost in done.costs] == [False]


def test_a_row_that_stands_there_twice_is_named_with_its_double(app: Flask, client: FlaskClient) -> None:
    ask(client)
    app.extensions["dragoman"].books.enter()
    others = ", ".join(field.name for field in fields(Entry) if field.name != "id")
    change(app, f"INSERT INTO requests (id, {others}) SELECT id || 'd', {others} FROM requests")
    done = reconciled(app)
    assert done.verdict == "differs"
    assert "is in the books 2 times: req_gw_" in done.twice[0]
    assert "1 in the books is not among what Anthropic counted" in done.lines[0].causes


def test_a_search_of_an_answer_that_was_lost_is_no_difference(app: Flask, client: FlaskClient) -> None:
    """As of a killed worker: what it had searched for nobody knows."""
    for _ in range(2):
        ask(client, model="sim-web-search", max_tokens=500)
    app.extensions["dragoman"].books.enter()
    assert reconciled(app).verdict == "equal"
    change(app, "UPDATE requests SET searches = 0, cost_micros = cost_micros - 10000, parts = NULL")
    assert [cost.what for cost in reconciled(app).costs if not cost.is_equal] == ["web searches"]
    assert reconciled(app).verdict == "differs"
    change(app, "UPDATE requests SET ending = 'worker_lost', cost_state = 'estimated'")
    assert reconciled(app).verdict == "explained"


def test_an_estimate_is_named_and_is_no_difference(app: Flask, client: FlaskClient) -> None:
    ask(client)
    ask(client, model="sim-cut-6", stream=True)
    done = reconciled(app)
    assert done.verdict == "explained"
    (line,) = [line for line in done.lines if line.kind.model == "sim-cut-6"]
    assert "1 are estimates: req_gw_" in line.causes[0]


def test_what_others_of_the_organization_used_is_left_out(app: Flask, client: FlaskClient, simulator: str) -> None:
    ask(client)
    answer = requests.post(
        f"{simulator}/v1/messages",
        json={"model": "sim-text", "max_tokens": 5, "messages": [{"role": "user", "content": "mine"}]},
        headers={"x-api-key": "sk-ant-api03-of-somebody-else", "anthropic-version": "2023-06-01"},
        timeout=10,
    )
    assert answer.ok
    assert reconciled(app).verdict == "equal"


def test_only_what_the_reports_have_is_compared(app: Flask, client: FlaskClient, simulator: str) -> None:
    ask(client)
    told = {"refreshed_at": (NOW - timedelta(minutes=30, seconds=20)).isoformat()}
    requests.post(f"{simulator}/_sim/reports", json=told, timeout=10)
    done = reconciled(app)
    assert (done.end, done.lines) == (NOW - timedelta(minutes=31), [])
    with pytest.raises(ConfigError, match="not complete yet"):
        reconciled(app, begin=NOW)


def test_more_groups_than_one_page_holds(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.upstream.analytics._MOST_ROWS", 1)
    ask(client)
    ask(client, model="claude-sonnet-5")
    assert [line.verdict for line in reconciled(app).lines] == ["equal", "equal"]


def test_the_result_is_in_the_audit_log(app: Flask, client: FlaskClient) -> None:
    ask(client)
    reconciled(app)
    detail = database.read(
        app, lambda s: s.execute(text("SELECT detail FROM audit WHERE action = 'books.reconcile'")).scalar_one()
    )
    assert json.loads(detail)["verdict"] == "equal"
    assert ADMIN_KEY not in detail


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"connection": "nobody"}, "There is no connection nobody"),
        ({"begin": END, "end": BEGIN}, "--to must be later"),
        ({"end": END + timedelta(seconds=1)}, "whole minutes"),
        ({"begin": NOW - timedelta(days=32)}, "31 days apart"),
    ],
)
def test_what_cannot_be_compared_is_said(app: Flask, client: FlaskClient, more: dict[str, Any], words: str) -> None:
    ask(client)
    with pytest.raises(ConfigError, match=words):
        reconciled(app, **more)


def test_a_key_that_anthropic_does_not_list_is_asked_for(app: Flask) -> None:
    with pytest.raises(ConfigError, match="--api-key-id"):
        reconciled(app)


def test_a_key_that_is_no_admin_key_is_refused_in_anthropics_words(app: Flask) -> None:
    with pytest.raises(UpstreamError, match=r"403: .*Admin API key"):
        reconcile(app, BEGIN, END, "sk-ant-api03-nobody", who="tests")
