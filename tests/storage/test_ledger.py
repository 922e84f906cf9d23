"""The books: rows, and the sums that are kept of them, say the same."""

from __future__ import annotations

import threading
import time
from dataclasses import fields, replace
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.storage import database, ledger
from app.storage.ledger import BOUNDS_MS, TOKENS, Entry
from tests.conftest import AppMaker

AT = 1_795_910_400_123  # an hour's first second, and some
ONE = Entry(
    id="req_gw_1",
    at=AT,
    key_id="key_1",
    route="/v1/chat/completions",
    model_asked="sonnet",
    model="claude-sonnet-5",
    connection="conn_1",
    attempts=1,
    status=200,
    ending="complete",
    stream=True,
    duration_ms=1200,
    cost_state="exact",
    cost_micros=5900,
    saved_micros=40,
    input_tokens=1200,
    cache_read_tokens=30,
    output_tokens=350,
    ttft_ms=49,
)
SUMS = ("requests", "unknown", "estimated", *TOKENS, "cost_micros", "saved_micros")


@pytest.fixture
def app(make_storage_app: AppMaker, either_database: dict[str, str]) -> Flask:
    return make_storage_app(**either_database)


def rows(app: Flask, query: str) -> list[tuple[Any, ...]]:
    return database.read(app, lambda session: [tuple(row) for row in session.execute(text(query))])


def book(app: Flask, *entries: Entry) -> None:
    database.write(app, lambda session: ledger.insert(session, entries))


def sums_of_rows(app: Flask, *by: str) -> list[tuple[Any, ...]]:
    """The sums, worked out from the rows."""
    wanted = {
        "hour": "at / 3600000",
        "requests": "count(*)",
        "unknown": "sum(CASE WHEN cost_micros IS NULL THEN 1 ELSE 0 END)",
        "estimated": "sum(CASE WHEN cost_state = 'estimated' THEN 1 ELSE 0 END)",
        **{name: f"sum({name})" for name in TOKENS},
        "cost_micros": "coalesce(sum(cost_micros), 0)",
        "saved_micros": "coalesce(sum(saved_micros), 0)",
    }
    columns = ", ".join(wanted.get(name, name) for name in (*by, *SUMS))
    groups = ", ".join(wanted.get(name, name) for name in by)
    return rows(app, f"SELECT {columns} FROM requests GROUP BY {groups} ORDER BY {groups}")


def sums(app: Flask, table: str, *by: str) -> list[tuple[Any, ...]]:
    return rows(app, f"SELECT {', '.join((*by, *SUMS))} FROM {table} ORDER BY {', '.join(by)}")


HOURS = ("hour", "model", "connection", "ending")
KEYS = ("hour", "key_id", "model", "connection", "ending")


def test_a_row_is_found_as_it_was_booked(app: Flask) -> None:
    book(app, ONE)
    columns = [field.name for field in fields(Entry)]
    (row,) = rows(app, f"SELECT {', '.join(columns)} FROM requests")
    assert dict(zip(columns, row, strict=True)) == vars(ONE)


def test_a_row_that_is_written_again_counts_once(app: Flask) -> None:
    book(app, ONE, ONE)
    book(app, ONE, replace(ONE, cost_micros=1), replace(ONE, id="req_gw_2", at=AT + 10))
    assert rows(app, "SELECT id, cost_micros FROM requests ORDER BY id") == [("req_gw_1", 5900), ("req_gw_2", 5900)]
    assert rows(app, "SELECT requests, cost_micros, output_tokens FROM usage_hours") == [(2, 11800, 700)]
    assert rows(app, "SELECT sum(n) FROM usage_times WHERE what = 'ttft'") == [(2,)]


def test_an_unknown_cost_is_null_and_counted_apart(app: Flask) -> None:
    book(app, ONE, replace(ONE, id="req_gw_2", cost_micros=None, saved_micros=None, cost_state="unknown"))
    assert rows(app, "SELECT cost_micros FROM requests ORDER BY id") == [(5900,), (None,)]
    assert rows(app, "SELECT requests, unknown, estimated, cost_micros FROM usage_hours") == [(2, 1, 0, 5900)]


def test_whom_a_client_spoke_for_is_summed_where_it_said_so(app: Flask) -> None:
    book(
        app, ONE, *[replace(ONE, id=f"u{n}", user_ref="ann", tag=tag) for n, tag in enumerate(("night", "night", None))]
    )
    assert rows(
        app, "SELECT user_ref, tag, requests, tokens_in, tokens_out, cost_micros FROM usage_users ORDER BY tag"
    ) == [
        ("ann", "", 1, 1230, 350, 5900),
        ("ann", "night", 2, 2460, 700, 11800),
    ]


@pytest.mark.parametrize(("took_ms", "bucket"), [(0, 0), (49, 0), (50, 1), (79, 1), (80, 2), (10**9, 23)])
def test_times_are_counted_in_buckets(app: Flask, took_ms: int, bucket: int) -> None:
    assert len(BOUNDS_MS) == 23
    book(app, replace(ONE, duration_ms=took_ms, ttft_ms=None))
    assert rows(app, "SELECT what, bucket, n FROM usage_times") == [("duration", bucket, 1)]


def test_what_is_older_than_it_is_to_be_kept_is_removed_and_its_sums_stay_longer(app: Flask) -> None:
    now = int(time.time() * 1000)
    day = 86_400_000
    for days in (0, 89, 91, 809):  # sums go by eight days
        book(app, replace(ONE, id=f"{ledger.id_at(now - days * day)}0", at=now - days * day))
    ledger.Pruning(app, 90)()
    assert [age for (at,) in rows(app, "SELECT at FROM requests ORDER BY at DESC") for age in [(now - at) // day]] == [
        0,
        89,
    ]
    assert rows(app, "SELECT sum(requests) FROM usage_hours") == [(3,)]
    ledger.Pruning(app, 0)()
    assert len(rows(app, "SELECT id FROM requests")) == 2


def test_a_row_is_read_by_its_names_whichever_version_wrote_it() -> None:
    told = vars(ONE)
    assert ledger.as_told(told) == ONE
    assert ledger.as_told(dict(reversed(told.items()))) == ONE
    assert ledger.as_told({name: value for name, value in told.items() if value is not None}) == ONE
    for other in (told | {"colour": "red"}, {name: value for name, value in told.items() if name != "key_id"}):
        with pytest.raises(TypeError):
            ledger.as_told(other)


def test_old_rows_go_by_and_by_without_a_pause_until_none_is_left(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_PRUNED_AT_ONCE", 2)
    book(app, *(replace(ONE, id=f"{ledger.id_at(1_000_000)}{n:012x}") for n in range(5)))
    prune = ledger.Pruning(app, 90)
    left = []
    for _ in range(4):
        prune()
        left.append(database.read(app, lambda session: session.execute(text("SELECT count(*) FROM requests")).scalar()))
    assert left == [3, 1, 0, 0]


ENTRIES = st.builds(
    Entry,
    id=st.integers(0, 400).map("req_gw_{}".format),
    at=st.integers(AT, AT + 3 * 3_600_000),
    key_id=st.sampled_from(["key_1", "key_2"]),
    model=st.sampled_from(["m1", "m2"]),
    connection=st.sampled_from(["c1", "c2"]),
    ending=st.sampled_from(["complete", "client_gone"]),
    cost_state=st.sampled_from(["exact", "estimated", "unknown"]),
    cost_micros=st.none() | st.integers(0, 10**9),
    saved_micros=st.none() | st.integers(-(10**6), 10**6),
    **{name: st.integers(0, 10**9) for name in TOKENS},
    **{
        name: st.just(getattr(ONE, name))
        for name in ("route", "model_asked", "attempts", "status", "stream", "duration_ms")
    },
)


@given(st.lists(st.lists(ENTRIES, max_size=150), max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sums_are_those_of_the_rows(app: Flask, batches: list[list[Entry]]) -> None:
    for batch in batches:
        book(app, *batch)
    assert sums(app, "usage_hours", *HOURS) == sums_of_rows(app, *HOURS)
    assert sums(app, "usage_keys", *KEYS) == sums_of_rows(app, *KEYS)


def test_rows_of_many_threads_are_all_booked(app: Flask) -> None:
    """On PostgreSQL at once: they must not wait for each other in a circle."""
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            for n in range(25):
                at = thread * 7 + n
                some = [
                    replace(ONE, id=f"{thread}-{n}-{m}", model=f"m{(at + m) % 5}", ending=f"e{(at + m) % 3}")
                    for m in range(4)
                ]
                book(app, *some)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert errors == []
    assert rows(app, "SELECT count(*), sum(cost_micros) FROM requests") == [(800, 800 * 5900)]
    assert sums(app, "usage_hours", *HOURS) == sums_of_rows(app, *HOURS)
