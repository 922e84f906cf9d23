"""Folds of days that are over say what the hourly sums say, whoever writes meanwhile."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, text

from app.storage import database, folds, ledger, usage_sums
from app.storage.ledger import HOUR_MS, Entry
from app.storage.usage_sums import Filter
from tests.conftest import AppMaker
from tests.storage.test_ledger import ONE

DAY_MS = 24 * HOUR_MS
TODAY = int(time.time() * 1000) // DAY_MS
FIRST = (TODAY - 20) // 8 * 8
"""Where a block of eight days begins, all of which are over."""


@pytest.fixture
def app(make_storage_app: AppMaker, either_database: dict[str, str]) -> Flask:
    made = make_storage_app(**either_database)
    book(made, *rows())
    return made


def rows() -> list[Entry]:
    return [row(day, n) for day in range(FIRST, FIRST + 10) for n in range(3)]


def row(day: int, n: int, **more: Any) -> Entry:
    at = day * DAY_MS + n * 7 * HOUR_MS
    return replace(ONE, id=f"{ledger.id_at(at)}{n:012x}", at=at, key_id=f"key_{n}", user_ref="ann", **more)


def book(app: Flask, *rows: Entry) -> None:
    database.write(app, lambda session: ledger.insert(session, rows))


def fold_all(app: Flask) -> int:
    made = 0
    while folds.fold_one(app):
        made += 1
    return made


def marks(app: Flask) -> set[tuple[int, int]]:
    query = text("SELECT size, span FROM usage_folded WHERE is_done")
    return {(size, span) for size, span in database.read(app, lambda session: list(session.execute(query)))}


def requests_by(app: Flask, by: str | None = "key", filter: Filter | None = None) -> dict[str, int]:
    """Over all days, two hours cut off at both ends."""
    edges = [FIRST * DAY_MS - 2 * HOUR_MS, (FIRST + 10) * DAY_MS + 2 * HOUR_MS]
    found = usage_sums.sums(app, edges, by, filter or Filter(), most=100 if by else 0)
    return {name: sums["requests"] for (_, name), sums in found.items()}


def used(app: Flask, by: str) -> set[int]:
    """The sizes of the folds that a sum over all days is put together of; 0 for the hourly sums."""
    hours = [(0, FIRST * 24 - 2, FIRST * 24 + 242)]
    found, _ = database.read(app, lambda session: folds.parts(session, hours, frozenset({by})))
    return {fold.size if fold else 0 for fold in found}


def test_days_and_blocks_that_are_over_are_folded_once(app: Flask) -> None:
    assert fold_all(app) >= 11
    assert {(24, day) for day in range(FIRST, FIRST + 10)} < marks(app)
    assert (192, FIRST // 8) in marks(app)
    assert (24, TODAY) not in marks(app)
    assert fold_all(app) == 0
    assert requests_by(app) == {"key_0": 10, "key_1": 10, "key_2": 10}


def test_sums_are_put_together_of_the_largest_spans_that_are_folded(app: Flask) -> None:
    assert used(app, "key") == {0}
    fold_all(app)
    assert used(app, "key") == {192, 24, 0}  # the hours before the first row are of a day that nobody folds
    database.write(app, lambda session: session.execute(text("DELETE FROM usage_folded WHERE size = 192")))
    assert used(app, "key") == {24, 0}


@pytest.mark.parametrize("begins_at", [0, 5, 11, 18, 19, 23])
@pytest.mark.parametrize("by", ["key", "user"])
def test_days_that_begin_when_others_do_are_put_together_of_whole_ones_and_hours_between(
    app: Flask, begins_at: int, by: str
) -> None:
    edges = [(FIRST * 24 - 30 + begins_at + 24 * n) * HOUR_MS for n in range(13)]
    edges[4] += HOUR_MS  # clocks are changed

    def asked() -> dict[tuple[int, str], int]:
        return {key: s["requests"] for key, s in usage_sums.sums(app, edges, by, Filter(), most=100).items()}

    hours = [(n, edges[n] // HOUR_MS, edges[n + 1] // HOUR_MS) for n in range(12)]
    needed = frozenset({by})
    before = asked()
    assert sum(before.values()) == len([r for r in rows() if edges[0] <= r.at < edges[-1]])
    assert database.read(app, lambda session: folds.parts(session, hours, needed)) == ({None: hours}, [])
    fold_all(app)
    made, moves = database.read(app, lambda session: folds.parts(session, hours, needed))
    assert {fold.size for fold in made if fold} == {24}
    assert all(begin // 24 == (end - 1) // 24 and end - begin <= 12 for _, _, begin, end in moves)
    assert moves
    assert asked() == before


@pytest.mark.parametrize(
    ("filter", "by"),
    [
        *((Filter(key="key_1"), by) for by in ("model", "connection", "ending", "user", "tag")),
        *((Filter(user="ann"), by) for by in ("key", "tag")),
        (Filter(key="key_1", model=ONE.model), None),
        (Filter(key="key_1", user="ann"), "key"),
    ],
    ids=str,
)
def test_what_one_key_or_user_used_is_found_among_the_folds_by_an_index(
    app: Flask, filter: Filter, by: str | None
) -> None:
    book(app, replace(row(FIRST, 1), id="req_gw_tagged", tag="nightly"))
    before = requests_by(app, by, filter)
    fold_all(app)
    database.write(app, lambda session: session.execute(text("UPDATE usage_keys SET requests = 0 WHERE hour % 24 > 2")))
    database.write(
        app, lambda session: session.execute(text("UPDATE usage_users SET requests = 0 WHERE hour % 24 > 2"))
    )
    asked: list[tuple[str, Any]] = []
    engine = database.engine_of(app)
    event.listen(engine, "before_cursor_execute", lambda *called: asked.append((called[2], called[3])))
    assert requests_by(app, by, filter) == before
    assert sum(before.values()) >= 10 or by == "tag"
    if engine.dialect.name == "sqlite":  # the other one goes through so few rows one by one
        statement, values = next(each for each in asked if "usage_folds" in each[0])
        with engine.connect() as connection:
            plan = " ".join(str(line) for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
        index = "ix_usage_folds_key_id" if filter.key else "ix_usage_folds_user_ref"
        assert plan.count(f"SEARCH usage_folds USING INDEX {index}") == plan.count("SEARCH usage_folds")


def test_when_too_many_marks_are_gone_nothing_counts_as_folded(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    fold_all(app)
    monkeypatch.setattr(folds, "_MOST_RUNS", 2)
    assert used(app, "key") == {0}
    assert requests_by(app) == {"key_0": 10, "key_1": 10, "key_2": 10}


def test_what_lies_before_all_that_is_folded_is_passed_over_at_once(app: Flask) -> None:
    fold_all(app)
    ages = [(0, -(10**9), 10**9)]
    found, _ = database.read(app, lambda session: folds.parts(session, ages, frozenset({"key"})))
    first = found[None][0]
    assert first[1] == -(10**9)
    assert first[2] <= FIRST * 24
    assert {fold.size for fold in found if fold} == {24, 192}


@pytest.mark.parametrize("by", ["key", "model", "connection", "ending", "user"])
def test_a_row_that_comes_late_counts_at_once(app: Flask, by: str) -> None:
    fold_all(app)
    before = sum(requests_by(app, by).values())
    book(app, replace(row(FIRST + 3, 2), id="req_gw_late"))
    assert sum(requests_by(app, by).values()) == before + 1
    assert (24, FIRST + 3) not in marks(app)
    assert (192, FIRST // 8) not in marks(app)
    assert fold_all(app) == 2
    assert sum(requests_by(app, by).values()) == before + 1


def test_a_row_that_was_charged_anew_has_its_new_cost_at_once(app: Flask) -> None:
    fold_all(app)
    old = row(FIRST + 3, 2)
    database.write(app, lambda session: ledger.replace(session, [(old, replace(old, cost_micros=1_000_000))]))
    edges = [FIRST * DAY_MS, (FIRST + 8) * DAY_MS]
    ((_, sums),) = usage_sums.sums(app, edges, None, Filter()).items()
    assert sums["cost_micros"] == 23 * 5900 + 1_000_000


def test_what_is_written_while_a_day_is_folded_is_not_lost(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    late = iter([replace(row(FIRST + 9, 2), id="req_gw_late")])
    make = folds._make

    def interrupted(session: Any, fold: folds.Fold, begin: int, end: int) -> None:
        make(session, fold, begin, end)
        if begin == (FIRST + 9) * 24 and "key" in fold.names and (some := next(late, None)):
            ledger.insert(session, [some])

    monkeypatch.setattr(folds, "_make", interrupted)
    fold_all(app)
    assert next(late, None) is None
    assert sum(requests_by(app).values()) == 31
    assert (24, FIRST + 9) in marks(app)  # it was folded again


def test_a_row_that_comes_when_a_block_was_found_to_be_ready_is_not_missed(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = iter([replace(row(FIRST + 3, 2), id="req_gw_late")])
    begin = folds._begin

    def after_a_late_row(session: Any, size: int, span: int, token: str, now: int) -> bool:
        if (size, span) == (folds.BLOCK, FIRST // 8) and (some := next(late, None)):
            ledger.insert(session, [some])
        return begin(session, size, span, token, now)

    monkeypatch.setattr(folds, "_begin", after_a_late_row)
    fold_all(app)
    assert next(late, None) is None
    assert used(app, "key") == {192, 24, 0}
    assert sum(requests_by(app).values()) == 31


def test_whoever_was_slow_does_not_say_that_another_has_finished(app: Flask) -> None:
    """A mark may be taken away and be made again by another, while the first still folds."""
    now = int(time.time())
    assert database.write(app, lambda session: folds._begin(session, 24, FIRST + 9, "slow", now))
    book(app, replace(row(FIRST + 9, 2), id="req_gw_late"))
    assert database.write(app, lambda session: folds._begin(session, 24, FIRST + 9, "another", now))
    database.write(app, lambda session: folds._end(session, 24, FIRST + 9, "slow"))
    assert (24, FIRST + 9) not in marks(app)
    database.write(app, lambda session: folds._end(session, 24, FIRST + 9, "another"))
    assert (24, FIRST + 9) in marks(app)


def test_two_do_not_fold_the_same_span(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    begin = folds._begin

    def both(session: Any, size: int, span: int, token: str, now: int) -> bool:
        begun.append((size, span))
        assert begin(session, size, span, token, now)
        return begin(session, size, span, "another", now)

    monkeypatch.setattr(folds, "_begin", both)
    assert folds.fold_one(app)
    assert folds.fold_one(app)
    assert len({*begun}) == 2
    assert marks(app) == set()


def test_what_a_killed_worker_had_begun_is_folded_by_another(app: Flask) -> None:
    def begun(seconds: int) -> Any:
        now = int(time.time()) - seconds
        return lambda session: folds._begin(session, 24, FIRST + 9, "killed", now)

    assert database.write(app, begun(10))
    fold_all(app)
    assert (24, FIRST + 9) not in marks(app)
    assert requests_by(app) == {"key_0": 10, "key_1": 10, "key_2": 10}
    database.write(app, lambda session: session.execute(text("UPDATE usage_folded SET began_at = began_at - 400")))
    fold_all(app)
    assert (24, FIRST + 9) in marks(app)


def test_sums_are_kept_from_the_begin_of_a_block_on(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its fold would say more than what is left of its hours."""
    fold_all(app)
    monkeypatch.setattr(ledger, "SUMS_KEPT_DAYS", TODAY - FIRST - 3)
    ledger.Pruning(app, 0)()
    assert ledger.first_hour_of_sums() == FIRST * 24
    assert requests_by(app) == {"key_0": 10, "key_1": 10, "key_2": 10}
    monkeypatch.setattr(ledger, "SUMS_KEPT_DAYS", TODAY - FIRST - 8)
    ledger.Pruning(app, 0)()
    assert requests_by(app) == {"key_0": 2, "key_1": 2, "key_2": 2}


def test_folds_go_with_the_sums_that_they_were_made_of(app: Flask) -> None:
    fold_all(app)
    database.write(app, lambda session: folds.prune(session, (FIRST + 8) * 24))
    left = text("SELECT count(*) FROM usage_folds WHERE span * size < :hour")
    hour = {"hour": (FIRST + 8) * 24}
    assert database.read(app, lambda session: session.execute(left, hour).scalar()) == 0
    assert {span for size, span in marks(app) if size == 24} >= {FIRST + 8, FIRST + 9}
    assert (192, FIRST // 8) not in marks(app)
