"""Client keys: who may call the API. Shown once, stored as SHA-256.

GATEWAY_API_KEYS and ADMIN_API_KEYS are valid exactly while the environment lists them. A key of the database is looked
up once and then held in memory until the generation moves, which creating and revoking a key make it do.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import orjson
from flask import Flask
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.errors import InvalidRequest, NotFound
from app.settings import Settings
from app.storage import audit, database
from app.storage.tables import ClientKeyRow

T = TypeVar("T")
Scope = Literal["client", "admin"]
MOST_CACHED = 10_000
USE_WRITTEN_EVERY_S = 60
OUR_PREFIX = "sk-dgm-"
_OURS = re.compile(rf"{OUR_PREFIX}(admin-)?[A-Za-z0-9_-]{{40}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class ClientKey:
    """A valid key. `models` None means all; `expires_at` in Unix seconds."""

    id: str
    name: str
    scope: Scope
    models: tuple[str, ...] | None = None
    expires_at: int | None = None
    owner: str = ""


@dataclass(frozen=True)
class StoredKey(ClientKey):
    """A key as the admin sees it, revoked and expired ones too."""

    masked: str = ""
    created_at: int = 0
    created_by: str = ""
    revoked_at: int | None = None
    last_used_at: int | None = None


@dataclass
class _Cache:
    """What is known at one generation. Replaced as a whole, so that a slow look-up fills only the old one."""

    generation: int
    found: dict[str, ClientKey] = field(default_factory=dict)
    unknown: dict[str, str | None] = field(default_factory=dict)
    """What is no valid key, with the id of one that was revoked."""


class KeyRing:
    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._listed: dict[str, ClientKey] = {}
        for scope, variable, listed in (
            ("client", "GATEWAY_API_KEYS", settings.gateway_api_keys),
            ("admin", "ADMIN_API_KEYS", settings.admin_api_keys),
        ):
            for index, secret in enumerate(listed):
                digest = _sha256(secret)
                key = ClientKey(f"env_{digest[:16]}", f"{variable}[{index}]", "admin" if scope == "admin" else "client")
                self._listed[digest] = key
        self._cache = _Cache(-1)
        self._used: dict[str, int] = {}
        self._use_written_at = time.monotonic()

    def listed_names(self) -> dict[str, str]:
        """Of the keys of the environment, by id."""
        return {key.id: key.name for key in self._listed.values()}

    def authenticate(self, secret: str) -> ClientKey | None:
        """The valid key that `secret` is, without I/O for one seen before. Raises DatabaseUnavailable."""
        digest = _sha256(secret)  # what is compared is a hash: how long it takes tells nothing of a key
        listed = self._listed.get(digest)
        if listed is not None:
            return listed
        if _OURS.fullmatch(secret) is None:
            return None
        generation = self._app.extensions["dragoman"].config.snapshot.generation
        cache = self._cache
        if cache.generation != generation:
            cache = self._cache = _Cache(generation)
        key = cache.found.get(digest)
        if key is None:
            if digest in cache.unknown:
                return None
            stored = self._look_up(digest)
            if stored is None or stored.revoked_at is not None:
                _put(cache.unknown, digest, None if stored is None else stored.id)
                return None
            key = _without_history(stored)
            _put(cache.found, digest, key)
        now = int(time.time())
        if key.expires_at is not None and key.expires_at <= now:
            return None
        self._used[key.id] = now
        return key

    def former(self, secret: str) -> str | None:
        """For the log, of a secret that authenticate() has just refused: the id of the key that it was and why it is
        none any more; None if it never was one."""
        digest, cache = _sha256(secret), self._cache
        if digest in cache.found:
            return f"{cache.found[digest].id}(expired)"
        revoked = cache.unknown.get(digest)
        return revoked and f"{revoked}(revoked)"

    def create(
        self,
        *,
        name: str,
        who: str,
        owner: str = "",
        scope: Scope = "client",
        models: Sequence[str] | None = None,
        expires_at: int | None = None,
        ip: str = "",
    ) -> tuple[StoredKey, str]:
        """The new key and its secret, which cannot be had again. Raises InvalidRequest, DatabaseUnavailable."""
        name = _checked_text("name", name)
        owner = _checked_text("owner", owner, may_be_empty=True)
        if scope not in ("client", "admin"):
            raise InvalidRequest("scope must be 'client' or 'admin'.", param="scope")
        if expires_at is not None and expires_at <= time.time():
            raise InvalidRequest("expires_at must be in the future.", param="expires_at")
        allowed = None if models is None else tuple(_checked_text("models", model) for model in models)
        secret = f"{OUR_PREFIX}{'admin-' if scope == 'admin' else ''}{secrets.token_urlsafe(30)}"
        row = ClientKeyRow(
            id=f"key_{secrets.token_hex(8)}",
            name=name,
            owner=owner,
            scope=scope,
            sha256=_sha256(secret),
            last_four=secret[-4:],
            models=None if allowed is None else orjson.dumps(allowed).decode(),
            expires_at=expires_at,
            created_at=int(time.time()),
            created_by=who[:200],
        )

        def work(session: Session) -> StoredKey:
            self._bump(session)
            session.add(row)
            audit.add(session, who=who, action="keys.create", detail=f"{row.id} {name} ({scope})", ip=ip)
            session.flush()
            return _to_stored(row)

        made = database.write(self._app, work)
        self._follow()
        return made, secret

    def list(self, *, limit: int | None = None, before: str | None = None) -> list[StoredKey]:
        """The newest first; the environment's keys are not among them. `before` is the id of the last one of the page
        before; where there is no such key, the list begins anew."""

        def work(session: Session) -> list[StoredKey]:
            query = select(ClientKeyRow).order_by(ClientKeyRow.created_at.desc(), ClientKeyRow.id)
            last = session.get(ClientKeyRow, before) if before else None
            if last is not None:
                later = ClientKeyRow.created_at < last.created_at
                query = query.where(
                    or_(later, and_(ClientKeyRow.created_at == last.created_at, ClientKeyRow.id > last.id))
                )
            return [_to_stored(row) for row in session.scalars(query.limit(limit))]

        return database.read(self._app, work)

    def find(self, id: str) -> StoredKey | None:
        """A key of the database, revoked and expired ones too."""

        def work(session: Session) -> StoredKey | None:
            row = session.get(ClientKeyRow, id)
            return _to_stored(row) if row is not None else None

        return database.read(self._app, work)

    def count_valid(self) -> int:
        """Of the database's."""
        now = int(time.time())
        lasts = or_(ClientKeyRow.expires_at.is_(None), ClientKeyRow.expires_at > now)
        query = select(func.count()).select_from(ClientKeyRow).where(ClientKeyRow.revoked_at.is_(None), lasts)
        return database.read(self._app, lambda session: session.scalar(query) or 0)

    def revoke(self, id: str, *, who: str, ip: str = "") -> StoredKey:
        """From now on refused, by every worker within a second. Raises NotFound."""

        def work(session: Session) -> StoredKey:
            self._bump(session)
            row = session.get(ClientKeyRow, id)
            if row is None:
                raise NotFound(f"There is no key {id}.", param="id")
            if row.revoked_at is None:
                row.revoked_at = int(time.time())
                audit.add(session, who=who, action="keys.revoke", detail=f"{row.id} {row.name}", ip=ip)
            session.flush()
            return _to_stored(row)

        revoked = database.write(self._app, work)
        self._follow()
        return revoked

    def write_use(self) -> None:
        """Note when keys were last used, once a minute; watch() calls this."""
        if not self._used or time.monotonic() - self._use_written_at < USE_WRITTEN_EVERY_S:
            return
        used, self._used = self._used, {}
        self._use_written_at = time.monotonic()

        def work(session: Session) -> None:
            for id, at in sorted(used.items()):
                session.execute(update(ClientKeyRow).where(ClientKeyRow.id == id).values(last_used_at=at))

        database.write(self._app, work)

    def _look_up(self, digest: str) -> StoredKey | None:
        def work(session: Session) -> StoredKey | None:
            row = session.scalars(select(ClientKeyRow).where(ClientKeyRow.sha256 == digest)).first()
            return _to_stored(row) if row is not None else None

        return database.read(self._app, work)

    def _bump(self, session: Session) -> None:
        self._app.extensions["dragoman"].config.bump(session)

    def _follow(self) -> None:
        self._app.extensions["dragoman"].config.refresh()


def _put(cache: dict[str, T], digest: str, value: T) -> None:
    if len(cache) >= MOST_CACHED:
        cache.pop(next(iter(cache)), None)
    cache[digest] = value


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _scope(text: str) -> Scope:
    return "admin" if text == "admin" else "client"


def _models(row: ClientKeyRow) -> tuple[str, ...] | None:
    return None if row.models is None else tuple(orjson.loads(row.models))


def _without_history(key: StoredKey) -> ClientKey:
    return ClientKey(key.id, key.name, key.scope, key.models, key.expires_at, key.owner)


def _to_stored(row: ClientKeyRow) -> StoredKey:
    return StoredKey(
        id=row.id,
        name=row.name,
        scope=_scope(row.scope),
        models=_models(row),
        expires_at=row.expires_at,
        owner=row.owner,
        masked=f"{OUR_PREFIX}{'admin-' if row.scope == 'admin' else ''}…{row.last_four}",
        created_at=row.created_at,
        created_by=row.created_by,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _checked_text(field: str, value: str, *, may_be_empty: bool = False) -> str:
    text = value.strip()
    if len(text) > 200 or _CONTROL.search(text) or not (text or may_be_empty):
        raise InvalidRequest(f"{field} must be 1 to 200 characters without control characters.", param=field)
    return text
