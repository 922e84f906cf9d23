"""Brings the database to this program's schema, once, however many processes start together."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from flask import Flask
from sqlalchemy import exc, text

from app.errors import ConfigError
from app.storage import database
from app.storage.startup import MIGRATIONS, head

__all__ = ["head", "is_current", "revision", "upgrade"]

log = logging.getLogger(__name__)
ADVISORY_LOCK = 0x447261676F6D616E  # "Dragoman"


def revision(app: Flask) -> str | None:
    """Where the database stands; None when it is empty. Raises ConfigError when it cannot be reached."""
    engine = database.engine_of(app)
    try:
        with engine.connect() as connection:
            if not engine.dialect.has_table(connection, "alembic_version"):
                return None
            found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return found
    except (exc.DBAPIError, exc.TimeoutError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ConfigError(f"DATABASE_URL: the database cannot be opened: {cause}") from None


def is_current(app: Flask) -> bool:
    """Raises ConfigError when a newer Dragoman has been here."""
    at = revision(app)
    if at is not None and at > head():
        raise ConfigError(
            f"The database is at revision {at}, this Dragoman knows revisions up to {head()}. "
            "Install the newer version again, or restore the backup that was made before the upgrade."
        )
    return at == head()


def upgrade(app: Flask) -> bool:
    """True when something was to be done. Raises ConfigError when the database cannot be opened."""
    if app.extensions["dragoman"].settings.uses_sqlite:
        _make_file(app)
    if is_current(app):
        return False
    with _alone(app):
        if is_current(app):
            return False
        import flask_migrate  # with alembic beneath it 10 MB that a running gateway does not need

        with_migrations(app)
        with app.app_context():
            flask_migrate.upgrade(directory=str(MIGRATIONS))
    log.info("the database is at revision %s now", head())
    return True


def with_migrations(app: Flask) -> Flask:
    """`app` with Flask-Migrate, which `make migration` needs too."""
    from flask_migrate import Migrate

    from app import extensions

    Migrate(app, extensions.db, render_as_batch=True)
    return app


def _make_file(app: Flask) -> None:
    path = Path(str(database.engine_of(app).url.database))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only the owner reads it, whatever the umask (SQLite gives its log the same mode).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if not path.stat().st_size:
            _write_first_page(path)
    except OSError as error:
        raise ConfigError(
            f"DATABASE_URL: {path} cannot be written ({error.strerror}). Make it writable, or set INSTANCE_PATH."
        ) from None
    except sqlite3.Error as error:
        raise ConfigError(f"DATABASE_URL: the database cannot be opened: {error}") from None


def _write_first_page(path: Path) -> None:
    """Of processes that turn an empty file to WAL together, SQLite tells some at once that it is locked, whatever their
    time-out. The journal's mode stays in the file: one of them turns it, and the others find it turned."""
    with _lock_file(path), contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def _lock_file(path: str | Path) -> Iterator[None]:
    with open(f"{path}.migrate-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _alone(app: Flask) -> Iterator[None]:
    engine = database.engine_of(app)
    if engine.dialect.name == "sqlite":
        with _lock_file(str(engine.url.database)):
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SET lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        try:
            yield
        finally:
            connection.invalidate()  # closing it gives the lock back, and its time-outs were changed
