"""What was used, summed up over spans of time.

Whole hours are read from the roll-ups, and days that are over from their folds; what an edge cuts off an hour, from the
rows. The statements are put together as text: a series has up to a hundred parts, and to make each of expressions takes
longer than to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Literal

from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.storage import database, folds
from app.storage.folds import COLUMNS, OF_A_USER, OF_USERS, Span
from app.storage.ledger import HOUR_MS, TOKENS, first_hour_of_sums, id_at, ms_of
from app.storage.tables import UsageFoldRow

SUMS = ("requests", "unknown", "estimated", *TOKENS, "cost_micros", "saved_micros")
GROUPS = ("key", "model", "connection", "ending", "user", "tag")
INTERVALS = ("hour", "day", "week", "month")
Interval = Literal["hour", "day", "week", "month"]
MOST_BUCKETS = 2_000
_MOST_AT_ONCE = 400
"""SQLite takes 500 parts in one statement, and 1,000 conditions."""
_MOST_EACH = 1_000
_RANKED_BY = ("cost_micros", "requests")

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


def edges(begin: datetime, end: datetime, interval: Interval, zone: tzinfo) -> list[int]:
    """Where buckets begin and the last ends, in Unix milliseconds: whole hours (of UTC), days, weeks (from Monday) or
    months of the zone, and the two ends themselves. More than MOST_BUCKETS are cut off."""
    made, at = [ms_of(begin)], begin
    while at < end and len(made) <= MOST_BUCKETS + 1:
        at = min(_next(at, interval, zone), end)
        made.append(ms_of(at))
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


@dataclass(frozen=True)
class _Question:
    """`by` is None for all together; `names` None for any."""

    by: str | None
    filter: Filter
    of_users: bool
    sums: Sequence[str] = SUMS
    names: Sequence[str] | None = None

    @property
    def needed(self) -> frozenset[str]:
        named = frozenset([*self.filter.of(GROUPS), *([self.by] if self.by else [])])
        return named if not self.of_users or named & OF_USERS else named | {"tag"}

    @property
    def name(self) -> str:
        return COLUMNS[self.by] if self.by else "''"

    def conditions(self, column: str = "{}") -> list[str]:
        """Their values are `values`."""
        made = [f"{column.format(COLUMNS[field])} = :{field}" for field in self.filter.of(GROUPS)]
        names = ", ".join(f":name{n}" for n in range(len(self.names or ())))
        return made if self.names is None else [*made, f"{column.format(self.name)} IN ({names})"]

    @property
    def values(self) -> dict[str, str]:
        return self.filter.of(GROUPS) | {f"name{n}": name for n, name in enumerate(self.names or ())}


def sums(
    app: Flask, edges: Sequence[int], by: str | None, filter: Filter, *, most: int = 0
) -> dict[tuple[int, str], Sums]:
    """By the number of the bucket between two edges, and by what `by` names, its sums: of the `most` names that cost
    most over all buckets, or with 0 of all together ("") that have one. Users and tags have fewer sums."""
    days = app.extensions["dragoman"].settings.ledger_retention_days
    rows_from = datetime.now(UTC).timestamp() * 1000 - days * 24 * HOUR_MS if days else 0
    kept_from = max(rows_from, first_hour_of_sums() * HOUR_MS)
    question = _Question(by if most else None, filter, by in OF_USERS or bool(filter.of(OF_USERS)))

    def work(session: Session) -> dict[tuple[int, str], Sums]:
        asked, ends = question, [edges[0], edges[-1]]
        if most and len(edges) > 2:
            largest = _sums(session, ends, replace(asked, sums=_RANKED_BY), kept_from, most)
            asked = replace(asked, names=[name for _, name in largest])
        return _sums(session, edges, asked, kept_from, most if asked.names is None else 0)

    return database.read(app, work)


def _sums(
    session: Session, edges: Sequence[int], asked: _Question, kept_from: float, most: int
) -> dict[tuple[int, str], Sums]:
    """Of at most so many names, the largest first; with 0 of all.

    An hour counts where it begins. Of one that an edge cuts, the rows after the edge are taken from the bucket before
    it and given to the one behind it, if both they and the sums of their hour are still kept.
    """
    hours = [(n, _hour_after(begin), _hour_after(end)) for n, (begin, end) in enumerate(pairwise(edges))]
    hours = [(n, first, last) for n, first, last in hours if first < last]
    cut = [edge for edge in edges if edge % HOUR_MS and edge // HOUR_MS * HOUR_MS >= kept_from]
    if asked.names == []:
        return {}
    selects = [*_of_hours(session, hours, asked), *_of_rows(edges, cut, asked)]
    found: dict[tuple[int, str], Sums] = {}
    for at in range(0, len(selects), _MOST_AT_ONCE):
        statement = _grouped(" UNION ALL ".join(selects[at : at + _MOST_AT_ONCE]), asked)
        if most:  # of one bucket: all at once
            ranks = ", ".join(f"{name} DESC" for name in _RANKED_BY)
            statement += f" ORDER BY {ranks}, name LIMIT {most}"
        for bucket, name, *told in session.execute(text(statement), asked.values):
            known = found.setdefault((bucket, name), dict.fromkeys(asked.sums, 0))
            for each, value in zip(asked.sums, told, strict=True):
                known[each] += int(value)
    return {key: told for key, told in found.items() if told["requests"]}


def _hour_after(ms: int) -> int:
    return -(-ms // HOUR_MS)


def _grouped(rows: str, asked: _Question) -> str:
    sums = ", ".join(f"SUM({name}) AS {name}" for name in asked.sums)
    return f"SELECT bucket, name, {sums} FROM ({rows}) AS part GROUP BY bucket, name"


def _of_hours(session: Session, hours: Sequence[Span], asked: _Question) -> Iterator[str]:
    """Rows of (bucket, name, the sums)."""
    made, moves = folds.parts(session, hours, asked.needed)
    by_kind = "usage_keys" if "key" in asked.needed else "usage_hours"
    hourly = "usage_users" if asked.of_users else by_kind
    for fold, spans in made.items():
        if fold is not None:
            table, at, of_fold = "usage_folds", "span", fold.conditions
        else:
            table, at, of_fold = hourly, "hour", []
        sums = _columns(table, asked)
        for bucket, begin, end, each in folds.runs(spans):
            within = [f"{at} >= {begin}", f"{at} < {end}"]
            if fold is not None and fold.size > folds.HOUR:
                within = [_each("span", begin, end)]
            elif table == "usage_keys":
                within.append(_each("day", begin // folds.DAY, (end - 1) // folds.DAY + 1))
            columns = [f"{bucket} + ({at} - {begin}) / {each} AS bucket", f"{asked.name} AS name", *sums]
            source, of_index = _found_in(session, asked) if fold is not None else (table, [])
            conditions = " AND ".join([*of_fold, *within, *of_index, *asked.conditions()])
            yield _grouped(f"SELECT {', '.join(columns)} FROM {source} WHERE {conditions}", asked)
    for n in range(0, len(moves), _MOST_AT_ONCE):
        yield _moved(moves[n : n + _MOST_AT_ONCE], hourly, asked)


def _found_in(session: Session, asked: _Question) -> tuple[str, list[str]]:
    """The folds, and what must be said for what one key or user used to be found by an index: it has no rows without
    one, and SQLite, which keeps no statistics, would rather go through all keys of a span."""
    table = UsageFoldRow.__tablename__
    named = next((COLUMNS[name] for name, of in asked.filter.of(("key", "user")).items() if of), None)
    if named is None:
        return table, []
    hint = f" INDEXED BY ix_{table}_{named}" if session.get_bind().dialect.name == "sqlite" else ""
    return f"{table}{hint}", [f"{named} <> ''"]


def _moved(moves: Sequence[folds.Move], table: str, asked: _Question) -> str:
    """From one bucket into another."""
    hours = [f"({to}, {source}, {hour})" for to, source, begin, end in moves for hour in range(begin, end)]
    values = ", ".join(hours)  # one by one: PostgreSQL would go through all that is between two limits of a join
    within = ["hour = edge.column3", *([f"day = edge.column3 / {folds.DAY}"] if table == "usage_keys" else [])]
    columns = ["edge.column1 AS bucket", "edge.column2 AS source", f"{asked.name} AS name", *_columns(table, asked)]
    conditions = " AND ".join([*within, *asked.conditions()])
    sums = ", ".join(f"SUM({name}) AS {name}" for name in asked.sums)
    # Joined so, SQLite looks for one hour after the other.
    rows = f"SELECT {', '.join(columns)} FROM (VALUES {values}) AS edge CROSS JOIN {table} WHERE {conditions}"
    moved = f"SELECT bucket, source, name, {sums} FROM ({rows}) AS row GROUP BY bucket, source, name"
    names = ", ".join(asked.sums)
    taken = ", ".join(f"-{name} AS {name}" for name in asked.sums)
    both = f"SELECT bucket, name, {names} FROM moved UNION ALL SELECT source AS bucket, name, {taken} FROM moved"
    return f"SELECT * FROM (WITH moved AS ({moved}) {both}) AS both_ways"


def _columns(table: str, asked: _Question) -> list[str]:
    return [f"{_of_a_user(name) if table == 'usage_users' else name} AS {name}" for name in asked.sums]


def _each(column: str, begin: int, end: int) -> str:
    """One by one: within each, what is asked for by name is found at once."""
    if end - begin > _MOST_EACH:
        return f"{column} >= {begin} AND {column} < {end}"
    return f"{column} IN ({', '.join(map(str, range(begin, end)))})"


def _of_a_user(name: str) -> str:
    return OF_A_USER.get(name, "0")


_PROMPT = "input_tokens + cache_write_5m_tokens + cache_write_1h_tokens + cache_read_tokens"
_OF_A_ROW = {
    **{name: name for name in TOKENS},
    "requests": "1",
    "unknown": "CASE WHEN cost_micros IS NULL THEN 1 ELSE 0 END",
    "estimated": "CASE WHEN cost_state = 'estimated' THEN 1 ELSE 0 END",
    "cost_micros": "COALESCE(cost_micros, 0)",
    "saved_micros": "COALESCE(saved_micros, 0)",
}
_OF_A_USERS_ROW = {
    **dict.fromkeys(SUMS, "0"),
    **{name: _OF_A_ROW[name] for name in OF_A_USER},
    "input_tokens": _PROMPT,
}


def _of_rows(edges: Sequence[int], cut: Sequence[int], asked: _Question) -> Iterator[str]:
    """The same of single requests: those after an edge within the hour that it cuts."""
    last = len(edges) - 1
    if edges[0] in cut:
        yield from _after([edges[0]], "0", asked)
    if edges[-1] in cut:
        yield from (_taken(f"({rows}) AS taken", last - 1, asked) for rows in _after([edges[-1]], "0", asked))
    of_zone = [(n, edges[n] // HOUR_MS, max(edges[n + 1], edges[n] + HOUR_MS) // HOUR_MS) for n in range(1, last)]
    for bucket, begin, end, each in folds.runs(of_zone):  # begins of days where clocks differ by half an hour
        of_run = [edge for edge in cut if begin <= edge // HOUR_MS < end and edges[0] < edge < edges[-1]]
        for rows in _after(of_run, f"{bucket} + (at / {HOUR_MS} - {begin}) / {each}", asked):
            moved = f"WITH moved AS ({rows}) SELECT * FROM moved UNION ALL {_taken('moved', -1, asked)}"
            yield f"SELECT * FROM ({moved}) AS both_ways"


def _after(edges: Sequence[int], bucket: str, asked: _Question) -> Iterator[str]:
    told = _OF_A_USERS_ROW if asked.of_users else _OF_A_ROW
    columns = [f"{bucket} AS bucket", f"COALESCE({asked.name}, '') AS name"]
    columns += [f"{told[name]} AS {name}" for name in asked.sums]
    of_users = ["(user_ref IS NOT NULL OR tag IS NOT NULL)"] if asked.of_users else []
    of_keys = [condition for condition in asked.conditions() if condition.startswith("key_id ")]
    spans = [
        " AND ".join([*of_keys, f"id >= '{id_at(edge)}'", f"id < '{id_at(_hour_after(edge) * HOUR_MS)}'"])
        for edge in edges
    ]
    for n in range(0, len(spans), _MOST_AT_ONCE):
        # No index on a name that is asked for, but within a span: it would be gone through for each of them.
        within = [f"({' OR '.join(spans[n : n + _MOST_AT_ONCE])})", *of_users, *asked.conditions("COALESCE({}, '')")]
        yield _grouped(f"SELECT {', '.join(columns)} FROM requests WHERE {' AND '.join(within)}", asked)


def _taken(rows: str, further: int, asked: _Question) -> str:
    """From the bucket that is so many further."""
    sums = ", ".join(f"-{name} AS {name}" for name in asked.sums)
    return f"SELECT bucket + {further} AS bucket, name, {sums} FROM {rows}"
