"""Admin accounts of the web interface."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from flask import Flask
from sqlalchemy import delete, exc, func, select
from sqlalchemy.orm import Session
from werkzeug.security import check_password_hash, generate_password_hash

from app.errors import ConfigError, Conflict, InvalidRequest, NotFound
from app.settings import Settings
from app.storage import audit, database
from app.storage.secrets import Vault
from app.storage.tables import AdminRow, EndedSessionRow

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

T = TypeVar("T")
log = logging.getLogger(__name__)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 1000
NOBODY = f"scrypt:32768:8:1${'0' * 16}${'0' * 128}"  # no password has this hash, and finding out takes as long
_threads: dict[int, ThreadPool] = {}  # by process
_FIRST_EPOCHS = 900_000_000
"""SQLite gives the number of a removed account to the next one, whose sessions those of the old one must not be."""
_USERNAME = re.compile(r"[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,98}")


@dataclass(frozen=True)
class Admin:
    """`session_id` names the account in a session, until its password changes."""

    id: int
    username: str
    epoch: int
    created_at: int

    @property
    def session_id(self) -> str:
        return f"{self.id}.{self.epoch}"


def any_exists(app: Flask) -> bool:
    return database.read(app, lambda session: bool(session.scalar(select(func.count()).select_from(AdminRow))))


def create_first(app: Flask, username: str, password: str, *, who: str = "setup", ip: str = "") -> Admin:
    """The account of the first-run set-up. Raises Conflict when there is an admin already, InvalidRequest."""
    return _create(app, username, password, first=True, who=who, ip=ip)


def create(app: Flask, username: str, password: str, *, who: str, ip: str = "") -> Admin:
    """A further account. Raises Conflict when the name is taken, InvalidRequest."""
    return _create(app, username, password, first=False, who=who, ip=ip)


def create_from_environment(app: Flask, settings: Settings) -> Admin | None:
    """ADMIN_USERNAME and ADMIN_PASSWORD make the account once; an account that exists is never touched. Raises
    ConfigError when they cannot."""
    given = {"ADMIN_USERNAME": settings.admin_username, "ADMIN_PASSWORD": settings.admin_password}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == 2 or any_exists(app):
        return None
    if missing:
        log.warning("no admin account was made: %s is missing", missing[0])
        return None
    try:
        return create_first(app, settings.admin_username, settings.admin_password, who="environment")
    except Conflict:
        return None  # another process was faster
    except InvalidRequest as error:
        name = "ADMIN_PASSWORD" if error.param == "password" else "ADMIN_USERNAME"
        raise ConfigError(f"{name}: {error.message}") from None


def verify(app: Flask, username: str, password: str) -> Admin | None:
    """The account, if this is its password; takes as long when there is no such account."""

    def work(session: Session) -> tuple[Admin, str] | None:
        row = session.scalars(select(AdminRow).where(AdminRow.username == username.strip())).first()
        return (_to_admin(row), row.password) if row is not None else None

    found = database.read(app, work) if "\x00" not in username else None
    stored = found[1] if found else NOBODY
    fits = _slowly(lambda: check_password_hash(stored, password[:LONGEST_PASSWORD]))
    return found[0] if found and fits else None


def by_session_id(app: Flask, session_id: str, name: str) -> Admin | None:
    """The account of a session; None once its password was changed, or once the session called `name` has ended."""
    id, _, epoch = session_id.partition(".")
    if not (id.isdecimal() and epoch.isdecimal() and len(id) < 10 and len(epoch) < 10 and name):
        return None

    def work(session: Session) -> Admin | None:
        if session.get(EndedSessionRow, _name_hash(name)) is not None:
            return None
        row = session.get(AdminRow, int(id))
        return _to_admin(row) if row is not None and row.epoch == int(epoch) else None

    return database.read(app, work)


def end_session(app: Flask, name: str, *, lifetime_s: int) -> None:
    """From now on no worker and no node takes a cookie of this session; remembered until the last one has expired."""
    now = int(time.time())

    def work(session: Session) -> None:
        session.execute(delete(EndedSessionRow).where(EndedSessionRow.expires_at < now))
        # A request that was under way has its cookie renewed when it is answered, a little later than now.
        session.merge(EndedSessionRow(name=_name_hash(name), expires_at=now + lifetime_s + 3600))

    with contextlib.suppress(exc.IntegrityError):  # signed out twice at once
        database.write(app, work)


def _name_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def everyone(app: Flask) -> list[Admin]:
    return database.read(
        app, lambda session: [_to_admin(row) for row in session.scalars(select(AdminRow).order_by(AdminRow.username))]
    )


def set_password(app: Flask, username: str, password: str, *, who: str, ip: str = "") -> Admin:
    """Ends every session of the account. Raises NotFound, InvalidRequest."""
    hashed = _hash(password)

    def work(session: Session) -> Admin:
        row = session.scalars(select(AdminRow).where(AdminRow.username == username.strip())).first()
        if row is None:
            raise NotFound(f"There is no admin called {username}.", param="username")
        row.password = hashed
        row.epoch += 1
        audit.add(session, who=who, action="admin.password", detail=row.username, ip=ip)
        session.flush()
        return _to_admin(row)

    return database.write(app, work)


def remove(app: Flask, username: str, *, who: str, ip: str = "") -> None:
    """Its sessions end with it. Raises NotFound, and Conflict for the last account: nobody could sign in any more."""

    def work(session: Session) -> None:
        # Locked, so that two removals at once do not both find another account left.
        rows = session.scalars(select(AdminRow).order_by(AdminRow.id).with_for_update()).all()
        row = next((row for row in rows if row.username == username.strip()), None)
        if row is None:
            raise NotFound(f"There is no admin called {username}.", param="username")
        if len(rows) == 1:
            raise Conflict(f"{row.username} is the only admin. Make another account first.", param="username")
        session.delete(row)
        audit.add(session, who=who, action="admin.remove", detail=row.username, ip=ip)

    database.write(app, work)


def setup_token(vault: Vault) -> str:
    """Stands in the set-up link; the same each time, and worthless once an admin exists."""
    return hmac.new(vault.derive("setup"), b"first admin", hashlib.sha256).hexdigest()[:40]


def is_setup_token(vault: Vault, token: str) -> bool:
    return hmac.compare_digest(setup_token(vault).encode(), token.strip().encode())


def _create(app: Flask, username: str, password: str, *, first: bool, who: str, ip: str) -> Admin:
    username = username.strip()
    if not _USERNAME.fullmatch(username):
        raise InvalidRequest("The user name must be 1 to 99 characters without control characters.", param="username")
    hashed = _hash(password)

    def work(session: Session) -> Admin:
        if first and session.scalar(select(func.count()).select_from(AdminRow)):
            raise Conflict("There is an admin already.")
        for taken in session.scalars(select(AdminRow.username)):
            if taken.casefold() == username.casefold():  # in the log and in people's eyes they would be one
                raise Conflict(f"There is an admin {taken} already.", param="username")
        row = AdminRow(
            username=username,
            password=hashed,
            epoch=1 + secrets.randbelow(_FIRST_EPOCHS),
            slot=1 if first else None,
            created_at=int(time.time()),
        )
        session.add(row)
        audit.add(session, who=who, action="admin.create", detail=username, ip=ip)
        session.flush()
        return _to_admin(row)

    try:
        return database.write(app, work)
    except exc.IntegrityError:
        message = "There is an admin already." if first else f"There is an admin {username} already."
        raise Conflict(message, param="username") from None


def _hash(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        message = f"The password must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters."
        raise InvalidRequest(message, param="password")
    return _slowly(lambda: generate_password_hash(password, method="scrypt"))


def _slowly(function: Callable[[], T]) -> T:
    """scrypt takes a tenth of a second of CPU: in a native thread the worker's streams go on meanwhile. Not in one
    of the hub's own, where many sign-ins at once would hold up name resolution."""
    if not database.under_gevent():
        return function()
    from gevent.threadpool import ThreadPool

    pid = os.getpid()
    if pid not in _threads:
        _threads[pid] = ThreadPool(2)
    answer: T = _threads[pid].apply(function)
    return answer


def _to_admin(row: AdminRow) -> Admin:
    return Admin(row.id, row.username, row.epoch, row.created_at)
