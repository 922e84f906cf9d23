"""Writes of requests, grouped: what comes while one transaction is committed waits for the next, together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flask import Flask
from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.storage import database

log = logging.getLogger(__name__)
Work = Callable[[Session], None]
MOST_TOGETHER = 200


class _Ticket:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.error: Exception | None = None
        self.is_done = threading.Event()


class GroupedWriter:
    """One for each process."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._is_writing = False

    def write(self, work: Work) -> None:
        """Returns when all that `work` did is committed. Raises DatabaseUnavailable, or what `work` raises: it may be
        called again then, alone."""
        ticket = _Ticket(work)
        with self._lock:
            self._waiting.append(ticket)
            leads = not self._is_writing
            self._is_writing = True
        if leads:
            self._in_background(self._write_all)
        ticket.is_done.wait()
        if ticket.error is not None:
            raise ticket.error

    def _in_background(self, function: Callable[[], None]) -> None:
        """In a greenlet of its own, so that a request that is given up does not take the others' writes with it."""
        if not database.under_gevent():
            function()
            return
        import gevent

        gevent.spawn(function)

    def _write_all(self) -> None:
        while True:
            with self._lock:
                group, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                if not group:
                    self._is_writing = False
                    return
            try:
                self._write_group(group)
            finally:
                for ticket in group:
                    ticket.is_done.set()

    def _write_group(self, group: list[_Ticket]) -> None:
        def together(session: Session) -> None:
            for ticket in group:
                ticket.work(session)

        try:
            database.write(self._app, together)
        except Exception as error:  # noqa: BLE001  # whoever waits is told
            if len(group) == 1 or isinstance(error, DatabaseUnavailable):
                for ticket in group:
                    ticket.error = error
                return
            for ticket in group:  # one of them is at fault, and the others are not to suffer
                self._write_group([ticket])
