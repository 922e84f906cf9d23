"""The books as the usage API tells them: equal to the rows, whatever span, zone, group or filter is asked for."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app.schemas.usage import RequestSchema, SumsSchema
from app.storage import database, folds, ledger
from app.storage.ledger import HOUR_MS, Entry
from app.storage.usage_sums import SUMS
from tests.conftest import ADMIN, CLIENT, AppMaker
from tests.storage.test_ledger import ONE

BEGIN = datetime(2026, 10, 20, 10, 20, tzinfo=UTC)
"""Some days before summer time ends in Europe."""
DAYS = 12


def entries() -> list[Entry]:
    chance = random.Random(5)
    made = []
    for n in range(400):
        at = round((BEGIN + timedelta(seconds=chance.randrange(DAYS * 86_400))).timestamp() * 1000)
        cost = chance.choice((None, chance.randrange(100_000)))
        made.append(
            replace(
                ONE,
                id=f"{ledger.id_at(at)}{n:012x}",
                at=at,
                key_id=chance.choice(("key_1", "key_2", "env_1")),
                model=chance.choice(("claude-opus-5", "claude-haiku-4-5")),
                connection=chance.choice(("conn_1", "conn_2")),
                ending=chance.choice(("complete", "complete", "client_gone")),
                attempts=chance.choice((1, 1, 3)),
                cost_micros=cost,
                saved_micros=None if cost is None else 7,
                cost_state="unknown" if cost is None else chance.choice(("exact", "estimated")),
                input_tokens=chance.randrange(1000),
                output_tokens=chance.randrange(1000),
                user_ref=chance.choice((None, "ann", "=1+1")),
                tag=chance.choice((None, "night")),
                warnings=chance.choice((None, "seed_ignored", "seed_ignored,stop_ignored")),
                parts=chance.choice((None, '{"tries":[]}')),
            )
        )
    return made


ENTRIES = entries()


@pytest.fixture(scope="module", params=["sqlite", "sqlite, folded", "postgresql, folded"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    from app import create_app
    from app.settings import Settings
    from app.storage.migrate import upgrade

    folder = tmp_path_factory.mktemp("usage")
    url = request.getfixturevalue("postgresql").new_database() if "postgresql" in request.param else ""
    settings = Settings(
        instance_path=folder,
        database_url=url,
        secret_key="a secret key of the tests alone",
        admin_api_keys=(ADMIN["authorization"][7:],),
        gateway_api_keys=(CLIENT["authorization"][7:],),
        ledger_retention_days=900,
    )
    app: Flask = create_app(settings)
    upgrade(app)
    database.write(app, lambda session: ledger.insert(session, ENTRIES))
    while "folded" in request.param and folds.fold_one(app):
        pass
    yield app.test_client()
    database.engine_of(app).dispose()


def get(client: FlaskClient, path: str, **query: Any) -> Any:
    answer: Any = client.get(f"/usage/{path}", query_string={k.rstrip("_"): v for k, v in query.items()}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json


def expected(some: list[Entry]) -> dict[str, int]:
    made: dict[str, int] = dict.fromkeys(SUMS, 0)
    for entry in some:
        made["requests"] += 1
        made["unknown"] += entry.cost_micros is None
        made["estimated"] += entry.cost_state == "estimated"
        for name in (*ledger.TOKENS, "cost_micros", "saved_micros"):
            made[name] += getattr(entry, name) or 0
    return made


def within(begin: datetime, end: datetime, **wanted: Any) -> list[Entry]:
    low, high = begin.timestamp() * 1000, end.timestamp() * 1000
    return [e for e in ENTRIES if low <= e.at < high and all(getattr(e, n) == v for n, v in wanted.items())]


SPANS = [
    (BEGIN, BEGIN + timedelta(days=DAYS)),
    (BEGIN + timedelta(minutes=40), BEGIN + timedelta(days=3)),
    (BEGIN + timedelta(hours=5, minutes=3), BEGIN + timedelta(hours=5, minutes=41)),
    (BEGIN + timedelta(hours=5, minutes=45), BEGIN + timedelta(hours=6, minutes=30)),
    (BEGIN + timedelta(days=90), BEGIN + timedelta(days=91)),
]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("wanted", [{}, {"model": "claude-opus-5"}, {"key": "key_2", "ending": "client_gone"}])
def test_totals_are_the_sums_of_the_rows(
    client: FlaskClient, span: tuple[datetime, datetime], wanted: dict[str, str]
) -> None:
    columns: dict[str, Any] = {{"key": "key_id"}.get(name, name): value for name, value in wanted.items()}
    rows = within(*span, **columns)
    query = {"from": span[0].isoformat(), "to": span[1].isoformat(), **wanted}
    assert get(client, "totals", **query)["total"] == expected(rows)
    assert {*expected(rows)} == {*SumsSchema().fields}
    for by, column in (("key", "key_id"), ("model", "model"), ("connection", "connection"), ("ending", "ending")):
        told = get(client, "totals", by=by, **query)
        assert told["total"] == expected(rows)
        groups = {group.pop("name"): group for group in told["data"]}
        assert groups == {
            name: expected([e for e in rows if getattr(e, column) == name])
            for name in {getattr(e, column) for e in rows}
        }


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("interval", ["hour", "day", "week", "month"])
def test_a_series_has_whole_intervals_of_its_zone(client: FlaskClient, zone: str, interval: str) -> None:
    begin, end = SPANS[0]
    told = get(client, "series", from_=begin.isoformat(), to=end.isoformat(), tz=zone, interval=interval)["data"]
    bounds = [(datetime.fromisoformat(b["start"]), datetime.fromisoformat(b["end"])) for b in told]
    assert bounds[0][0] == begin
    assert bounds[-1][1] == end
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    for inner, _ in bounds[1:]:
        local = inner if interval == "hour" else inner.astimezone(ZoneInfo(zone))
        assert (local.minute, local.second) == (0, 0)
        assert interval == "hour" or local.hour == 0
        assert interval != "week" or local.weekday() == 0
        assert interval != "month" or local.day == 1
    for bucket, (start, stop) in zip(told, bounds, strict=True):
        assert {name: bucket[name] for name in SUMS} == expected(within(start, stop))
    if interval == "day" and zone == "Europe/Vienna":
        assert max(stop - start for start, stop in bounds) == timedelta(hours=25)


@pytest.mark.parametrize(("span", "zone"), [(SPANS[0], "UTC"), *((span, "Asia/Kolkata") for span in SPANS)])
@pytest.mark.parametrize("interval", ["hour", "day", "week"])
def test_each_line_of_a_series_is_the_sum_of_its_rows(
    client: FlaskClient, span: tuple[datetime, datetime], interval: str, zone: str
) -> None:
    """Also in a zone whose days begin within hours of UTC; test_folds.py has the others."""
    query = {"from": span[0].isoformat(), "to": span[1].isoformat(), "interval": interval, "tz": zone}
    for by, column in (("key", "key_id"), ("model", "model")):
        told = get(client, "series", by=by, connection="conn_1", **query)["data"]
        for line in told:
            bounds = datetime.fromisoformat(line["start"]), datetime.fromisoformat(line["end"])
            rows = within(*bounds, connection="conn_1", **{column: line["name"]})
            assert {name: line[name] for name in SUMS} == expected(rows)
        assert sum(line["requests"] for line in told) == len(within(*span, connection="conn_1"))


def test_sums_over_all_time_are_found_at_once(client: FlaskClient) -> None:
    told = get(client, "totals", by="key", **{"from": "1971-01-01T00:00:00Z", "to": "9000-01-01T00:00:00Z"})
    assert told["total"] == expected(ENTRIES)


def test_a_series_by_model_adds_up(client: FlaskClient) -> None:
    begin, end = SPANS[1]
    told = get(client, "series", from_=begin.isoformat(), to=end.isoformat(), by="model", interval="day")["data"]
    found: dict[str, int] = defaultdict(int)
    for bucket in told:
        found[bucket["name"]] += bucket["requests"]
    assert found == {m: len(within(begin, end, model=m)) for m in ("claude-opus-5", "claude-haiku-4-5")}


@pytest.mark.parametrize("by", ["user", "tag"])
def test_users_and_tags_have_their_tokens_and_cost(client: FlaskClient, by: str) -> None:
    begin, end = SPANS[0]
    rows = [e for e in within(begin, end) if e.user_ref or e.tag]
    told = get(client, "totals", from_=begin.isoformat(), to=end.isoformat(), by=by)["data"]
    column = {"user": "user_ref", "tag": "tag"}[by]
    for group in told:
        some = [e for e in rows if (getattr(e, column) or "") == group["name"]]
        assert group["requests"] == len(some)
        assert group["cost_micros"] == sum(e.cost_micros or 0 for e in some)
        assert group["output_tokens"] == sum(e.output_tokens for e in some)
        prompt = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens")
        assert group["input_tokens"] == sum(getattr(e, name) for e in some for name in prompt)
        assert group["estimated"] == group["saved_micros"] == group["cache_read_tokens"] == 0
    assert sum(group["requests"] for group in told) == len(rows)


def paged(client: FlaskClient, **query: Any) -> list[str]:
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(client, "requests", limit=37, **query, **cursor)
        ids += [row["id"] for row in page["data"]]
        if page["next"] is None:
            return ids
        cursor = {"before": page["next"]}


@pytest.mark.parametrize(
    ("query", "chosen"),
    [
        ({}, lambda e: True),
        ({"key": "key_1"}, lambda e: e.key_id == "key_1"),
        ({"state": "unknown"}, lambda e: e.cost_state == "unknown"),
        (
            {"min_cost": 50_000, "model": "claude-opus-5"},
            lambda e: (e.cost_micros or 0) >= 50_000 and "opus" in e.model,
        ),
        ({"warning": "stop_ignored"}, lambda e: "stop_ignored" in (e.warnings or "")),
        ({"tries": 2, "user": "ann"}, lambda e: e.attempts > 1 and e.user_ref == "ann"),
        ({"tag": "night", "ending": "client_gone"}, lambda e: e.tag == "night" and e.ending == "client_gone"),
    ],
)
def test_requests_are_told_page_by_page_the_newest_first(
    client: FlaskClient, query: dict[str, Any], chosen: Any
) -> None:
    begin, end = SPANS[0]
    wanted = sorted((e.id for e in within(begin, end) if chosen(e)), reverse=True)
    assert paged(client, **{"from": begin.isoformat(), "to": end.isoformat(), **query}) == wanted


def test_a_rare_filter_looks_at_so_many_and_goes_on_from_there(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.usage._LOOKED_AT", 25)
    begin, end = SPANS[0]
    wanted = sorted((e.id for e in within(begin, end) if e.tag and e.attempts > 1), reverse=True)
    assert paged(client, **{"from": begin.isoformat(), "to": end.isoformat(), "tag": "night", "tries": 2}) == wanted


def test_the_way_back_to_newer_ones(client: FlaskClient) -> None:
    begin, end = SPANS[0]
    span = {"from": begin.isoformat(), "to": end.isoformat()}
    first = get(client, "requests", limit=10, **span)
    second = get(client, "requests", limit=10, before=first["next"], **span)
    back = get(client, "requests", limit=10, after=second["data"][0]["id"], **span)
    assert back["data"] == first["data"]


def test_one_request_has_all_that_is_known(client: FlaskClient) -> None:
    entry = next(e for e in ENTRIES if e.parts and e.warnings)
    told = get(client, f"requests/{entry.id}")
    assert told["parts"] == {"tries": []}
    assert told["warnings"] == entry.warnings.split(",") if entry.warnings else []
    assert told["cost_micros"] == entry.cost_micros
    assert datetime.fromisoformat(told["at"]).timestamp() * 1000 == pytest.approx(entry.at)
    assert {*told} == {*RequestSchema().fields}
    for id in ("req_gw_none", "a%00b"):
        assert client.get(f"/usage/requests/{id}", headers=ADMIN).status_code == 404


def test_the_table_has_all_rows_and_no_formulas(client: FlaskClient) -> None:
    begin, end = SPANS[0]
    answer: Any = client.get(
        "/usage/requests.csv", query_string={"from": begin.isoformat(), "to": end.isoformat()}, headers=ADMIN
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == sorted((e.id for e in within(begin, end)), reverse=True)
    by_id = {entry.id: entry for entry in ENTRIES}
    for row in rows:
        entry = by_id[row["id"]]
        assert row["user_ref"] == {None: "", "ann": "ann", "=1+1": "'=1+1"}[entry.user_ref]
        cost = entry.cost_micros
        assert row["cost_micros"] == ("" if cost is None else str(cost))
        assert row["cost_usd"] == ("" if cost is None else f"{cost / 1e6:.6f}")


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("totals", {"from": "yesterday"}, "from"),
        ("totals", {"to": "2026-11-29T00:00:00"}, "to"),
        ("totals", {"from": "2026-11-29T00:00:00Z", "to": "2026-11-28T00:00:00Z"}, "from"),
        ("totals", {"by": "colour"}, "by"),
        ("totals", {"modle": "x"}, "modle"),
        ("totals", {"tries": "2"}, "tries"),
        ("totals", {"by": "model", "user": "ann"}, "by"),
        ("series", {"by": "tag", "ending": "complete"}, "ending"),
        ("totals", {"model": "a\0b"}, "model"),
        ("series", {"tz": "Mars/Olympus"}, "tz"),
        ("series", {"tz": "../../etc/passwd"}, "tz"),
        ("series", {"tz": ""}, "tz"),
        ("series", {"interval": "minute"}, "interval"),
        ("series", {"interval": "hour", "from": "2020-01-01T00:00:00Z"}, "interval"),
        ("requests", {"limit": "0"}, "limit"),
        ("requests", {"limit": "many"}, "limit"),
        ("requests", {"min_cost": "-1"}, "min_cost"),
        ("requests", {"min_cost": "0" * 20 + "9" * 30}, "min_cost"),
        ("requests", {"tries": "3000000000"}, "tries"),
        ("requests", {"limit": "0" * 19 + "1000000"}, "limit"),
        ("requests", {"before": "a\0b"}, "before"),
        ("totals", {"user": ""}, "user"),
        ("requests", {"state": "sure"}, "state"),
        ("requests", {"before": "req_gw_a", "after": "req_gw_b"}, "after"),
        ("requests", {"warning": "SEED_ignored"}, "warning"),
        ("requests", {"warning": "seed_ignored,stop_ignored"}, "warning"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    client: FlaskClient, path: str, query: dict[str, str], param: str
) -> None:
    answer: Any = client.get(f"/usage/{path}", query_string=query, headers=ADMIN)
    assert answer.status_code == 400
    assert answer.json["error"]["param"] == param


def test_of_hours_whose_rows_are_not_kept_the_sums_stay(make_app: AppMaker) -> None:
    app = make_app(ledger_retention_days=10)
    begun = datetime.now(UTC).replace(minute=10, second=0, microsecond=0) - timedelta(days=30)
    some = [
        replace(ONE, id=f"{ledger.id_at(at)}{n:012x}", at=at)
        for n, at in enumerate(round((begun + timedelta(minutes=20 * n)).timestamp() * 1000) for n in range(300))
    ]
    database.write(app, lambda session: ledger.insert(session, some))
    database.write(app, lambda session: session.execute(text("DELETE FROM requests")).close())
    for zone in ("UTC", "Asia/Kolkata"):
        span = {
            "from": (begun - timedelta(days=2)).isoformat(),
            "to": (begun + timedelta(days=7, minutes=5)).isoformat(),
        }
        told = get(app.test_client(), "series", tz=zone, interval="day", **span)["data"]
        assert sum(bucket["requests"] for bucket in told) == 300
        assert get(app.test_client(), "totals", **span)["total"]["requests"] == 300


def test_where_rows_are_kept_for_longer_than_sums_an_edge_takes_nothing_from_hours_that_are_gone(
    make_app: AppMaker,
) -> None:
    app = make_app(ledger_retention_days=0)
    begun = datetime.now(UTC).replace(minute=10, second=0, microsecond=0) - timedelta(days=900)
    at = round(begun.timestamp() * 1000) + 60_000
    database.write(app, lambda session: ledger.insert(session, [replace(ONE, id=f"{ledger.id_at(at)}0", at=at)]))
    ledger.Pruning(app, 0)()
    for minutes in (0, 5):
        edge = (begun + timedelta(minutes=minutes)).isoformat()
        told = get(app.test_client(), "totals", **{"from": (begun - timedelta(days=1)).isoformat(), "to": edge})
        assert told["total"] == expected([])


def test_an_instant_counts_in_milliseconds_as_the_ids_do(client: FlaskClient) -> None:
    """A part of one beside the half hour at which a day begins put its first rows into the day before."""
    entry = next(e for e in ENTRIES if e.at % HOUR_MS > HOUR_MS // 2)
    at = datetime.fromtimestamp(entry.at / 1000, UTC)
    for micros in (1, 499, 501, 999):
        query = {"from": (at + timedelta(microseconds=micros)).isoformat(), "to": (at + timedelta(hours=2)).isoformat()}
        assert get(client, "totals", **query)["total"] == expected(within(at, at + timedelta(hours=2)))
        query = {"from": (at - timedelta(hours=2)).isoformat(), "to": (at + timedelta(microseconds=micros)).isoformat()}
        assert get(client, "totals", **query)["total"] == expected(within(at - timedelta(hours=2), at))


def test_the_books_are_for_admins(client: FlaskClient) -> None:
    for path in ("totals", "series", "requests", "requests.csv", "requests/x"):
        assert client.get(f"/usage/{path}", headers=CLIENT).status_code in (401, 403)


def test_a_client_key_sees_what_it_has_used(make_app: AppMaker, simulator: str) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "BUDGET_TIMEZONE": "Europe/Vienna",
        }
    )
    client = app.test_client()
    body = {"model": "sim-text", "messages": [{"role": "user", "content": "hi"}]}
    asked: list[Any] = [client.post("/v1/chat/completions", json=body, headers=CLIENT) for _ in range(2)]
    told: Any = client.get("/v1/usage", headers=CLIENT).json
    for span in ("today", "week", "month"):
        assert told[span]["requests"] == 2
        assert told[span]["output_tokens"] == sum(a.json["usage"]["completion_tokens"] for a in asked)
    assert told["tz"] == "Europe/Vienna"
    assert client.get("/v1/usage").status_code == 401


WHOLE = {"from": BEGIN.isoformat(), "to": (BEGIN + timedelta(days=DAYS)).isoformat()}


def largest_key() -> str:
    costs: dict[str, int] = defaultdict(int)
    for entry in ENTRIES:
        costs[entry.key_id] += entry.cost_micros or 0
    return max(costs, key=costs.__getitem__)


def test_of_more_groups_than_are_told_the_rest_stands_together(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.blueprints.usage._MOST_GROUPS", 1)
    key = largest_key()
    first, others = get(client, "totals", by="key", **WHOLE)["data"]
    assert first == {"name": key, **expected([e for e in ENTRIES if e.key_id == key])}
    assert others == {"name": None, **expected([e for e in ENTRIES if e.key_id != key])}


def test_of_more_lines_than_a_series_has_the_rest_is_one(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.blueprints.usage._MOST_SERIES", 1)
    key = largest_key()
    data = get(client, "series", by="key", interval="day", **WHOLE)["data"]
    assert {bucket["name"] for bucket in data} == {key, None}
    for bucket in data:
        day = within(datetime.fromisoformat(bucket.pop("start")), datetime.fromisoformat(bucket.pop("end")))
        name = bucket.pop("name")
        assert bucket == expected([e for e in day if (e.key_id == key) == (name is not None)])


def test_a_series_of_groups_is_not_as_long_as_one_of_sums(client: FlaskClient) -> None:
    end = (BEGIN + timedelta(hours=401)).isoformat()
    query = {"from": BEGIN.isoformat(), "to": end, "interval": "hour"}
    assert len(get(client, "series", **query)["data"]) == 402
    answer: Any = client.get("/usage/series", query_string={**query, "by": "key"}, headers=ADMIN)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "interval")


def test_part_of_an_hour_whose_rows_are_gone_is_nothing(client: FlaskClient) -> None:
    at = datetime(2024, 3, 1, 10, 20, tzinfo=UTC)
    told = get(client, "totals", by="model", **{"from": at.isoformat(), "to": (at + timedelta(minutes=9)).isoformat()})
    assert (told["total"], told["data"]) == (expected([]), [])
