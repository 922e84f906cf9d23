"""The books: one row for each request that went upstream, and sums of them by the hour, written together.

A row's id is made before the work, so that the same row may be written again: only one that is new counts in the sums.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import orjson
from flask import Flask
from sqlalchemy import Connection, Table, delete, select, update
from sqlalchemy.orm import Session

from app.extensions import Base
from app.money.charges import Charge, State
from app.money.tokens import Tokens, total
from app.storage import database, folds
from app.storage.tables import RequestRow, UsageHourRow, UsageKeyRow, UsageTimeRow, UsageUserRow

T = TypeVar("T")
K = TypeVar("K")
BOUNDS_MS = tuple(round(50 * 1.6**n) for n in range(23))
"""Of the buckets in which times are counted: 24, each 1.6 times the one before, from 50 ms to 26 minutes."""
SUMS_KEPT_DAYS = 800
HOUR_MS = 3_600_000
_PRUNED_EVERY_S = 60.0
_PRUNED_AT_ONCE = 1_000
_ID_BEGINS = "req_gw_"
_AT_ONCE = (64, 16, 4, 1)
"""Rows in one statement: few different ones, which databases need not read anew each time."""
TOKENS = (
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens"),
    *("output_tokens", "thinking_tokens", "searches"),
)


@dataclass  # frozen, the two that are made of each request would take three times as long
class Entry:
    """A row of the books, as RequestRow has it. It is not changed."""

    id: str
    at: int
    key_id: str
    route: str
    model_asked: str
    model: str
    connection: str
    attempts: int
    status: int
    ending: str
    stream: bool
    duration_ms: int
    cost_state: str
    cost_micros: int | None = None
    saved_micros: int | None = None
    input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    searches: int = 0
    price_version: str | None = None
    tier: str | None = None
    speed: str | None = None
    geo: str | None = None
    ttft_ms: int | None = None
    user_ref: str | None = None
    tag: str | None = None
    client: str | None = None
    upstream_ids: str | None = None
    warnings: str | None = None
    parts: str | None = None


_COLUMNS = tuple(field.name for field in fields(Entry))
STATES: tuple[State, ...] = ("unknown", "estimated", "exact")
"""The state of a row is the first of its charges'."""
WORKER_LOST = "worker_lost"
WHOLE = ("complete", "length", "refusal")
"""Endings of answers that came to their end."""


def entry(told: Mapping[str, Any], made: Sequence[Charge], *, model: str, **more: Any) -> Entry:
    """The row of a request, with what was charged for it. `told` and `more` are all columns that are not of the
    charges. Raises KeyError where one is missing."""
    whole = together(made, model)
    tokens = whole.tokens
    values = {
        **told,
        **more,
        "model": model,
        "cost_state": whole.state,
        "cost_micros": whole.micros,
        "saved_micros": whole.saved_micros,
        "input_tokens": tokens.input,
        "cache_write_5m_tokens": tokens.write_5m,
        "cache_write_1h_tokens": tokens.write_1h,
        "cache_read_tokens": tokens.read,
        "output_tokens": tokens.output,
        "thinking_tokens": tokens.thinking,
        "searches": whole.searches,
        "price_version": whole.price_version,
        "tier": whole.tier,
        "speed": whole.speed,
        "geo": whole.geo,
    }
    return Entry(*map(values.__getitem__, _COLUMNS))  # 34 arguments by name take three times as long


def together(made: Sequence[Charge], model: str) -> Charge:
    """All that was charged for an answer, as its row says it: sums, and how the model that answered was charged."""
    main = next((charge for charge in made if charge.model == model), None)
    if main is not None and len(made) == 1:
        return main
    return Charge(
        connection="",
        model=model,
        speed=main.speed if main else None,
        geo=main.geo if main else None,
        tier=main.tier if main else None,
        tokens=total(charge.tokens for charge in made),
        searches=sum(charge.searches for charge in made),
        messages=sum(charge.messages for charge in made),
        micros=_sum_of(charge.micros for charge in made),
        saved_micros=_sum_of(charge.saved_micros for charge in made),
        state=_state_of(charge.state for charge in made),
        price_version=main.price_version if main else None,
    )


def parts(calls: Sequence[tuple[str, str, str]], made: Sequence[Charge]) -> str | None:
    """What a row was made of, where that is more than one charge of one call: (connection, model, outcome) of each."""
    if len(calls) == 1 and len(made) <= 1:
        return None
    tries = [{"connection": connection, "model": model, "outcome": outcome} for connection, model, outcome in calls]
    return orjson.dumps({"tries": tries, "charges": [part_of(charge) for charge in made]}).decode()


def part_of(charge: Charge) -> dict[str, Any]:
    """As `parts` of a row has it."""
    return {
        "connection": charge.connection,
        "model": charge.model,
        "speed": charge.speed,
        "geo": charge.geo,
        "tier": charge.tier,
        "messages": charge.messages,
        "tokens": asdict(charge.tokens),
        "searches": charge.searches,
        "cost_micros": charge.micros,
        "saved_micros": charge.saved_micros,
        "cost_state": charge.state,
        "price_version": charge.price_version,
    }


def charges_of(row: Entry) -> list[Charge]:
    """What a row was charged for: its parts, or all of it. Nothing where all that it came to was an error."""
    if row.parts is None:
        tokens = Tokens(
            row.input_tokens,
            row.cache_write_5m_tokens,
            row.cache_write_1h_tokens,
            row.cache_read_tokens,
            row.output_tokens,
            row.thinking_tokens,
        )
        if tokens == Tokens() and row.cost_micros == 0:
            return []
        return [
            Charge(
                connection=row.connection,
                model=row.model,
                speed=row.speed,
                geo=row.geo,
                tier=row.tier,
                tokens=tokens,
                searches=row.searches,
                messages=1,
                micros=row.cost_micros,
                saved_micros=row.saved_micros,
                state=_state(row.cost_state),
                price_version=row.price_version,
            )
        ]
    return [
        Charge(
            connection=part["connection"],
            model=part["model"],
            speed=part["speed"],
            geo=part["geo"],
            tier=part["tier"],
            tokens=Tokens(**part["tokens"]),
            searches=part["searches"],
            messages=part["messages"],
            micros=part["cost_micros"],
            saved_micros=part["saved_micros"],
            state=_state(part["cost_state"]),
            price_version=part["price_version"],
        )
        for part in orjson.loads(row.parts)["charges"]
    ]


def _state(text: str) -> State:
    return next(state for state in STATES if state == text)


def _state_of(states: Iterable[State]) -> State:
    found = set(states)
    return next((state for state in STATES if state in found), "exact")


def _sum_of(amounts: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    known = list(amounts)
    return None if None in known else sum(amount for amount in known if amount is not None)


_values_of = attrgetter(*_COLUMNS)
_tokens_of = attrgetter(*TOKENS)


class Pruning:
    """Call it now and then: each time it removes some of what is older than it is to be kept, and looks once a minute
    where nothing is."""

    def __init__(self, app: Flask, days: int) -> None:
        self._app = app
        self._days = days
        self._next = 0.0

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        if self._days and database.write(self._app, self._prune_rows, survives_power_cuts=False) == _PRUNED_AT_ONCE:
            return
        self._next = time.monotonic() + _PRUNED_EVERY_S
        database.write(self._app, self._prune_sums, survives_power_cuts=False)

    def _prune_rows(self, session: Session) -> int:
        before = id_at(int(time.time() * 1000) - self._days * 24 * HOUR_MS)
        old = select(RequestRow.id).where(RequestRow.id < before).order_by(RequestRow.id).limit(_PRUNED_AT_ONCE)
        removed: Any = session.execute(delete(RequestRow).where(RequestRow.id.in_(old)))
        return int(removed.rowcount)

    def _prune_sums(self, session: Session) -> None:
        first_hour = first_hour_of_sums()
        for table in (UsageHourRow, UsageTimeRow, UsageUserRow):
            session.execute(delete(table).where(table.hour < first_hour))
        session.execute(delete(UsageKeyRow).where(UsageKeyRow.day < first_hour // folds.DAY))
        folds.prune(session, first_hour)


def first_hour_of_sums() -> int:
    """From which on they are kept: where a block of days begins, so that folds say what the hourly sums say."""
    return (int(time.time()) // 3600 - SUMS_KEPT_DAYS * 24) // folds.BLOCK * folds.BLOCK


def new_id() -> str:
    """Of a request that begins now: in the order of time."""
    return f"{id_at(time.time_ns() // 1_000_000)}{os.urandom(6).hex()}"


def time_of(id: str) -> int:
    """When the request of that id began, in Unix milliseconds."""
    return int(id[len(_ID_BEGINS) :][:12], 16)


def ms_of(at: datetime) -> int:
    """In Unix milliseconds."""
    return round(at.timestamp() * 1000)


def id_at(ms: int) -> str:
    """What the ids of requests of a moment, in Unix milliseconds, begin with."""
    return f"{_ID_BEGINS}{ms:012x}"


def insert(session: Session, entries: Iterable[Entry]) -> None:
    """Rows that are there already change nothing, nor do they count again."""
    connection = session.connection()
    by_id = {entry.id: entry for entry in entries}
    rest = list(by_id.values())
    new: list[Entry] = []
    for size in _AT_ONCE:
        while len(rest) >= size:
            some, rest = rest[:size], rest[size:]
            new += [by_id[id] for id in _insert_new(connection, some)]
    if new:
        _count(connection, new)


def as_told(told: Mapping[str, Any]) -> Entry:
    """By the names of its columns. Raises TypeError."""
    if tuple(told) == _COLUMNS:
        return Entry(*told.values())  # as in entry()
    return Entry(**told)


def as_entry(row: RequestRow) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _COLUMNS})


def replace(session: Session, rows: Sequence[tuple[Entry, Entry]]) -> None:
    """What rows say, each as it was and as it is to be: of the same time, key, model, connection and ending."""
    for _, new in rows:
        values = {name: getattr(new, name) for name in _COLUMNS if name != "id"}
        session.execute(update(RequestRow).where(RequestRow.id == new.id).values(values))
    _count(session.connection(), [new for _, new in rows], [old for old, _ in rows])


def _insert_new(connection: Connection, entries: Sequence[Entry]) -> list[str]:
    """The ids of those that were not there."""
    mark = _mark(connection)
    values = ", ".join([f"({', '.join([mark] * len(_COLUMNS))})"] * len(entries))
    statement = f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES {values} ON CONFLICT (id) DO NOTHING RETURNING id"
    told = tuple(chain.from_iterable(map(_values_of, entries)))
    return [id for (id,) in connection.exec_driver_sql(statement, told)]


def alike(things: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Those of one key together: what they have in common is then dealt with once."""
    found: dict[K, list[T]] = {}
    for thing in things:
        found.setdefault(key(thing), []).append(thing)
    return found


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


_Key = tuple[Any, ...]


def _count(connection: Connection, added: Sequence[Entry], taken: Sequence[Entry] = ()) -> None:
    """Adds rows to the sums, and takes some from them. Each table is gone through in the order of its key, so that no
    two workers wait for each other."""
    hours: dict[_Key, list[int]] = {}
    keys: dict[_Key, list[int]] = {}
    times: dict[_Key, list[int]] = {}
    users: dict[_Key, list[int]] = {}
    for sign, entries in ((1, added), (-1, taken)):
        for (hour, key_id, *kind), some in alike(entries, _of_one_hour).items():
            sums = [sign * sum(column) for column in zip(*map(_sums_of, some), strict=True)]
            _add(hours, (hour, *kind), sums)
            _add(keys, (hour // 24, key_id, hour, *kind), sums)
        for key, count in Counter(_times_of(entries)).items():
            _add(times, key, [sign * count])
        for (hour, key_id, user, tag), some in alike(entries, _of_one_user).items():
            if user or tag:
                sums = [sign * sum(column) for column in zip(*map(_sums_of_a_user, some), strict=True)]
                _add(users, (hour, key_id, user or "", tag or ""), sums)
    for upsert, sums_of in ((_HOURS, hours), (_KEYS, keys), (_TIMES, times), (_USERS, users)):
        if changed := {key: values for key, values in sums_of.items() if any(values)}:
            upsert.run(connection, changed)
    folds.forget(connection, (hour for hour, *_ in hours))


def _of_one_hour(entry: Entry) -> _Key:
    return entry.at // HOUR_MS, entry.key_id, entry.model, entry.connection, entry.ending


def _of_one_user(entry: Entry) -> _Key:
    return entry.at // HOUR_MS, entry.key_id, entry.user_ref, entry.tag


def _sums_of(entry: Entry) -> tuple[int, ...]:
    cost = entry.cost_micros
    first = (1, cost is None, entry.cost_state == "estimated")
    return *first, *_tokens_of(entry), cost or 0, entry.saved_micros or 0


def _sums_of_a_user(entry: Entry) -> tuple[int, ...]:
    cost, tokens = entry.cost_micros, _tokens_of(entry)
    return 1, cost is None, sum(tokens[:4]), entry.output_tokens, cost or 0


def _times_of(entries: Iterable[Entry]) -> Iterator[_Key]:
    for entry in entries:
        if entry.ending != WORKER_LOST:
            key = entry.at // HOUR_MS, entry.model, entry.connection
            yield *key, "duration", bisect_right(BOUNDS_MS, entry.duration_ms)
            if entry.ttft_ms is not None:
                yield *key, "ttft", bisect_right(BOUNDS_MS, entry.ttft_ms)


def _add(table: dict[_Key, list[int]], key: _Key, values: list[int]) -> None:
    known = table.get(key)
    table[key] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]


class _Upsert:
    """Adds to the sums of a table."""

    def __init__(self, row: type[Base], key: Sequence[str], sums: Sequence[str]) -> None:
        table = row.__table__
        assert isinstance(table, Table)
        assert {*key} == {column.name for column in table.primary_key}, table.name
        assert {*key, *sums} == {*table.columns.keys()}, table.name
        added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
        columns = [*key, *sums]
        self._statements: Mapping[str, str] = {
            mark: f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))}) "
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
            for mark in ("?", "%s")
        }

    def run(self, connection: Connection, sums: Mapping[_Key, Sequence[int]]) -> None:
        rows = [(*key, *sums[key]) for key in sorted(sums)]
        connection.exec_driver_sql(self._statements[_mark(connection)], rows)


_KIND = ("model", "connection", "ending")
_SUMS = ("requests", "unknown", "estimated", *TOKENS, "cost_micros", "saved_micros")
_HOURS = _Upsert(UsageHourRow, ("hour", *_KIND), _SUMS)
_KEYS = _Upsert(UsageKeyRow, ("day", "key_id", "hour", *_KIND), _SUMS)
_TIMES = _Upsert(UsageTimeRow, ("hour", "model", "connection", "what", "bucket"), ("n",))
_USERS = _Upsert(
    UsageUserRow,
    ("hour", "key_id", "user_ref", "tag"),
    ("requests", "unknown", "tokens_in", "tokens_out", "cost_micros"),
)
assert {*_COLUMNS} == {*RequestRow.__table__.columns.keys()}
