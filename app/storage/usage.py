"""The rows of the books, in the ways that programs and pages ask for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Flask
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.money.reconcile import Booked
from app.storage import database
from app.storage.ledger import TOKENS, WHOLE, Entry, as_entry, charges_of, id_at, ms_of
from app.storage.tables import ClientKeyRow, RequestRow
from app.storage.usage_sums import Filter

_CHARGED_AT_ONCE = 2_000
_LOOKED_AT = 10_000
"""Rows, for one page of those that a filter without an index leaves."""


@dataclass(frozen=True)
class Page:
    rows: list[dict[str, Any]]
    next: str | None
    """The id to ask for the next ones with; None where there are none."""


def page(
    app: Flask,
    begin: datetime,
    end: datetime,
    filter: Filter,
    *,
    limit: int,
    before: str | None = None,
    after: str | None = None,
) -> Page:
    """The newest first; those before an id, or the next that came after one."""
    listed = app.extensions["dragoman"].keys.listed_names()
    return database.read(app, lambda session: _page(session, begin, end, filter, limit, before, after, listed))


def _page(
    session: Session,
    begin: datetime,
    end: datetime,
    filter: Filter,
    limit: int,
    before: str | None,
    after: str | None,
    listed: Mapping[str, str],
) -> Page:
    row = RequestRow
    ahead = after is not None
    low, high = id_at(ms_of(begin)), id_at(ms_of(end))
    high = min(high, before) if before else high
    first = row.id > after if after is not None and after >= low else row.id >= low
    within = [first, row.id < high, *([row.key_id == filter.key] if filter.key is not None else [])]
    order = row.id.asc() if ahead else row.id.desc()
    rare, go_on = _conditions(filter), None
    if rare:  # without an index: only so many are looked at, and the cursor goes on from there
        some = select(row.id).where(*within).order_by(order).limit(_LOOKED_AT).subquery()
        count, lowest, highest = session.execute(select(func.count(), func.min(some.c.id), func.max(some.c.id))).one()
        if count == _LOOKED_AT:
            go_on = highest if ahead else lowest
            # Instead of the bound that is wider: SQLite would go through all that lies within it.
            within[1 if ahead else 0] = row.id <= highest if ahead else row.id >= lowest
    chosen = select(row).where(*within, *rare)
    found = list(session.scalars(chosen.order_by(order).limit(limit + 1)))
    names = _names_of(session, {each.key_id for each in found}, listed)
    more = found[limit - 1].id if len(found) > limit else go_on
    rows = [_told(each, names) for each in found[:limit]]
    return Page(rows[::-1] if ahead else rows, more)


def _conditions(filter: Filter) -> list[ColumnElement[bool]]:
    row = RequestRow
    plain = {
        "model": row.model,
        "connection": row.connection,
        "ending": row.ending,
        "user": row.user_ref,
        "tag": row.tag,
    }
    made: list[ColumnElement[bool]] = [plain[name] == value for name, value in filter.of(plain).items()]
    if filter.state is not None:
        made.append(row.cost_state == filter.state)
    if filter.warning is not None:
        made.append(("," + row.warnings + ",").contains(f",{filter.warning},", autoescape=True))
    if filter.min_cost is not None:
        made.append(row.cost_micros >= filter.min_cost)
    if filter.tries is not None:
        made.append(row.attempts >= filter.tries)
    return made


def charged(app: Flask, begin: datetime, end: datetime, connections: Collection[str]) -> Iterator[Booked]:
    """What was charged on some connections for requests that began from `begin` on and before `end`."""
    after, last = id_at(ms_of(begin)), id_at(ms_of(end))
    while True:

        def work(session: Session, after: str = after) -> list[Entry]:
            chosen = select(RequestRow).where(RequestRow.id > after, RequestRow.id < last)
            return list(map(as_entry, session.scalars(chosen.order_by(RequestRow.id).limit(_CHARGED_AT_ONCE))))

        rows = database.read(app, work)
        for row in rows:
            at = datetime.fromtimestamp((row.at + (row.ttft_ms or 0)) / 1000, UTC)
            ids = row.upstream_ids.split(",") if row.upstream_ids else ()
            is_whole = row.ending in WHOLE
            yield from (Booked(row.id, at, c, ids, is_whole) for c in charges_of(row) if c.connection in connections)
        if len(rows) < _CHARGED_AT_ONCE:
            return
        after = rows[-1].id


def one(app: Flask, id: str) -> dict[str, Any] | None:
    listed = app.extensions["dragoman"].keys.listed_names()

    def work(session: Session) -> dict[str, Any] | None:
        row = session.get(RequestRow, id)
        return None if row is None else _told(row, _names_of(session, {row.key_id}, listed))

    return database.read(app, work)


def _names_of(session: Session, ids: Iterable[str], listed: Mapping[str, str]) -> Mapping[str, tuple[str, str | None]]:
    """Of client keys, what they are called and whose they are; `listed` are those of the environment."""
    chosen = select(ClientKeyRow.id, ClientKeyRow.name, ClientKeyRow.owner).where(ClientKeyRow.id.in_(list(ids)))
    made = {id: (name, owner) for id, name, owner in session.execute(chosen)}
    return {**{id: (name, None) for id, name in listed.items()}, **made}


FIELDS = (
    *("id", "at", "key_id", "key_name", "owner", "client", "user_ref", "tag", "route", "model_asked", "model"),
    *("connection", "attempts", "status", "ending", "stream"),
    *TOKENS,
    *("cost_micros", "saved_micros", "cost_state", "price_version", "tier", "speed", "geo", "ttft_ms", "duration_ms"),
    *("warnings", "upstream_ids", "parts"),
)


def _told(row: RequestRow, names: Mapping[str, tuple[str, str | None]]) -> dict[str, Any]:
    told = {name: getattr(row, name, None) for name in FIELDS}
    told["at"] = datetime.fromtimestamp(row.at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told["key_name"], told["owner"] = names.get(row.key_id, (None, None))
    told["parts"] = orjson.loads(row.parts) if row.parts else None
    told["warnings"] = row.warnings.split(",") if row.warnings else []
    told["upstream_ids"] = row.upstream_ids.split(",") if row.upstream_ids else []
    return told
