"""Answers that the gateway remembers for a day: encrypted, apart by connection, client key and model, bounded in number
and size. All workers and nodes share them; one that is not found is never an error.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flask import Flask
from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.storage import database
from app.storage.secrets import Undecryptable, Vault
from app.storage.tables import RememberedAnswerRow
from app.storage.writer import GroupedWriter

log = logging.getLogger(__name__)
KEPT_S = 24 * 3600
MOST_ROWS = 200_000
MOST_BYTES = 512 * 1024 * 1024
LARGEST_BYTES = 1024 * 1024
_SWEPT_EVERY_S = 60.0
_DELETED_AT_ONCE = 5000


@dataclass(frozen=True)
class Scope:
    """Whose answers: only what came under the same credential, for the same caller and model, is given back."""

    connection: str
    caller: str
    family: str


class RememberedAnswers:
    def __init__(self, app: Flask, vault: Vault, writer: GroupedWriter) -> None:
        self._app = app
        self._vault = vault
        self._writer = writer
        self._swept_at = time.monotonic()

    def remember(self, scope: Scope, answers: Iterable[tuple[str, bytes]]) -> None:
        """Keeps (name, value) pairs; committed when this returns. That one cannot be kept is logged, not raised."""
        rows = [self._row(scope, name, value) for name, value in answers if len(value) <= LARGEST_BYTES]
        if not rows:
            return
        sweeps = time.monotonic() - self._swept_at > _SWEPT_EVERY_S
        if sweeps:
            self._swept_at = time.monotonic()

        def work(session: Session) -> None:
            dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
            for row in rows:
                insert = dialect.insert(RememberedAnswerRow).values(**row)
                newer = {column: insert.excluded[column] for column in ("blocks", "size", "expires_at")}
                session.execute(insert.on_conflict_do_update(index_elements=["name"], set_=newer))
            if sweeps:
                sweep(session, int(time.time()))

        try:
            self._writer.write(work)
        except DatabaseUnavailable as error:
            log.warning("an answer could not be remembered: %s", error.message)

    def recall(self, scopes: Collection[Scope], names: Collection[str]) -> dict[Scope, dict[str, bytes]]:
        """What is known of `names`, by scope."""
        wanted: Mapping[str, tuple[Scope, str]] = {
            self._hidden(scope, name): (scope, name) for scope in scopes for name in names
        }
        found: dict[Scope, dict[str, bytes]] = {scope: {} for scope in scopes}
        if not wanted:
            return found
        query = select(RememberedAnswerRow.name, RememberedAnswerRow.blocks).where(
            RememberedAnswerRow.name.in_(wanted), RememberedAnswerRow.expires_at > int(time.time())
        )
        try:
            rows = database.read(self._app, lambda session: [tuple(row) for row in session.execute(query)])
        except DatabaseUnavailable as error:
            log.warning("no answer could be recalled: %s", error.message)
            return found
        for hidden, token in rows:
            scope, name = wanted[hidden]
            try:
                found[scope][name] = zlib.decompress(self._vault.decrypt_bytes(token))
            except Undecryptable:
                continue  # of an earlier secret key, which is gone
        return found

    def _row(self, scope: Scope, name: str, value: bytes) -> dict[str, str | int]:
        token = self._vault.encrypt_bytes(zlib.compress(value, 1))
        return {
            "name": self._hidden(scope, name),
            "blocks": token,
            "size": len(token),
            "expires_at": int(time.time()) + KEPT_S,
        }

    def _hidden(self, scope: Scope, name: str) -> str:
        told = "\0".join((scope.connection, scope.caller, scope.family, name))
        return hmac.new(self._vault.derive("remembered answers"), told.encode(), hashlib.sha256).hexdigest()


def sweep(session: Session, now: int) -> None:
    """Deletes what has expired, and the oldest of what is too much."""
    session.execute(delete(RememberedAnswerRow).where(RememberedAnswerRow.expires_at <= now))
    count, size = session.execute(
        select(func.count(), func.coalesce(func.sum(RememberedAnswerRow.size), 0)).select_from(RememberedAnswerRow)
    ).one()
    while count > MOST_ROWS or size > MOST_BYTES:
        oldest = session.execute(
            select(RememberedAnswerRow.id, RememberedAnswerRow.size)
            .order_by(RememberedAnswerRow.expires_at, RememberedAnswerRow.id)
            .limit(_DELETED_AT_ONCE)
        ).all()
        dropped: list[int] = []
        for id, bytes_of_it in oldest:
            if count <= MOST_ROWS and size <= MOST_BYTES:
                break
            dropped.append(id)
            count, size = count - 1, size - bytes_of_it
        if not dropped:
            return
        session.execute(delete(RememberedAnswerRow).where(RememberedAnswerRow.id.in_(dropped)))
