"""Where rows of the books go: first into this process's journal, from there, many together, into the database.

A row is in the journal before the client has the last byte of its answer, and whoever finds the journal of a process
that is gone enters what is in it: rows that are entered twice count once, and of a request that only began there is a
row, too. While the database is away the journal grows, and nobody notices.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from flask import Flask
from sqlalchemy import exc

from app.errors import DatabaseUnavailable, ServiceUnavailable
from app.money.charges import FACTOR, Message, charges
from app.money.prices import PriceList
from app.settings import Settings
from app.storage import database, journal, ledger
from app.storage.journal import Journal
from app.storage.ledger import Entry

log = logging.getLogger(__name__)
MOST_UNREAD_BYTES = 64 * 1024 * 1024
"""Of a process; a row takes about 700."""
_TOGETHER_S = 1.0
"""For what ends within so many seconds there is one transaction: it costs as much as forty rows."""
_PAUSE_S = 1.0
_ENTERED_AT_ONCE = 400
"""In one transaction. It is made in a thread, which takes its time from whoever is answered meanwhile."""
_LOOKED_EVERY_S = 5.0
_AT_FAULT = (exc.IntegrityError, OverflowError, TypeError, ValueError)
"""What a database raises of a row that it does not take, beside DataError."""
_BEGUN, _HEARD, _ENDED = "begun", "heard", "ended"
_ROW_BEGINS = orjson.dumps((_ENDED,))[:-1] + b","
_pid = os.getpid()


def _forked() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_forked)


@dataclass
class Call:
    """One that goes upstream. `number` counts those of a request; `row` is what the first tells of the request."""

    number: int
    connection: str
    model: str
    at: float
    factor: int = FACTOR
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heard:
    """What came of a call."""

    number: int
    model: str = ""
    usage: Mapping[str, Any] | None = None
    is_free: bool = False


class Books:
    """One for each process. `prices` answers what is in force."""

    def __init__(self, app: Flask, settings: Settings, prices: Callable[[], PriceList]) -> None:
        self._app = app
        self._prices = prices
        self.on_rows: list[Callable[[Sequence[Entry]], None]] = []
        """Called with the rows that this process makes, some at a time, once they are sure to be in the books."""
        self._untold: list[Entry] = []
        self._survives_power_cuts = settings.ledger_sync == "full"
        self._parent = journal.folder_of(settings)
        self._pid = 0
        self._journal: Journal | None = None
        self._open: dict[str, list[bytes]] = {}
        """The lines of requests that have not ended, or whose end could not be written."""
        self._unwritten: dict[str, Entry] = {}
        """Rows for which the disk had no room. They are few: without room no request begins."""
        self._entering = threading.Lock()
        self._is_due = False
        self._away_until = 0.0
        self._next_look = 0.0

    def check_room(self) -> None:
        """Raises ServiceUnavailable when a request that begins now might not be booked: none is left out."""
        if self._journal is not None and self._journal.unread_bytes >= MOST_UNREAD_BYTES:
            raise _no_room("The gateway's database cannot keep up with its books.")

    def begin(self, id: str, call: Call) -> None:
        """Before a call goes upstream. Raises ServiceUnavailable when that cannot be written down."""
        line = _line(_BEGUN, id, call)
        try:
            self._add(line)
        except OSError as error:
            log.error("the journal of the books cannot be written: %s", error)
            raise _no_room("The gateway cannot write its books.") from error
        self._open.setdefault(id, []).append(line)

    def hear(self, id: str, heard: Heard) -> None:
        """What is known of a call, in case that nothing comes after it."""
        try:
            line = _line(_HEARD, id, heard)
            self._add(line)
        except (OSError, TypeError) as error:  # orjson takes no number of more than 64 bits
            log.warning("the journal of the books cannot be written: %s", error)
            return
        self._open.setdefault(id, []).append(line)

    def end(self, entry: Entry) -> None:
        """The row of the request. Whatever happens to this process, it is in the books once this has returned."""
        line = _line(_ENDED, entry.id, entry)
        try:
            self._add(line)
            self._open.pop(entry.id, None)
            if self._survives_power_cuts:
                database.in_thread(self._app, self._own().to_sync())
        except OSError as error:
            log.warning("the journal of the books cannot be written: %s", error)
            self._unwritten[entry.id] = entry
        self._untold.append(entry)
        self._enter_soon()

    def enter(self) -> None:
        """Enters what this process has written until now. Raises DatabaseUnavailable."""
        own = self._journal
        if own is None or self._pid != _pid or not self._entering.acquire(timeout=_PAUSE_S):
            return
        try:
            for some in _groups(list(self._unwritten.values())):
                self._insert(some)
                for entry in some:
                    self._unwritten.pop(entry.id)
                    self._open.pop(entry.id, None)
            until = own.unread_bytes
            while until > 0 and (lines := own.unread()):
                until -= sum(map(len, lines))
                entries = [ledger.as_told(_read(line)[2]) for line in lines if line.startswith(_ROW_BEGINS)]
                for some in _groups(entries):
                    self._insert(some)
                own.done(lines)
        finally:
            self._entering.release()

    def tell(self) -> None:
        """Of the rows that were made since it was called last. Whatever becomes of that, the books go on."""
        rows, self._untold = self._untold, []
        for told in self.on_rows if rows else ():
            try:
                told(rows)
            except Exception:
                log.exception("%d rows of the books were not counted", len(rows))

    def enter_all(self) -> None:
        """Enters what was held up, and what processes that are gone have left. Call now and then."""
        self.tell()
        now = time.monotonic()
        if now < self._away_until:
            return
        try:
            if not self._is_due:
                self.enter()
            if now >= self._next_look:
                self._next_look = now + _LOOKED_EVERY_S
                for folder in journal.left_behind(self._parent):
                    self._adopt(folder)
        except DatabaseUnavailable:
            self._away_until = now + _PAUSE_S

    def enter_now(self) -> None:
        """Enters what this process has written, if that is possible: for who reads what he has just been told of."""
        if time.monotonic() >= self._away_until:
            with suppress(DatabaseUnavailable):
                self.enter()

    def close(self) -> None:
        """At the end of the process. What cannot be entered now waits for another."""
        self.tell()
        if self._journal is None or self._pid != _pid:
            return
        with suppress(DatabaseUnavailable):
            self.enter()
        own, self._journal = self._journal, None
        own.close(keeps_files=bool(self._open or own.unread_bytes))

    def _add(self, line: bytes) -> None:
        own = self._own()
        if own.is_full:
            own.turn_page(line for lines in self._open.values() for line in lines)
        own.add(line)

    def _own(self) -> Journal:
        """Raises OSError."""
        if self._journal is None or self._pid != _pid:
            self._pid, self._journal, self._open = _pid, Journal(self._parent), {}
        return self._journal

    def _enter_soon(self) -> None:
        if self._is_due or time.monotonic() < self._away_until:
            return
        if not database.under_gevent():
            self._enter_or_wait()
            return
        import gevent

        self._is_due = True
        gevent.spawn_later(_TOGETHER_S, self._enter_or_wait)

    def _enter_or_wait(self) -> None:
        is_entered = False
        self.tell()
        try:
            self.enter()
            is_entered = True
        except DatabaseUnavailable as error:
            self._away_until = time.monotonic() + _PAUSE_S
            log.warning("rows of the books wait in %s: %s", self._parent, error.message)
        except Exception:
            self._away_until = time.monotonic() + _PAUSE_S
            log.exception("rows of the books could not be entered")
        finally:
            self._is_due = False
        if is_entered and self._journal is not None and self._journal.unread_bytes:  # what ended meanwhile
            self._enter_soon()

    def _insert(self, entries: Sequence[Entry]) -> None:
        """Raises DatabaseUnavailable. A row is left out only where it is at fault itself."""
        try:
            database.write(
                self._app,
                lambda session: ledger.insert(session, entries),
                survives_power_cuts=self._survives_power_cuts,
            )
        except (DatabaseUnavailable, *_AT_FAULT) as error:
            if not isinstance(error, _AT_FAULT) and not isinstance(error.__cause__, exc.DataError):
                raise
            if len(entries) == 1:
                self._leave_out(_line(_ENDED, entries[0].id, entries[0]), f"{type(error).__name__}: {error}")
                return
            for entry in entries:  # one of them is at fault, and the others are not to suffer
                self._insert([entry])

    def _adopt(self, folder: Path) -> None:
        """Raises DatabaseUnavailable."""
        begun: dict[str, dict[int, Call]] = {}
        heard: dict[str, dict[int, Heard]] = {}
        count = 0

        def ended() -> Iterator[Entry]:
            for line in journal.lines_of(folder):
                try:
                    kind, id, told = _read(line)
                    if kind == _BEGUN:
                        begun.setdefault(id, {})[told["number"]] = Call(**told)
                    elif kind == _HEARD:
                        heard.setdefault(id, {})[told["number"]] = Heard(**told)
                    else:
                        begun.pop(id, None)
                        yield ledger.as_told(told)
                except (ValueError, TypeError, KeyError) as error:
                    self._leave_out(line, str(error))

        def lost() -> Iterator[Entry]:
            for id, calls in begun.items():
                try:
                    yield _lost(calls, heard.get(id, {}), self._prices())
                except (ValueError, TypeError, KeyError) as error:
                    self._leave_out(b"".join(_line(_BEGUN, id, call) for call in calls.values()), str(error))

        for entries in (ended, lost):
            for some in _groups(entries()):
                self._insert(some)
                count += len(some)
                if entries is lost:
                    self._untold += some
        self.tell()
        shutil.rmtree(folder)
        if count:
            log.warning(
                "%d rows of a process that is gone are in the books, %d of them of requests that it had not answered",
                count,
                len(begun),
            )

    def _leave_out(self, line: bytes, why: str) -> None:
        path = self._parent / "left-out.jsonl"
        log.error("%s holds what is no row of the books, or none that the database takes: %s", path, why)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line)
        except OSError as error:
            log.error("%s cannot be written (%s): %r", path, error.strerror, line)  # the line is what counts


def _lost(calls: Mapping[int, Call], heard: Mapping[int, Heard], prices: PriceList) -> Entry:
    """Of a request that had not ended when its process did. What it cost is an estimate, if anything is known of it."""
    nothing = Heard(0)
    messages = [
        Message(
            connection=call.connection,
            model=heard.get(number, nothing).model or call.model,
            at=datetime.fromtimestamp(call.at, UTC),
            usage=heard.get(number, nothing).usage,
            is_cut=True,
            factor=call.factor,
        )
        for number, call in calls.items()
        if not heard.get(number, nothing).is_free
    ]
    last, made = calls[max(calls)], charges(messages, prices)
    return ledger.entry(
        calls[min(calls)].row,
        made,
        model=heard.get(last.number, nothing).model or last.model,
        connection=last.connection,
        attempts=len(calls),
        status=500,
        ending=ledger.WORKER_LOST,
        duration_ms=0,
        ttft_ms=None,
        upstream_ids=None,
        warnings=None,
        parts=ledger.parts([(call.connection, call.model, ledger.WORKER_LOST) for call in calls.values()], made),
    )


def _no_room(why: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"{why} Try again in a moment.", code="books_unavailable", headers={"retry-after": "1"})


def _line(kind: str, id: str, told: Call | Heard | Entry) -> bytes:
    return orjson.dumps((kind, id, told), option=orjson.OPT_APPEND_NEWLINE)


def _read(line: bytes) -> tuple[str, str, dict[str, Any]]:
    kind, id, told = orjson.loads(line)
    return kind, id, told


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while group := list(islice(rest, _ENTERED_AT_ONCE)):
        yield group
