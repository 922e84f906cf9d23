"""While the database is away, rows of the books wait in files; nobody notices, and none is lost or counted twice."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from app.errors import DatabaseUnavailable, ServiceUnavailable
from app.storage import books as module
from app.storage import database
from app.storage.books import Books
from tests.conftest import AppMaker
from tests.storage.test_ledger import ONE


@pytest.fixture
def app(make_storage_app: AppMaker, either_database: dict[str, str]) -> Flask:
    return make_storage_app(**either_database)


@pytest.fixture
def books(app: Flask) -> Books:
    made: Books = app.extensions["dragoman"].books
    return made


class Away:
    """A database that cannot be reached while `is_away`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = True
        self.asked = 0
        self._write = database.write
        monkeypatch.setattr(database, "write", self)
        monkeypatch.setattr(module, "_PAUSE_S", 0.0)

    def __call__(self, app: Flask, work: Any, **options: Any) -> Any:
        self.asked += 1
        if self.is_away:
            raise DatabaseUnavailable("away")
        return self._write(app, work, **options)


def booked(app: Flask) -> list[str]:
    return database.read(app, lambda s: [id for (id,) in s.execute(text("SELECT id FROM requests ORDER BY id"))])


def counted(app: Flask) -> int:
    return database.read(
        app, lambda s: int(s.execute(text("SELECT coalesce(sum(requests), 0) FROM usage_hours")).scalar_one())
    )


def spool(app: Flask) -> Path:
    return Path(app.instance_path) / "spool"


def test_a_row_is_put_aside_while_the_database_is_away_and_entered_once_when_it_is_back(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    for n in range(5):
        books.book(replace(ONE, id=f"req_gw_{n}"))
    books.enter_spooled()  # it is still away
    assert len(list(spool(app).glob("*.json"))) == 5
    away.is_away = False
    assert booked(app) == []
    again = Books(app, app.extensions["dragoman"].settings, app.extensions["dragoman"].books._writer)  # after a restart
    again.enter_spooled()
    books.enter_spooled()
    assert booked(app) == [f"req_gw_{n}" for n in range(5)]
    assert counted(app) == 5
    assert list(spool(app).iterdir()) == []


def test_what_was_put_aside_is_its_owners_alone(app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    Away(monkeypatch)
    books.book(ONE)
    (file,) = spool(app).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool(app).stat().st_mode) == 0o700


def test_a_row_that_is_in_the_books_already_is_not_counted_again(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the answer to a COMMIT was lost."""
    books.book(ONE)
    away = Away(monkeypatch)
    books.book(ONE)
    away.is_away = False
    books.enter_spooled()
    assert (booked(app), counted(app)) == ([ONE.id], 1)


def test_not_each_answer_waits_for_a_database_that_is_away(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(monkeypatch)
    monkeypatch.setattr(module, "_PAUSE_S", 60.0)
    for n in range(5):
        books.book(replace(ONE, id=f"req_gw_{n}"))
    assert away.asked == 1


def test_what_is_no_row_is_left_aside_and_told(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = Away(monkeypatch)
    books.book(ONE)
    (spool(app) / "req_gw_0.json").write_text('{"id": 1')
    away.is_away = False
    books.enter_spooled()
    assert booked(app) == [ONE.id]
    assert [file.name for file in spool(app).iterdir()] == ["req_gw_0.json.odd"]
    assert "is no row of the books" in caplog.text


def test_a_row_that_the_database_does_not_take_holds_no_other_up(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    for entry in (replace(ONE, id="req_gw_0", input_tokens=2**63), ONE):
        books.book(entry)
    away.is_away = False
    books.enter_spooled()
    assert booked(app) == [ONE.id]
    assert [file.name for file in spool(app).iterdir()] == ["req_gw_0.json.odd"]


def test_when_too_much_waits_new_requests_are_refused_and_no_row_is_dropped(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(monkeypatch)
    monkeypatch.setattr(module, "MOST_SPOOLED", 2)
    for n in range(2):
        books.check_room()
        books.book(replace(ONE, id=f"req_gw_{n}"))
    with pytest.raises(ServiceUnavailable, match="books"):
        books.check_room()
    books.book(replace(ONE, id="req_gw_9"))  # of a request that was let in before
    assert books._spooled == 3


def test_work_that_fails_does_not_take_the_row_with_it(app: Flask, books: Books) -> None:
    def work(session: Any) -> None:
        raise ValueError("odd")

    books.book(ONE, work)
    assert booked(app) == [ONE.id]
