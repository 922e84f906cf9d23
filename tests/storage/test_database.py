"""Transactions: all or nothing, durable, and a clear 503 when the database is not there."""

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from flask import Flask
from sqlalchemy import event, text

from app.errors import ConfigError, DatabaseUnavailable
from app.settings import Settings
from app.storage import audit, database
from tests.conftest import ROOT


@pytest.fixture
def app(make_storage_app, either_database):
    return make_storage_app(**either_database)


@pytest.fixture
def sqlite_app(make_storage_app):
    return make_storage_app()


def count(app: Flask) -> int:
    return len(audit.entries(app))


def test_what_a_failing_function_changed_is_gone(app):
    def work(session):
        audit.add(session, who="tester", action="half")
        session.flush()
        raise KeyError("stop")

    with pytest.raises(KeyError):
        database.write(app, work)
    assert count(app) == 0


def test_sqlite_survives_a_power_cut_and_readers_do_not_wait(sqlite_app):
    def pragmas(session):
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [session.scalar(text(f"PRAGMA {name}")) for name in names]

    assert database.write(sqlite_app, pragmas) == ["wal", 2, 1, 5000]


def test_what_need_not_survive_a_power_cut_does_not_wait_for_the_disk(sqlite_app):
    def synchronous(session):
        return session.scalar(text("PRAGMA synchronous"))

    assert database.write(sqlite_app, synchronous, survives_power_cuts=False) == 1
    assert database.write(sqlite_app, synchronous) == 2


def test_the_files_of_the_database_are_the_owners_alone(sqlite_app, tmp_path):
    audit.record(sqlite_app, who="tester", action="x")
    for path in (tmp_path / "instance").glob("dragoman.db*"):
        assert path.stat().st_mode & 0o077 == 0 or path.suffix == ".migrate-lock", path


def test_writers_wait_for_each_other(app):
    def slow(session):
        audit.add(session, who="slow", action="x")
        session.flush()
        entered.set()
        time.sleep(0.3)  # how long the lock is held is what this test is about

    entered = threading.Event()
    thread = threading.Thread(target=database.write, args=(app, slow))
    thread.start()
    assert entered.wait(5)
    audit.record(app, who="second", action="x")
    thread.join(5)
    assert {entry.who for entry in audit.entries(app)} == {"slow", "second"}


def test_a_lock_held_too_long_is_a_503_that_saved_nothing(sqlite_app, monkeypatch):
    holder = database.engine_of(sqlite_app).raw_connection()
    holder.execute("BEGIN IMMEDIATE")
    engine = database.engine_of(sqlite_app)

    def impatient(connection, record):
        connection.execute("PRAGMA busy_timeout=50")

    event.listen(engine, "connect", impatient)
    with pytest.raises(DatabaseUnavailable, match="is locked by another process"):
        audit.record(sqlite_app, who="tester", action="x")
    assert count(sqlite_app) == 0  # readers do not wait
    holder.rollback()
    holder.close()
    audit.record(sqlite_app, who="tester", action="x")
    assert count(sqlite_app) == 1


def test_an_unreachable_database_is_a_503_without_its_address_or_password(make_settings, tmp_path):
    from app import create_storage_app

    app = create_storage_app(
        make_settings(database_url="postgresql://user:the-password@127.0.0.1:1/name", secret_key="a long secret key")
    )
    with pytest.raises(DatabaseUnavailable) as error:
        count(app)
    assert "127.0.0.1" not in error.value.message
    assert "the-password" not in error.value.message


def test_a_database_that_was_replaced_by_rubbish_is_a_503(sqlite_app, tmp_path):
    database.engine_of(sqlite_app).dispose()
    for path in (tmp_path / "instance").glob("dragoman.db*"):
        path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(DatabaseUnavailable):
        count(sqlite_app)


def move_away(folder):
    for path in list(folder.glob("dragoman.db*")):
        path.rename(path.with_name(f"away-{path.name}"))


def bring_back(folder):
    for path in list(folder.glob("away-*")):
        path.rename(path.with_name(path.name.removeprefix("away-")))


def test_nothing_is_written_into_a_file_that_is_gone_and_no_empty_one_is_made(sqlite_app, tmp_path):
    folder = tmp_path / "instance"
    audit.record(sqlite_app, who="tester", action="before")
    move_away(folder)
    for attempt in (lambda: audit.record(sqlite_app, who="tester", action="lost"), lambda: count(sqlite_app)):
        with pytest.raises(DatabaseUnavailable, match="was removed or replaced"):
            attempt()
    assert not (folder / "dragoman.db").exists()
    bring_back(folder)
    audit.record(sqlite_app, who="tester", action="after")
    assert [entry.action for entry in audit.entries(sqlite_app)] == ["after", "before"]


def test_a_file_that_was_replaced_takes_no_writes_that_a_restart_would_lose(sqlite_app, tmp_path):
    folder = tmp_path / "instance"
    audit.record(sqlite_app, who="tester", action="before")
    with sqlite3.connect(folder / "dragoman.db") as source, sqlite3.connect(folder / "backup") as backup:
        source.backup(backup)
    source.close()
    backup.close()
    (folder / "backup").rename(folder / "dragoman.db")
    with pytest.raises(DatabaseUnavailable, match="was removed or replaced"):
        audit.record(sqlite_app, who="tester", action="lost")


def test_a_connection_is_not_used_in_a_process_that_did_not_open_it(app):
    count(app)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            audit.record(app, who="child", action="x")
            os.write(write, b"done")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 10) == b"done"
    os.close(read)
    assert [entry.who for entry in audit.entries(app)] == ["child"]


def test_a_restarted_postgresql_is_noticed_before_a_request_is(postgresql, make_storage_app):
    app = make_storage_app(database_url=postgresql.new_database(), secret_key="a long secret key")
    assert count(app) == 0
    settings = app.extensions["dragoman"].settings
    other = make_storage_app(database_url=settings.database_url, secret_key=settings.secret_key)
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    database.read(other, lambda session: session.execute(cut).all())
    assert count(app) == 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/name", "mysql"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("not a url", "cannot be read"),
    ],
)
def test_a_database_that_we_do_not_know_stops_the_start(url, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        database.engine_options(Settings(database_url=url))
    assert "DATABASE_URL" in str(error.value)


FIRST_MOMENTS = """
from gevent import monkey
monkey.patch_all()
import os, signal, sys
from pathlib import Path
import gevent
from sqlalchemy import event
from sqlalchemy.orm import Mapper, configure_mappers
from app import create_app
from app.settings import Settings
from app.storage.migrate import upgrade

app = create_app(Settings(instance_path=Path(sys.argv[1])))

def too_late():
    raise AssertionError("tables are mapped when a request comes")

event.listen(Mapper, "before_configured", too_late)
configure_mappers()

def in_a_process(work):
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def eight_at_once():
    load = app.extensions["dragoman"].config.load
    gevent.joinall([gevent.spawn(load) for _ in range(8)], raise_error=True)

in_a_process(lambda: upgrade(app))
for _ in range(10):
    in_a_process(eight_at_once)
"""


def test_requests_that_come_at_once_in_a_workers_first_moments_all_get_their_connection(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FIRST_MOMENTS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
