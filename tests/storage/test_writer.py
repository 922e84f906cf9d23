"""The grouped writer: what comes while one transaction is committed goes into the next, together."""

import threading

import pytest

from app.errors import DatabaseUnavailable
from app.storage import database
from app.storage.tables import AuditRow
from app.storage.writer import GroupedWriter
from tests.conftest import wait_for


def row(action):
    return AuditRow(at=1, who="w", action=action, detail="", ip="")


def actions(app):
    return database.read(app, lambda session: sorted(r.action for r in session.query(AuditRow)))


class Transactions:
    """Counts them, and lets the first one take as long as the test wants."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.first_is_held = threading.Event()
        self.go_on = threading.Event()
        self._write = database.write
        monkeypatch.setattr(database, "write", self)

    def __call__(self, app, work):
        self.count += 1
        if self.count == 1:
            self.first_is_held.set()
            assert self.go_on.wait(10)
        return self._write(app, work)


def test_what_is_written_is_committed_when_the_call_returns(app):
    GroupedWriter(app).write(lambda session: session.add(row("one")))
    assert actions(app) == ["one"]


def test_writes_that_wait_for_a_commit_share_the_next(app, monkeypatch):
    transactions = Transactions(monkeypatch)
    writer = GroupedWriter(app)
    queued = threading.Semaphore(0)

    def write(name):
        queued.release()
        writer.write(lambda session: session.add(row(name)))

    threads = [threading.Thread(target=write, args=("first",))]
    threads[0].start()
    assert transactions.first_is_held.wait(10)
    threads += [threading.Thread(target=write, args=(f"later-{n}",)) for n in range(20)]
    for thread in threads[1:]:
        thread.start()
    for _ in range(21):
        queued.acquire()
    wait_for(lambda: len(writer._waiting) == 20, what="all have their place in the queue")
    transactions.go_on.set()
    for thread in threads:
        thread.join(10)
    assert transactions.count == 2
    assert len(actions(app)) == 21


def test_one_write_that_fails_does_not_take_the_others_with_it(app, monkeypatch):
    transactions = Transactions(monkeypatch)
    writer = GroupedWriter(app)
    errors = []

    def fail(session):
        raise ValueError("at fault")

    def write(work):
        try:
            writer.write(work)
        except ValueError as error:
            errors.append(error)

    works = [lambda session: session.add(row("a")), fail, lambda session: session.add(row("b"))]
    threads = [threading.Thread(target=write, args=(lambda session: None,))]
    threads[0].start()
    assert transactions.first_is_held.wait(10)
    threads += [threading.Thread(target=write, args=(work,)) for work in works]
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(writer._waiting) == 3, what="all have their place in the queue")
    transactions.go_on.set()
    for thread in threads:
        thread.join(10)
    assert actions(app) == ["a", "b"]
    assert [str(error) for error in errors] == ["at fault"]


def test_a_database_that_is_away_is_told_to_all_who_wait(app, monkeypatch):
    def away(app, work):
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(database, "write", away)
    writer = GroupedWriter(app)
    for _ in range(2):  # and the writer goes on after it
        with pytest.raises(DatabaseUnavailable):
            writer.write(lambda session: None)
