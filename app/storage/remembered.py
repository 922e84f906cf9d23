"""Answers that the gateway remembers for a day: encrypted, apart by connection, client key and model, bounded in number
and size. All workers and nodes share them; one that is not found is never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from flask import Flask
from sqlalchemy import bindparam, delete, func, select
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
MOST_CACHED = 10_000
MOST_CACHED_BYTES = 8 * 1024 * 1024
_SWEPT_EVERY_S = 60.0
_DELETED_AT_ONCE = 5000
_PURPOSE = "remembered answers"

_CACHED_S = 600.0
_PAUSE_S = 10.0
_LOOK_UP = select(RememberedAnswerRow.name, RememberedAnswerRow.blocks).where(
    RememberedAnswerRow.name.in_(bindparam("names", expanding=True)),
    RememberedAnswerRow.expires_at > bindparam("now"),
)


@cache
def _upsert(dialect: str) -> Any:
    """Made once: each would leave circles behind. Each dialect takes megabytes, and only one of them is used."""
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert(RememberedAnswerRow.__table__)
    newer = {column: insert.excluded[column] for column in ("blocks", "size", "expires_at")}
    return insert.on_conflict_do_update(index_elements=["name"], set_=newer)


@dataclass(frozen=True)
class Scope:
    """Whose answers: only what came under the same credential, for the same caller and model, is given back."""

    connection: str
    caller: str
    family: str


class _Cache:
    """What was looked up or kept lately: each turn of a conversation asks for all turns before it. None stands for what
    was not found: an answer is kept before its client has it, so that one which was not there does not come later."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        self._size = 0

    def __contains__(self, name: str) -> bool:
        entry = self._values.get(name)
        if entry is not None and time.monotonic() - entry[0] > _CACHED_S:
            self._drop(name)
            return False
        return entry is not None

    def get(self, name: str) -> bytes | None:
        self._values.move_to_end(name)
        return self._values[name][1]

    def put(self, name: str, value: bytes | None) -> None:
        if name in self._values:
            self._drop(name)
        if value is not None:
            value = memoryview(value).tobytes()  # what orjson made takes at least 4 KB, however short it is
        self._values[name] = (time.monotonic(), value)
        self._size += len(value or b"")
        while len(self._values) > MOST_CACHED or self._size > MOST_CACHED_BYTES:
            self._drop(next(iter(self._values)))

    def _drop(self, name: str) -> None:
        self._size -= len(self._values.pop(name)[1] or b"")


class RememberedAnswers:
    def __init__(self, app: Flask, vault: Vault, writer: GroupedWriter) -> None:
        self._app = app
        self._vault = vault
        self._writer = writer
        self._swept_at = time.monotonic()
        self._cache = _Cache()
        self._away_until = 0.0

    def remember(self, scope: Scope, answers: Iterable[tuple[str, bytes]]) -> None:
        """Keeps (name, value) pairs; committed when this returns. That one cannot be kept is logged, not raised."""
        key = self._vault.derive(_PURPOSE)
        kept = {_hidden(key, scope, name): value for name, value in answers if len(value) <= LARGEST_BYTES}
        rows = [self._row(hidden, value) for hidden, value in kept.items()]
        if not rows:
            return
        sweeps = time.monotonic() - self._swept_at > _SWEPT_EVERY_S
        if sweeps:
            self._swept_at = time.monotonic()

        def work(session: Session) -> None:
            session.execute(_upsert(session.get_bind().dialect.name), rows)
            if sweeps:
                sweep(session, int(time.time()))

        for hidden, value in kept.items():
            self._cache.put(hidden, value)
        if self._is_away():
            return
        try:
            self._writer.write(work)
        except DatabaseUnavailable as error:
            self._pause("an answer could not be remembered", error)

    def recall(self, scopes: Collection[Scope], names: Collection[str]) -> dict[Scope, dict[str, bytes]]:
        """What is known of `names`, by scope."""
        wanted: Mapping[str, tuple[Scope, str]] = {
            _hidden(key, scope, name): (scope, name)
            for key in self._vault.derive_from_each(_PURPOSE)  # while it is rotated, some were kept under the other one
            for scope in scopes
            for name in names
        }
        known = {hidden: self._cache.get(hidden) for hidden in wanted if hidden in self._cache}
        unknown = [hidden for hidden in wanted if hidden not in known]
        if unknown and not self._is_away():
            stored: dict[str, bytes] = {}
            try:
                stored = self._stored(unknown)
            except DatabaseUnavailable as error:
                self._pause("no answer could be recalled", error)
            else:
                for hidden in unknown:
                    self._cache.put(hidden, stored.get(hidden))
            known.update(stored)
        found: dict[Scope, dict[str, bytes]] = {scope: {} for scope in scopes}
        for hidden, (scope, name) in wanted.items():
            value = known.get(hidden)
            if value is not None:
                found[scope].setdefault(name, value)
        return found

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _pause(self, what: str, error: DatabaseUnavailable) -> None:
        """A database that is away makes its callers wait: not each answer in turn for what is only a help."""
        self._away_until = time.monotonic() + _PAUSE_S
        log.warning("%s: %s", what, error.message)

    def _stored(self, names: Sequence[str]) -> dict[str, bytes]:
        values = {"names": names, "now": int(time.time())}
        rows = database.read(self._app, lambda session: [tuple(row) for row in session.execute(_LOOK_UP, values)])
        stored = {}
        for hidden, token in rows:
            with contextlib.suppress(Undecryptable):  # of an earlier secret key, which is gone
                stored[hidden] = zlib.decompress(self._vault.decrypt_bytes(token))
        return stored

    def _row(self, hidden: str, value: bytes) -> dict[str, str | int]:
        token = self._vault.encrypt_bytes(zlib.compress(value, 1))
        return {
            "name": hidden,
            "blocks": token,
            "size": len(token),
            "expires_at": int(time.time()) + KEPT_S,
        }


def _hidden(key: bytes, scope: Scope, name: str) -> str:
    told = "\0".join((scope.connection, scope.caller, scope.family, name))
    return hmac.new(key, told.encode(), hashlib.sha256).hexdigest()


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
