"""The only way to a database session.

`read(app, work)` and `write(app, work)` call `work(session)` in an application context and a transaction of its own
and answer what it answered. What `work` hands out must be plain values: its rows are gone when it returns.

psycopg gives way under gevent by itself. SQLite does not: a held lock or a slow fsync would stop every stream of the
worker, so under gevent the whole function runs in native threads, reads and writes apart, so that readers (who
never wait in WAL mode) do not queue behind writers who wait for a lock.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from app.errors import ConfigError, DatabaseUnavailable
from app.extensions import db
from app.settings import Settings

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

log = logging.getLogger(__name__)
T = TypeVar("T")

LOCK_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 15
SQLITE_READERS, SQLITE_WRITERS = 4, 2
GONE = "was removed or replaced"


def read(app: Flask, work: Callable[[Session], T]) -> T:
    """Raises DatabaseUnavailable when the database cannot be reached."""
    return _run(app, work, writes=False)


def write(app: Flask, work: Callable[[Session], T], *, survives_power_cuts: bool = True) -> T:
    """All of what `work` changes is committed, durably, before this returns; when it raises, none of it is. On SQLite
    without `survives_power_cuts` the disk is not waited for: it survives whatever happens to the process.

    Raises DatabaseUnavailable when the database cannot be reached or stays locked for LOCK_TIMEOUT_S.
    """
    return _run(app, work, writes=True, survives_power_cuts=survives_power_cuts)


def call(app: Flask, function: Callable[[], T], *, writes: bool) -> T:
    """Run a function that may wait for the database where it stops no other greenlet."""
    if not app.extensions["dragoman"].settings.uses_sqlite:
        return function()
    return in_thread(app, function, writes=writes)


def in_thread(app: Flask, function: Callable[[], T], *, writes: bool = False) -> T:
    """Run a function that waits for a disk where it stops no other greenlet."""
    if not under_gevent():
        return function()
    answer, error = _threads(app, writes).apply(_outcome, (function,))
    if error is not None:
        raise error
    result: T = answer
    return result


def _outcome(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """gevent would print the traceback of what is raised in a thread, even of an error that a client is to be told."""
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001  # raised again by call()
        return None, error


def under_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


_LEAST_FREE_BYTES = 8 * 1024 * 1024


def is_out_of_space(settings: Settings) -> bool:
    """Whether an SQLite database has no room to grow in; False where that is not known."""
    if not settings.uses_sqlite:
        return False
    folder = os.path.dirname(make_url(settings.database_uri).database or "") or "."
    try:
        free = os.statvfs(folder)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize < _LEAST_FREE_BYTES


def engine_of(app: Flask) -> Engine:
    engine: Engine | None = app.extensions.get("dragoman.engine")
    if engine is None:
        with app.app_context():
            engine = app.extensions.setdefault("dragoman.engine", _prepared(db.engine))
    return engine


def engine_options(settings: Settings) -> dict[str, Any]:
    """For SQLALCHEMY_ENGINE_OPTIONS. Raises ConfigError on a database that we do not know."""
    try:
        url = make_url(settings.database_uri)
    except exc.ArgumentError:
        raise ConfigError(
            "DATABASE_URL cannot be read; it looks like postgresql://user:password@host/name or sqlite:////path/file.db."
        ) from None
    match url.get_backend_name():
        case "sqlite":
            if _in_memory(url):
                raise ConfigError("DATABASE_URL names an SQLite database in memory, which forgets; name a file.")
            return {
                "poolclass": SQLitePool,
                "connect_args": {"check_same_thread": False, "timeout": LOCK_TIMEOUT_S},
                "hide_parameters": True,
            }
        case "postgresql":
            return {
                "pool_pre_ping": True,
                "pool_size": 4,
                "max_overflow": 8,
                "pool_timeout": LOCK_TIMEOUT_S,
                "pool_use_lifo": True,
                # A server that vanished without a word is given up after ten seconds.
                "connect_args": {"connect_timeout": 5, "tcp_user_timeout": 10_000, "application_name": "dragoman"},
                "hide_parameters": True,
            }
        case other:
            raise ConfigError(f"DATABASE_URL names {other}; Dragoman works with SQLite and PostgreSQL.")


def _in_memory(url: URL) -> bool:
    return (
        url.database in (None, "", ":memory:")
        or ":memory:" in (url.database or "")
        or url.query.get("mode") == "memory"
    )


class SQLitePool(NullPool):
    """Keeps a few idle connections, without a lock of gevent's, which do not belong into native threads: a deque's ends
    are atomic. (Without an open connection SQLite would fold its log back at the end of every transaction.)
    A connection is never used in a process that did not open it."""

    most_idle = SQLITE_READERS + SQLITE_WRITERS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from gevent.monkey import get_original

        super().__init__(*args, **kwargs)
        self._idle: deque[tuple[int, ConnectionPoolEntry]] = deque()
        self._one_at_a_time = get_original("_thread", "allocate_lock")()

    def _do_get(self) -> ConnectionPoolEntry:
        pid = os.getpid()
        while self._idle:
            try:
                opened_by, record = self._idle.pop()
            except IndexError:
                break
            if opened_by == pid:
                return record
        with self._one_at_a_time:  # or SQLAlchemy's lock around a first one, which is gevent's, would hang the others
            return self._create_connection()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.dbapi_connection is not None and len(self._idle) < self.most_idle:
            self._idle.append((os.getpid(), record))
        else:
            record.close()

    def dispose(self) -> None:
        while self._idle:
            _, record = self._idle.pop()
            record.close()


def _run(app: Flask, work: Callable[[Session], T], *, writes: bool, survives_power_cuts: bool = True) -> T:
    engine = engine_of(app)

    def transaction() -> T:
        bind = (
            engine.execution_options(dragoman_writes="FULL" if survives_power_cuts else "NORMAL") if writes else engine
        )
        with app.app_context(), Session(bind, expire_on_commit=False) as session, session.begin():
            return work(session)

    try:
        return call(app, transaction, writes=writes)
    except exc.IntegrityError:
        raise
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> DatabaseUnavailable:
    """What a client may know of it; the log gets the driver's own words (never the statement or its values)."""
    cause = getattr(error, "orig", None) or error
    log.warning("database: %s: %s", type(cause).__name__, str(cause).strip())
    if "locked" in str(cause) or type(cause).__name__ in ("LockNotAvailable", "QueryCanceled", "TimeoutError"):
        reason = "is locked by another process"
    elif GONE in str(cause):
        reason = f"{GONE} while it ran: bring the file back, or restart the gateway"
    else:
        reason = "cannot be reached"
    return DatabaseUnavailable(f"The gateway's database {reason}. Nothing was saved; try again.")


def _threads(app: Flask, writes: bool) -> ThreadPool:
    """Threads of our own: in the hub's own pool, waits for a lock would hold up name resolution."""
    name = f"dragoman.threads.{'write' if writes else 'read'}.{os.getpid()}"
    threads: ThreadPool | None = app.extensions.get(name)
    if threads is None:
        from gevent.threadpool import ThreadPool

        threads = app.extensions[name] = ThreadPool(SQLITE_WRITERS if writes else SQLITE_READERS)
    return threads


def _prepared(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        file = SQLiteFile(str(engine.url.database))
        event.listen(engine, "do_connect", file.on_do_connect)
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "checkout", file.on_checkout)
        event.listen(engine, "begin", _on_sqlite_begin)
    else:
        event.listen(engine, "connect", _on_postgresql_connect)
        event.listen(engine, "checkout", _refuse_inherited)
    return engine


class SQLiteFile:
    """Whether the file at the database's path is the one that this process opened: what is written into a file that was
    removed or replaced is lost when its last connection closes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: dict[int, tuple[int, int]] = {}  # by process

    def on_do_connect(self, *_: Any) -> None:
        """SQLite would make a new, empty database."""
        self._check()

    def on_checkout(self, *_: Any) -> None:
        self._check()

    def _check(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError:
            raise sqlite3.OperationalError(f"{self._path} {GONE}") from None
        if self._opened.setdefault(os.getpid(), (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
            raise sqlite3.OperationalError(f"{self._path} {GONE}")


def _on_sqlite_connect(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver would begin transactions late and deferred; _on_sqlite_begin does it
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=1000"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    # A transaction that only upgrades to a writer later cannot wait for the lock: it fails at once.
    synchronous = connection.get_execution_options().get("dragoman_writes")
    if synchronous:
        connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if synchronous else "BEGIN")


def _on_postgresql_connect(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["pid"] = os.getpid()
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        cursor.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        cursor.execute("SET jit = off")  # to compile a sum took 300 to 700 ms, to run it 20
        cursor.execute("SET max_parallel_workers_per_gather = 0")  # to start them took 100 ms, twice as long as the sum
        cursor.execute("SET work_mem = '16MB'")  # a sum of many groups sorts 60,000 rows
    connection.commit()


def _refuse_inherited(connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
    """Two processes on one socket would read each other's answers."""
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None  # type: ignore[misc]  # as SQLAlchemy's own recipe
        raise exc.DisconnectionError(f"This connection belongs to process {record.info['pid']}.")
