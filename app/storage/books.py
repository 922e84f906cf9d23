"""Where rows of the books go: into the database, or, while that is away, into files that are entered later.

Each such row is a file of its own, named after the row: it is there whole or not at all, and entered twice it counts
once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import orjson
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable, ServiceUnavailable
from app.settings import Settings
from app.storage import database
from app.storage.ledger import Entry
from app.storage.writer import GroupedWriter, Work

log = logging.getLogger(__name__)
MOST_WAITING = 2_000
MOST_SPOOLED = 16_000
"""Files; each takes 4 KB of the disk."""
_ENTERED_AT_ONCE = 200
_PAUSE_S = 1.0


class Books:
    """One for each process."""

    def __init__(self, app: Flask, settings: Settings, writer: GroupedWriter) -> None:
        self._app = app
        self._writer = writer
        self._spool = settings.instance_path.resolve() / "spool"
        self._spooled = len(self._names())
        self._entering = threading.Lock()
        self._away_until = 0.0

    def check_room(self) -> None:
        """Raises ServiceUnavailable when a request that begins now might not be booked: none is left out."""
        if self._writer.waiting >= MOST_WAITING or self._spooled >= MOST_SPOOLED:
            raise ServiceUnavailable(
                "The gateway's database cannot keep up with its books. Try again in a moment.",
                code="books_unavailable",
                headers={"retry-after": "1"},
            )

    def book(self, entry: Entry, work: Work | None = None) -> None:
        """Durable when this returns, together with what `work` changes where that is possible."""
        if time.monotonic() < self._away_until:  # not each answer in turn waits until that is certain
            database.in_thread(self._app, lambda: self._put_aside(entry))
            return
        try:
            self._writer.write(work, entry)
        except DatabaseUnavailable as error:
            self._away_until = time.monotonic() + _PAUSE_S
            log.warning("rows of the books wait in %s: %s", self._spool, error.message)
            database.in_thread(self._app, lambda: self._put_aside(entry))
        except Exception:  # of the work, or a row that the database does not take
            log.exception("%s could not be booked%s", entry.id, " with what belongs to it" if work else "")
            if work is not None:
                self.book(entry)
            else:
                database.in_thread(self._app, lambda: self._put_aside(entry))

    def enter_spooled(self) -> None:
        """Enters what was put aside, if the database is back. Call now and then."""
        if not self._spooled or not self._entering.acquire(blocking=False):
            return
        try:
            while names := self._names()[:_ENTERED_AT_ONCE]:
                self._enter(names)
        except DatabaseUnavailable:
            pass  # later
        finally:
            self._spooled = len(self._names())
            self._entering.release()

    def _enter(self, names: Sequence[str]) -> None:
        for name in names:
            entry = self._read(name)
            if entry is None:
                continue
            try:
                self._writer.write(None, entry)
            except Exception as error:  # noqa: BLE001  # told with the row
                database.write(self._app, _nothing)
                self._leave_out(name, f"the database does not take it ({type(error).__name__})")
                continue
            with suppress(FileNotFoundError):  # another worker was as quick
                (self._spool / name).unlink()
        log.info("%d rows that were put aside are in the books", len(names))

    def _read(self, name: str) -> Entry | None:
        try:
            return Entry(**orjson.loads((self._spool / name).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            self._leave_out(name, str(error))
            return None

    def _leave_out(self, name: str, why: str) -> None:
        log.error("%s is no row of the books and is left out: %s", self._spool / name, why)
        with suppress(FileNotFoundError):
            (self._spool / name).rename(self._spool / f"{name}.odd")

    def _put_aside(self, entry: Entry) -> None:
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._spool / f"{entry.id}.json"
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, orjson.dumps(asdict(entry)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(path)
        _sync(self._spool)
        self._spooled += 1

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._spool) if name.endswith(".json"))
        except FileNotFoundError:
            return []


def _nothing(session: Session) -> None:
    """Whether the database takes anything at all: raises DatabaseUnavailable if not."""
    session.execute(text("DELETE FROM requests WHERE id = ''"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
