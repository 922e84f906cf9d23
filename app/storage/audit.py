"""The audit log: who did what, when and from where; never a secret."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flask import Flask
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.storage import database
from app.storage.tables import AuditRow

KEPT_DAYS = 400
_PRUNED_EVERY_S = 3600.0
_PRUNED_AT_ONCE = 1000


@dataclass(frozen=True)
class AuditEntry:
    id: int
    at: int
    who: str
    action: str
    detail: str
    ip: str


def add(session: Session, *, who: str, action: str, detail: str = "", ip: str = "") -> None:
    """Write an entry in the transaction of the change it tells of."""
    session.add(AuditRow(at=int(time.time()), who=who[:200], action=action, detail=detail, ip=ip[:45]))


def record(app: Flask, *, who: str, action: str, detail: str = "", ip: str = "") -> None:
    """An entry of its own, for what changes nothing."""
    database.write(app, lambda session: add(session, who=who, action=action, detail=detail, ip=ip))


class Pruning:
    """Call it now and then: once an hour it removes some of what is older than KEPT_DAYS."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PRUNED_EVERY_S
        old = select(AuditRow.id).where(AuditRow.at < int(time.time()) - KEPT_DAYS * 86_400).limit(_PRUNED_AT_ONCE)
        statement = delete(AuditRow).where(AuditRow.id.in_(old))
        database.write(self._app, lambda session: session.execute(statement))


def entries(app: Flask, *, limit: int = 100, before_id: int | None = None) -> list[AuditEntry]:
    """The newest first; `before_id` pages on."""

    def work(session: Session) -> list[AuditEntry]:
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(AuditRow.id < before_id)
        return [AuditEntry(r.id, r.at, r.who, r.action, r.detail, r.ip) for r in session.scalars(query)]

    return database.read(app, work)
