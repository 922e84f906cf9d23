"""Every table. Rows stay in storage/, which hands out frozen dataclasses.

Times are Unix seconds. Secrets are encrypted (Vault) or hashed before they come here.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text
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


# At once, and not when it is first needed: the threads of the database would meet in a lock that is gevent's, and hang.
configure_mappers()
