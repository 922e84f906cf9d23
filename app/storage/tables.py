"""Every table. Rows stay in storage/, which hands out frozen dataclasses.

Times are Unix seconds. Secrets are encrypted (Vault) or hashed before they come here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, Integer, PrimaryKeyConstraint, String, Text, text
from sqlalchemy.orm import Mapped, configure_mappers, mapped_column

from app.extensions import Base

# SQLite counts rows up by itself only in a column that is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


class SettingRow(Base):
    """A runtime setting that an admin changed: JSON, encrypted when `encrypted`."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    encrypted: Mapped[bool]


class GenerationRow(Base):
    """One row. `number` grows with every change that workers must notice; whoever changes something locks the row
    first, so that changes happen one after the other. `salt` makes connection ids that outlive the secret key."""

    __tablename__ = "generation"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    salt: Mapped[str] = mapped_column(String(64))


class HistoryRow(Base):
    """The runtime settings as they were before one change: `previous` is an encrypted JSON object of all overrides."""

    __tablename__ = "history"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(String(200))
    fields: Mapped[str] = mapped_column(Text)
    previous: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger)


class AdminRow(Base):
    """`slot` is 1 for the account that the set-up made: unique, so that two set-ups cannot both win. `epoch` stands
    in every session; counting it up ends them."""

    __tablename__ = "admins"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    username: Mapped[str] = mapped_column(String(100), unique=True)
    password: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int] = mapped_column(Integer)
    slot: Mapped[int | None] = mapped_column(Integer, unique=True)
    created_at: Mapped[int] = mapped_column(BigInteger)


class EndedSessionRow(Base):
    """A session that was signed out before its cookies expired; `name` is the SHA-256 of what they call it."""

    __tablename__ = "ended_sessions"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class ClientKeyRow(Base):
    """`models` is a JSON array, null for all. `last_used_at` is coarse: written once a minute by each worker."""

    __tablename__ = "client_keys"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str] = mapped_column(String(200))
    scope: Mapped[str] = mapped_column(String(20))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    last_four: Mapped[str] = mapped_column(String(4))
    models: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(200))
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)


class AuditRow(Base):
    """Who did what; `detail` never holds a secret."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    who: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(60))
    detail: Mapped[str] = mapped_column(Text)
    ip: Mapped[str] = mapped_column(String(45))


class RememberedAnswerRow(Base):
    """An answer of Claude's whose blocks a client may not return: `blocks` is encrypted JSON of `size` bytes, `name` an
    HMAC that only somebody with the secret key can compute."""

    __tablename__ = "remembered_answers"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    blocks: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class _Tokens:
    """In a roll-up the sums of them."""

    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_5m_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_1h_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    thinking_tokens: Mapped[int] = mapped_column(BigInteger)
    searches: Mapped[int] = mapped_column(BigInteger)


class RequestRow(_Tokens, Base):
    """The books: one request that went upstream. `id` is what the client knows it by and begins with its time, `at` is
    in milliseconds; `cost_micros` null is a cost that is not known; `upstream_ids`, `warnings` (by commas) and `parts`
    (JSON: what a request of several messages or tries was made of) are null for none."""

    __tablename__ = "requests"
    __table_args__ = (Index("ix_requests_key_id_id", "key_id", "id"), {"sqlite_with_rowid": False})
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)
    key_id: Mapped[str] = mapped_column(String(40))
    user_ref: Mapped[str | None] = mapped_column(String(128))
    tag: Mapped[str | None] = mapped_column(String(64))
    route: Mapped[str] = mapped_column(String(60))
    model_asked: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(200))
    connection: Mapped[str] = mapped_column(String(60))
    attempts: Mapped[int] = mapped_column(Integer)
    upstream_ids: Mapped[str | None] = mapped_column(Text)
    status: Mapped[int] = mapped_column(Integer)
    ending: Mapped[str] = mapped_column(String(20))
    stream: Mapped[bool]
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    saved_micros: Mapped[int | None] = mapped_column(BigInteger)
    cost_state: Mapped[str] = mapped_column(String(10))
    price_version: Mapped[str | None] = mapped_column(String(40))
    tier: Mapped[str | None] = mapped_column(String(20))
    speed: Mapped[str | None] = mapped_column(String(20))
    geo: Mapped[str | None] = mapped_column(String(20))
    ttft_ms: Mapped[int | None] = mapped_column(Integer)
    duration_ms: Mapped[int] = mapped_column(Integer)
    client: Mapped[str | None] = mapped_column(String(64))
    warnings: Mapped[str | None] = mapped_column(Text)
    parts: Mapped[str | None] = mapped_column(Text)


class _Sums(_Tokens):
    """Of requests; `cost_micros` is of those whose cost is known."""

    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    connection: Mapped[str] = mapped_column(String(60), primary_key=True)
    ending: Mapped[str] = mapped_column(String(20), primary_key=True)
    requests: Mapped[int] = mapped_column(Integer)
    unknown: Mapped[int] = mapped_column(Integer)
    estimated: Mapped[int] = mapped_column(Integer)
    cost_micros: Mapped[int] = mapped_column(BigInteger)
    saved_micros: Mapped[int] = mapped_column(BigInteger)


class UsageHourRow(_Sums, Base):
    """`hour` is counted from 1970 in UTC."""

    __tablename__ = "usage_hours"
    __table_args__ = (PrimaryKeyConstraint("hour", "model", "connection", "ending"), {"sqlite_with_rowid": False})
    hour: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class UsageKeyRow(_Sums, Base):
    """The same by client key, apart: a sum over all keys must not read a row for each of them. What a key used in a day
    lies together, and so does a day."""

    __tablename__ = "usage_keys"
    __table_args__ = (
        PrimaryKeyConstraint("day", "key_id", "hour", "model", "connection", "ending"),
        {"sqlite_with_rowid": False},
    )
    day: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    hour: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


def _where(condition: str) -> dict[str, Any]:
    """Of an index of some rows alone."""
    return {f"{dialect}_where": text(condition) for dialect in ("sqlite", "postgresql")}


class UsageFoldRow(_Sums, Base):
    """Sums of a span of `size` hours by some of the names, "" for the others: see folds.py."""

    __tablename__ = "usage_folds"
    __table_args__ = (
        PrimaryKeyConstraint("fold", "size", "span", "model", "connection", "ending", "user_ref", "tag", "key_id"),
        Index("ix_usage_folds_key_id", "key_id", "fold", "size", "span", **_where("key_id <> ''")),
        Index("ix_usage_folds_user_ref", "user_ref", "fold", "size", "span", **_where("user_ref <> ''")),
        {"sqlite_with_rowid": False},
    )
    fold: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    span: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    user_ref: Mapped[str] = mapped_column(String(128), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(40), primary_key=True)


class UsageFoldedRow(Base):
    """The mark of a span of which the folds are made, or are being made since `began_at` (Unix seconds)."""

    __tablename__ = "usage_folded"
    size: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    span: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(String(16))
    is_done: Mapped[bool]
    began_at: Mapped[int] = mapped_column(BigInteger)


class UsageTimeRow(Base):
    """How many requests of an hour took how long: `what` is ttft or duration, `bucket` one of ledger.BOUNDS_MS."""

    __tablename__ = "usage_times"
    __table_args__ = ({"sqlite_with_rowid": False},)
    hour: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    connection: Mapped[str] = mapped_column(String(60), primary_key=True)
    what: Mapped[str] = mapped_column(String(10), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    n: Mapped[int] = mapped_column(Integer)


class UsageUserRow(Base):
    """By whom a client spoke for, and the tag that it gave, where it told either; else "" for it."""

    __tablename__ = "usage_users"
    __table_args__ = (
        Index("ix_usage_users_key_id_hour", "key_id", "hour"),
        Index("ix_usage_users_user_ref_hour", "user_ref", "hour"),
        {"sqlite_with_rowid": False},
    )
    hour: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    user_ref: Mapped[str] = mapped_column(String(128), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True)
    requests: Mapped[int] = mapped_column(Integer)
    unknown: Mapped[int] = mapped_column(Integer)
    tokens_in: Mapped[int] = mapped_column(BigInteger)
    tokens_out: Mapped[int] = mapped_column(BigInteger)
    cost_micros: Mapped[int] = mapped_column(BigInteger)


# At once, and not when it is first needed: the threads of the database would meet in a lock that is gevent's, and hang.
configure_mappers()
