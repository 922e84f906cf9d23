"""Answers that are remembered: found again by whoever they were given to, by nobody else, and not for ever."""

import logging
import sqlite3
import time
import tracemalloc

import pytest
from sqlalchemy import text

from app.errors import DatabaseUnavailable
from app.storage import database, remembered
from app.storage.remembered import Scope, sweep
from app.translate.chat import memory

MINE = Scope("conn_1", "key_1", "claude-opus-5-5")
THOUGHT = b'[{"type":"thinking","thinking":"a secret thought"}]'


@pytest.fixture
def answers(app):
    return app.extensions["dragoman"].answers


@pytest.fixture
def elsewhere(make):
    """Another worker, which has looked nothing up yet."""
    return lambda: make().extensions["dragoman"].answers


def rows(app):
    return database.read(app, lambda s: list(s.execute(text("SELECT name, blocks, size FROM remembered_answers"))))


def test_an_answer_is_found_again_by_every_worker(answers, elsewhere):
    answers.remember(MINE, [("call toolu_1", THOUGHT)])
    for knowing in (answers, elsewhere()):
        assert knowing.recall([MINE], ["call toolu_1", "call toolu_2"]) == {MINE: {"call toolu_1": THOUGHT}}


@pytest.mark.parametrize(
    "other",
    [
        Scope("conn_2", "key_1", "claude-opus-5-5"),
        Scope("conn_1", "key_2", "claude-opus-5-5"),
        Scope("conn_1", "key_1", "claude-sonnet-5-5"),
        Scope("conn_1key_1", "", "claude-opus-5-5"),
    ],
)
def test_nobody_else_finds_it(answers, elsewhere, other):
    answers.remember(MINE, [("call toolu_1", THOUGHT)])
    for worker in (answers, elsewhere()):
        assert worker.recall([other, MINE], ["call toolu_1"]) == {other: {}, MINE: {"call toolu_1": THOUGHT}}


def test_the_database_shows_neither_names_nor_thoughts(answers, app):
    answers.remember(MINE, [("call toolu_1", THOUGHT)])
    assert not any(word in str(rows(app)) for word in ("toolu_1", "secret thought", "key_1", "conn_1", "opus"))


def test_a_newer_answer_of_the_same_name_takes_the_place_of_the_older(answers, app, elsewhere):
    answers.remember(MINE, [("text x", b"[1]")])
    answers.remember(MINE, [("text x", b"[2]")])
    for worker in (answers, elsewhere()):
        assert worker.recall([MINE], ["text x"])[MINE] == {"text x": b"[2]"}
    assert len(rows(app)) == 1


def test_an_answer_is_forgotten_after_a_day(answers, app, elsewhere, monkeypatch):
    answers.remember(MINE, [("text x", b"[1]")])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + remembered.KEPT_S + 1)
    assert elsewhere().recall([MINE], ["text x"]) == {MINE: {}}
    database.write(app, lambda session: sweep(session, int(time.time())))
    assert rows(app) == []


@pytest.mark.parametrize(("limit", "most", "left"), [("MOST_ROWS", 3, 3), ("MOST_BYTES", 400, 3), ("MOST_ROWS", 0, 0)])
def test_the_oldest_go_when_there_are_too_many(answers, app, elsewhere, monkeypatch, limit, most, left):
    for n in range(6):
        answers.remember(MINE, [(f"text {n}", b"[1]")])
    size = rows(app)[0].size
    monkeypatch.setattr(remembered, limit, most if limit == "MOST_ROWS" else size * 3)
    database.write(app, lambda session: sweep(session, 0))
    assert sorted(elsewhere().recall([MINE], [f"text {n}" for n in range(6)])[MINE]) == [
        f"text {n}" for n in range(6 - left, 6)
    ]


def test_what_is_too_large_is_not_kept(answers, app):
    answers.remember(MINE, [("text x", b"x" * (remembered.LARGEST_BYTES + 1))])
    assert rows(app) == []


def test_the_table_is_swept_while_it_is_used(answers, app, monkeypatch):
    answers.remember(MINE, [("text old", b"[1]")])
    database.write(app, lambda session: session.execute(text("UPDATE remembered_answers SET expires_at = 1")))
    answers._swept_at -= 61
    answers.remember(MINE, [("text new", b"[1]")])
    assert len(rows(app)) == 1


def test_an_answer_of_another_secret_key_is_not_found_and_no_error(answers, make):
    answers.remember(MINE, [("text x", b"[1]")])
    other = make(secret_key="another secret key of the tests").extensions["dragoman"].answers
    assert other.recall([MINE], ["text x"]) == {MINE: {}}


def test_while_the_secret_key_is_rotated_nodes_before_and_after_the_swap_find_each_others_answers(make):
    old, new = "the old secret key of the tests", "the new secret key of the tests"
    before, after = (
        make(secret_key=current, secret_key_fallbacks=(other,)).extensions["dragoman"].answers
        for current, other in ((old, new), (new, old))
    )
    before.remember(MINE, [("text x", b"[1]")])
    assert after.recall([MINE], ["text x"]) == {MINE: {"text x": b"[1]"}}
    after.remember(MINE, [("text x", b"[2]"), ("text y", b"[3]")])
    assert after.recall([MINE], ["text x"]) == {MINE: {"text x": b"[2]"}}
    assert before.recall([MINE], ["text y"]) == {MINE: {"text y": b"[3]"}}


def test_one_that_cannot_be_decrypted_is_not_found(answers, app, elsewhere):
    answers.remember(MINE, [("text x", b"[1]")])
    database.write(app, lambda session: session.execute(text("UPDATE remembered_answers SET blocks = 'gAAAA'")))
    assert elsewhere().recall([MINE], ["text x"]) == {MINE: {}}


def test_a_database_that_is_away_is_logged_and_never_an_error(answers, monkeypatch, caplog):
    def away(*_):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(database, "read", away)
    monkeypatch.setattr(database, "write", away)
    with caplog.at_level(logging.WARNING, "app"):
        answers.remember(MINE, [("text x", b"[1]")])
        answers.remember(MINE, [("text z", b"[1]")])  # at once: it does not wait for the database again
        answers._away_until = 0.0
        assert answers.recall([MINE], ["text y"]) == {MINE: {}}
    assert [record.message for record in caplog.records] == [
        "an answer could not be remembered: away",
        "no answer could be recalled: away",
    ]


def test_what_was_looked_up_or_kept_lately_is_not_asked_for_again(answers, elsewhere, monkeypatch):
    answers.remember(MINE, [("text x", b"[1]")])
    worker = elsewhere()
    assert worker.recall([MINE], ["text x", "text y"]) == {MINE: {"text x": b"[1]"}}

    def refuse(*_):
        raise AssertionError("a query")

    monkeypatch.setattr(database, "read", refuse)
    for known in (worker, answers):
        assert known.recall([MINE], ["text x"]) == {MINE: {"text x": b"[1]"}}
    assert worker.recall([MINE], ["text x", "text y"]) == {MINE: {"text x": b"[1]"}}


@pytest.mark.parametrize(("limit", "most"), [("MOST_CACHED", 2), ("MOST_CACHED_BYTES", 6)])
def test_what_is_known_without_asking_is_bounded(answers, monkeypatch, limit, most):
    monkeypatch.setattr(remembered, limit, most)
    for n in range(5):
        answers.remember(MINE, [(f"text {n}", b"[1]")])
    assert len(answers._cache._values) == 2
    assert answers._cache._size == 6


def test_what_is_known_takes_little_more_memory_than_its_length(answers):
    tracemalloc.start()
    try:
        for n in range(50):
            answers.remember(
                MINE, [(f"text {n} {m}", memory.dumps([{"type": "text", "text": "x"}])) for m in range(20)]
            )
        traced = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/app/storage/remembered.py")])
        dumped = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/app/translate/exact_json.py")])
    finally:
        tracemalloc.stop()
    taken = sum(each.size for each in [*traced.statistics("filename"), *dumped.statistics("filename")])
    assert taken < 1000 * 1000


def test_looking_up_costs_one_query_however_many_there_are(answers, app, elsewhere):
    answers.remember(MINE, [(f"text {n}", b"[1]") for n in range(300)])
    scopes = [MINE, Scope("conn_2", "key_1", "claude-opus-5-5")]
    found = elsewhere().recall(scopes, [f"text {n}" for n in range(300)])
    assert len(found[MINE]) == 300
    if app.extensions["dragoman"].settings.uses_sqlite:
        plan = sqlite3.connect(str(database.engine_of(app).url.database)).execute(
            "EXPLAIN QUERY PLAN SELECT blocks FROM remembered_answers WHERE name IN ('a', 'b')"
        )
        assert "USING INDEX" in str(plan.fetchall())
