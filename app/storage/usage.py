"""What the books say, in the ways that programs and pages ask: sums, series of them, and rows.

Whole hours are read from the roll-ups, what an edge cuts off an hour from the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Any, Literal

import orjson
from flask import Flask
from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    String,
    case,
    column,
    func,
    literal,
    select,
    union_all,
    values,
)
from sqlalchemy.orm import Session

from app.money.reconcile import Booked
from app.storage import database
from app.storage.ledger import HOUR_MS, TOKENS, WHOLE, Entry, as_entry, charges_of, id_at
from app.storage.tables import ClientKeyRow, RequestRow, UsageHourRow, UsageKeyRow, UsageUserRow

SUMS = ("requests", "unknown", "estimated", *TOKENS, "cost_micros", "saved_micros")
GROUPS = ("key", "model", "connection", "ending", "user", "tag")
INTERVALS = ("hour", "day", "week", "month")
Interval = Literal["hour", "day", "week", "month"]
MOST_BUCKETS = 2_000
_OF_USERS = ("user", "tag")
_COLUMNS = {"key": "key_id", "user": "user_ref"}
_CHARGED_AT_ONCE = 2_000
_LOOKED_AT = 20_000
"""Rows, for one page of those that a filter without an index leaves."""

Sums = dict[str, int]


@dataclass(frozen=True)
class Filter:
    """None for all. The second half holds for rows alone."""

    key: str | None = None
    model: str | None = None
    connection: str | None = None
    ending: str | None = None
    user: str | None = None
    tag: str | None = None
    state: str | None = None
    warning: str | None = None
    min_cost: int | None = None
    tries: int | None = None

    def of(self, names: Iterable[str]) -> dict[str, str]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Page:
    rows: list[dict[str, Any]]
    next: str | None
    """The id to ask for the next ones with; None where there are none."""


def edges(begin: datetime, end: datetime, interval: Interval, zone: tzinfo) -> list[int]:
    """Where buckets begin and the last ends, in Unix milliseconds: whole hours (of UTC), days, weeks (from Monday) or
    months of the zone, and the two ends themselves. More than MOST_BUCKETS are cut off."""
    made, at = [_ms(begin)], begin
    while at < end and len(made) <= MOST_BUCKETS + 1:
        at = min(_next(at, interval, zone), end)
        made.append(_ms(at))
    return made


def _next(at: datetime, interval: Interval, zone: tzinfo) -> datetime:
    if interval == "hour":
        return at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    day = at.astimezone(zone).date()
    match interval:
        case "day":
            following = day + timedelta(days=1)
        case "week":
            following = day + timedelta(days=7 - day.weekday())
        case "month":
            following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return datetime.combine(following, time(), zone).astimezone(UTC)


def beginning(at: datetime, interval: Interval, zone: tzinfo) -> datetime:
    """Of the day, week or month that an instant lies in."""
    day = at.astimezone(zone).date()
    first = {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[interval]
    return datetime.combine(first, time(), zone).astimezone(UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def sums(
    app: Flask, edges: Sequence[int], by: str | None, filter: Filter, *, most: int = 0
) -> dict[tuple[int, str], Sums]:
    """By the number of the bucket between two edges, and by what `by` names, its sums: of the `most` names that cost
    most over all buckets, or with 0 of all together ("") that have one. Users and tags have fewer sums."""
    days = app.extensions["dragoman"].settings.ledger_retention_days
    kept_from = datetime.now(UTC).timestamp() * 1000 - days * 24 * HOUR_MS if days else 0

    def work(session: Session) -> dict[tuple[int, str], Sums]:
        ends = [edges[0], edges[-1]]
        names = None
        if most:
            found = _sums(session, ends, by, filter, kept_from, most=most)
            if len(edges) == 2:
                return found
            names = [name for _, name in found]
        return _sums(session, edges, by, filter, kept_from, names=names)

    return database.read(app, work)


def _sums(
    session: Session,
    edges: Sequence[int],
    by: str | None,
    filter: Filter,
    kept_from: float,
    *,
    most: int = 0,
    names: Sequence[str] | None = None,
) -> dict[tuple[int, str], Sums]:
    """By name where `most` or `names` are given, the largest first. An hour whose rows are not kept any more counts
    where it begins."""
    cut = {edge // HOUR_MS for edge in edges if edge % HOUR_MS and edge // HOUR_MS * HOUR_MS >= kept_from}
    hours: list[tuple[int, int, int]] = []
    rows: list[tuple[int, str, str]] = []
    for bucket, (begin, end) in enumerate(pairwise(edges)):
        first, last = -(-begin // HOUR_MS), -(-end // HOUR_MS)
        if begin // HOUR_MS in cut:
            rows.append((bucket, id_at(begin), id_at(min(end, first * HOUR_MS))))
        if end // HOUR_MS in cut and end // HOUR_MS >= first:
            last = end // HOUR_MS
            rows.append((bucket, id_at(last * HOUR_MS), id_at(end)))
        if first < last:
            hours.append((bucket, first, last))
    is_split = bool(most) or names is not None
    selects = [
        *([_of_hours(hours, by, filter, is_split, names)] if hours else []),
        *([_of_rows(rows, by, filter, is_split, names)] if rows else []),
    ]
    if not selects:
        return {}
    parts = union_all(*selects).subquery()
    of_bucket, of_name, *columns = parts.c
    summed = {each: func.sum(column).label(each) for each, column in zip(SUMS, columns, strict=True)}
    chosen = select(of_bucket, of_name, *summed.values()).group_by(of_bucket, of_name)
    if most:
        chosen = chosen.order_by(summed["cost_micros"].desc(), summed["requests"].desc(), of_name).limit(most)
    return {
        (number, of): {name: int(value or 0) for name, value in zip(SUMS, told, strict=True)}
        for number, of, *told in session.execute(chosen)
        if told[0]
    }


def _of_hours(
    hours: Sequence[tuple[int, int, int]], by: str | None, filter: Filter, is_split: bool, names: Sequence[str] | None
) -> Select[Any]:
    """Rows of (bucket, name, the sums); `hours` are (bucket, the first, the one after the last)."""
    if by in _OF_USERS or filter.of(_OF_USERS):
        table: Any = UsageUserRow
        sums = [_of_a_user(name) for name in SUMS]
    else:
        needs_key = filter.key is not None or (by == "key" and is_split)
        table = UsageKeyRow if needs_key else UsageHourRow
        sums = [func.sum(getattr(table, name)) for name in SUMS]
    name: Any = getattr(table, _COLUMNS.get(by, by)) if by is not None and is_split else literal("")
    if len(hours) == 1:
        ((bucket, begin, end),) = hours
        chosen = select(literal(bucket).label("bucket"), name.label("name"), *sums).where(
            table.hour >= begin, table.hour < end
        )
        return _grouped(chosen, table, [name], filter, names)
    spans = _spans("hours", Integer, hours)
    chosen = select(spans.c.bucket, name.label("name"), *sums).where(
        table.hour >= spans.c.begin, table.hour < spans.c.end
    )
    return _grouped(chosen, table, [spans.c.bucket, name], filter, names)


def _spans(name: str, type: Any, spans: Sequence[tuple[Any, ...]]) -> CTE:
    table = values(column("bucket", Integer), column("begin", type), column("end", type), name=f"{name}_of_buckets")
    return table.data(list(spans)).cte(f"{name}_of_buckets")


def _grouped(
    chosen: Select[Any],
    table: Any,
    groups: Sequence[ColumnElement[Any]],
    filter: Filter,
    names: Sequence[str] | None,
) -> Select[Any]:
    for field, value in filter.of(GROUPS).items():
        chosen = chosen.where(getattr(table, _COLUMNS.get(field, field)) == value)
    if names is not None:
        chosen = chosen.where(groups[-1].in_(names))
    return chosen.group_by(*groups)


def _of_a_user(name: str) -> ColumnElement[int]:
    columns = {"input_tokens": "tokens_in", "output_tokens": "tokens_out"}
    column = getattr(UsageUserRow, columns.get(name, name), None)
    return literal(0) if column is None else func.sum(column)


def _of_rows(
    rows: Sequence[tuple[int, str, str]], by: str | None, filter: Filter, is_split: bool, names: Sequence[str] | None
) -> Select[Any]:
    """The same; `rows` are (bucket, the first id, one after the last)."""
    row = RequestRow
    of_users = by in _OF_USERS or bool(filter.of(_OF_USERS))
    tokens: dict[str, Any] = {name: func.sum(getattr(row, name)) for name in TOKENS}
    if of_users:  # as UsageUserRow has them
        prompt = row.input_tokens + row.cache_write_5m_tokens + row.cache_write_1h_tokens + row.cache_read_tokens
        tokens = {name: literal(0) for name in TOKENS} | {
            "input_tokens": func.sum(prompt),
            "output_tokens": tokens["output_tokens"],
        }
    sums: list[Any] = [
        func.count(),
        func.sum(case((row.cost_micros.is_(None), 1), else_=0)),
        literal(0) if of_users else func.sum(case((row.cost_state == "estimated", 1), else_=0)),
        *tokens.values(),
        func.sum(func.coalesce(row.cost_micros, 0)),
        literal(0) if of_users else func.sum(func.coalesce(row.saved_micros, 0)),
    ]
    spans = _spans("rows", String, rows)
    name: Any = literal("")
    if by is not None and is_split:
        name = func.coalesce(getattr(row, _COLUMNS.get(by, by)), "")
    chosen = select(spans.c.bucket, name.label("name"), *sums).where(row.id >= spans.c.begin, row.id < spans.c.end)
    if of_users:
        chosen = chosen.where(row.user_ref.is_not(None) | row.tag.is_not(None))
    return _grouped(chosen, row, [spans.c.bucket, name], filter, names)


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
    low, high = id_at(_ms(begin)), id_at(_ms(end))
    chosen = select(row).where(row.id >= low, row.id < (min(high, before) if before else high))
    if after is not None:
        chosen = chosen.where(row.id > after)
    if filter.key is not None:
        chosen = chosen.where(row.key_id == filter.key)
    order = row.id.asc() if ahead else row.id.desc()
    rare = _conditions(filter)
    if rare:  # without an index: only so many are looked at, and the cursor goes on from there
        some = chosen.order_by(order).limit(_LOOKED_AT).subquery()
        looked = session.execute(select(func.count(), func.min(some.c.id), func.max(some.c.id))).one()
        if looked[0] == _LOOKED_AT:
            chosen = chosen.where(row.id <= looked[2] if ahead else row.id >= looked[1])
        chosen = chosen.where(*rare)
        go_on = (looked[2] if ahead else looked[1]) if looked[0] == _LOOKED_AT else None
    else:
        go_on = None
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
    after, last = id_at(_ms(begin)), id_at(_ms(end))
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
