"""A glance at an SQLite file before anything heavy is imported: a second start has nothing to prepare.

It uses the driver alone, because importing SQLAlchemy takes longer than all the rest of `dragoman run`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from app.settings import Settings

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def head() -> str:
    """The newest revision, by the numbers that the files' names begin with: alembic, which knows too, loads slowly."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def is_ready(settings: Settings) -> bool:
    """Whether the default SQLite database is at head() and has an admin; False whenever that is not certain."""
    path = settings.instance_path.resolve() / "dragoman.db"
    if settings.database_url or not path.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1)) as connection:
            at = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            admin = connection.execute("SELECT 1 FROM admins LIMIT 1").fetchone()
    except sqlite3.Error:
        return False
    return at == (head(),) and admin is not None
