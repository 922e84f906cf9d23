"""Sums over days that are over, with fewer names than the hourly ones have: over three months of a million requests, a
sum by key would read a million rows.

Readers are right whether or not they are there. Each day, and each block of eight, is marked when its folds are made;
whoever writes into a day that is over takes its marks away in the same transaction; what has no mark is read from the
hourly sums. The folds themselves are made in the background, a day at a time, by whichever worker comes first.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from flask import Flask
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.storage import database
from app.storage.tables import UsageFoldedRow, UsageFoldRow, UsageHourRow, UsageKeyRow, UsageUserRow

if TYPE_CHECKING:
    from gevent import Greenlet

log = logging.getLogger(__name__)
HOUR, DAY, BLOCK = 1, 24, 8 * 24
"""Sizes of spans, in hours; a span's number counts from 1970, in UTC."""
_DAYS_OF_BLOCK = BLOCK // DAY
COLUMNS = {
    "model": "model",
    "connection": "connection",
    "ending": "ending",
    "user": "user_ref",
    "tag": "tag",
    "key": "key_id",
}
"""Of each name that sums are asked for by, in the order of the folds' key."""
OF_USERS = frozenset({"user", "tag"})
OF_A_USER = {
    **{name: name for name in ("requests", "unknown", "cost_micros")},
    "input_tokens": "tokens_in",
    "output_tokens": "tokens_out",
}
"""What sums are called in the table of users, which has no others."""
_MOST_RUNS = 100
"""Of how many days late rows may have taken the marks away; then as if nothing were folded."""
_CLOSED_S = 3600
"""A day is folded so long after its end: what is still written into it is late."""
_LOOKS_EVERY_S = 60.0
_RESTS_S = 0.5
_GIVEN_UP_S = 300
"""By then whoever began to fold a span has been killed."""


@dataclass(frozen=True)
class Fold:
    size: int
    names: frozenset[str]

    @property
    def number(self) -> int:
        """One for each set of names."""
        return sum(1 << n for n, name in enumerate(COLUMNS) if name in self.names)

    @property
    def conditions(self) -> list[str]:
        """Of its rows. All names are told: then those that follow them in the table's key are found at once."""
        without = [f"{column} = ''" for name, column in COLUMNS.items() if name not in self.names]
        return [f"fold = {self.number}", f"size = {self.size}", *without]

    def is_made(self, begin: int, end: int, done: Collection[tuple[int, int]]) -> bool:
        """A span of it, from one hour on and before another; `done` are the marks."""
        return begin % self.size == 0 and begin + self.size <= end and (self.mark, begin // self.mark) in done

    @property
    def mark(self) -> int:
        """The size of the span whose mark says that it is made."""
        return max(self.size, DAY)


def _folds(size: int, *names: str) -> tuple[Fold, ...]:
    return tuple(Fold(size, frozenset(some.split())) for some in names)


_OF_HOURS = (*("", "tag", "ending", "connection", "model", "connection ending", "model ending", "model connection"),)
_OF_DAYS = (
    *("model connection ending", "tag", "user", "user tag"),
    *("key", "key ending", "key connection", "key model", "key tag", "key user"),
)
FOLDS = (*_folds(BLOCK, *_OF_DAYS), *_folds(DAY, *_OF_DAYS), *_folds(HOUR, *_OF_HOURS))
"""The largest spans first, and of one size those with the fewest rows."""


Span = tuple[int, int, int]
"""(bucket, the first hour or whatever it counts, the one after the last)"""
Move = tuple[int, int, int, int]
"""(bucket, the bucket in which they are, the first hour, the one after the last); of one day."""


def parts(
    session: Session, hours: Sequence[Span], needed: frozenset[str]
) -> tuple[dict[Fold | None, list[Span]], list[Move]]:
    """`hours`, one bucket after the other, put together of folds that have the `needed` names, as far as there are any,
    in spans of their size; None for what is left to the hourly sums. And what then is in a wrong bucket: days of a time
    zone begin when others do."""
    folds = _fitting(needed)
    of_hours = [fold for fold in folds if fold.size == HOUR]
    moves: list[Move] = []
    spans = list(hours)
    if len(hours) > 1 and of_hours:
        folds = of_hours
    elif len(hours) > 1:
        spans, moves = _in_days(hours)
    done = _done(session, hours[0][1], hours[-1][2]) if spans and folds else set()
    if not done:
        return {None: list(hours)}, []
    made = _made_of(folds, spans, done)
    is_in_bits = sum(len(list(runs(some))) for some in made.values()) > _MOST_RUNS
    return ({None: list(hours)}, []) if is_in_bits else (made, moves)


def _in_days(hours: Sequence[Span]) -> tuple[list[Span], list[Move]]:
    """Buckets that end with the nearest day; none where they are no days."""
    low, high = -(-hours[0][1] // DAY) * DAY, hours[-1][2] // DAY * DAY
    if low >= high or any(end - begin < DAY // 2 for _, begin, end in hours[1:-1]):
        return [], []
    spans, moves = [], []
    at = hours[0][1]
    for (bucket, _, end), (following, _, _) in pairwise(hours):
        day = min(max((end + DAY // 2) // DAY * DAY, low), high)
        spans.append((bucket, at, day))
        if day < end:
            moves.append((bucket, following, day, end))
        elif day > end:
            moves.append((following, bucket, end, day))
        at = day
    return [*spans, (hours[-1][0], at, hours[-1][2])], moves


def _made_of(
    folds: Sequence[Fold], hours: Sequence[Span], done: Collection[tuple[int, int]]
) -> dict[Fold | None, list[Span]]:
    first, last = min(span * size for size, span in done), max((span + 1) * size for size, span in done)
    made: dict[Fold | None, list[Span]] = {}
    for bucket, begin, end in hours:
        at = begin
        while at < end:
            fold = next((fold for fold in folds if fold.is_made(at, end, done)), None)
            if at < first or at >= last:
                until = min(end, first) if at < first else end
            elif fold is None or fold.size == HOUR:
                until = min(end, (at // DAY + 1) * DAY)
            else:
                until = at + fold.size
            size = fold.size if fold else HOUR
            spans = made.setdefault(fold, [])
            if spans and spans[-1][0] == bucket and spans[-1][2] * size == at:
                spans[-1] = (bucket, spans[-1][1], until // size)
            else:
                spans.append((bucket, at // size, until // size))
            at = until
    return made


def _fitting(needed: frozenset[str]) -> list[Fold]:
    """Of each size the smallest fold that has all of the names, the largest size first. Requests that told no user and
    no tag are not in the folds of these."""
    found: dict[int, Fold] = {}
    for fold in FOLDS:
        if needed <= fold.names and bool(fold.names & OF_USERS) == bool(needed & OF_USERS):
            found.setdefault(fold.size, fold)
    return list(found.values())


def runs(spans: Iterable[Span]) -> Iterator[tuple[int, int, int, int]]:
    """As (first bucket, begin, end, how many for a bucket): buckets of one length that lie side by side are one."""
    run: tuple[int, int, int, int] | None = None
    for bucket, begin, end in spans:
        if run is not None:
            first, start, stop, each = run
            goes_on = begin == stop and (begin - start) == (bucket - first) * each and end - begin <= each
            if goes_on:
                run = first, start, end, each
                continue
            yield run
        run = bucket, begin, end, end - begin
    if run is not None:
        yield run


def _done(session: Session, begin: int, end: int) -> set[tuple[int, int]]:
    row = UsageFoldedRow
    chosen = select(row.size, row.span).where(row.is_done, row.span * row.size < end, (row.span + 1) * row.size > begin)
    return {(size, span) for size, span in session.execute(chosen)}


def forget(connection: Connection, hours: Iterable[int]) -> None:
    """Something is written into these hours: what was folded of a day that is over is right no more."""
    today = int(time.time()) // 86_400
    table = UsageFoldedRow.__table__.c
    for day in sorted({hour // DAY for hour in hours}):
        if day < today:
            of_day = (table.size == DAY) & (table.span == day)
            of_block = (table.size == BLOCK) & (table.span == day * DAY // BLOCK)
            connection.execute(delete(UsageFoldedRow).where(of_day | of_block))


def prune(session: Session, first_hour: int) -> None:
    for fold in FOLDS:
        of_fold = (UsageFoldRow.fold == fold.number) & (UsageFoldRow.size == fold.size)
        session.execute(delete(UsageFoldRow).where(of_fold, UsageFoldRow.span < first_hour // fold.size))
    session.execute(delete(UsageFoldedRow).where((UsageFoldedRow.span + 1) * UsageFoldedRow.size <= first_hour))


# ---------------------------------------------------------------------------------------------------- how they are made


def fold_in_background(app: Flask) -> Greenlet[..., None]:
    import gevent

    def forever() -> None:
        while True:
            gevent.sleep(_LOOKS_EVERY_S)
            try:
                while fold_one(app):
                    gevent.sleep(_RESTS_S)
            except DatabaseUnavailable:
                pass  # database.py logged it
            except Exception:
                log.exception("what closed days were to be folded to was not made")

    return gevent.spawn(forever)


def fold_one(app: Flask) -> bool:
    """A day or a block that is over and not folded yet. Whether there was one. Raises DatabaseUnavailable."""
    now = int(time.time())
    found = database.read(app, lambda session: _next(session, now))
    if found is None:
        return False
    size, span = found
    token = os.urandom(8).hex()

    def write(work: Any) -> Any:
        return database.write(app, work, survives_power_cuts=False)

    if write(lambda session: _begin(session, size, span, token, now)):
        for fold in FOLDS:
            if fold.mark == size:
                write(lambda session, fold=fold: _make(session, fold, span * size, (span + 1) * size))
        write(lambda session: _end(session, size, span, token))
    return True


def _next(session: Session, now: int) -> tuple[int, int] | None:
    """The newest first: they are asked for most."""
    first_hour = _first_hour(session)
    if first_hour is None:
        return None
    row = UsageFoldedRow
    begun = select(row.size, row.span).where(~row.is_done, row.began_at > now - _GIVEN_UP_S)
    done = {(size, span) for size, span in session.execute(select(row.size, row.span).where(row.is_done))}
    taken = done | {(size, span) for size, span in session.execute(begun)}
    after_last = (now - _CLOSED_S) // 3600 // DAY
    for day in reversed(range(first_hour // DAY, after_last)):
        if (DAY, day) not in taken:
            return DAY, day
    for block in reversed(range(first_hour // BLOCK, after_last // _DAYS_OF_BLOCK)):
        if _is_ready(block, first_hour, done) and (BLOCK, block) not in taken:
            return BLOCK, block
    return None


def _is_ready(block: int, first_hour: int, done: Collection[tuple[int, int]]) -> bool:
    """Whether all days that it is made of are folded; before the first hour there are none."""
    days = range(max(block * _DAYS_OF_BLOCK, first_hour // DAY), (block + 1) * _DAYS_OF_BLOCK)
    return all((DAY, day) in done for day in days)


def _first_hour(session: Session) -> int | None:
    return session.scalar(select(func.min(UsageHourRow.hour)))


def _begin(session: Session, size: int, span: int, token: str, now: int) -> bool:
    """Whether it is this one's to fold. Whatever was written before is there to be read after this transaction, and
    whoever writes later takes the mark away."""
    if session.get_bind().dialect.name == "postgresql":  # on SQLite one writes after the other
        session.connection().exec_driver_sql("LOCK TABLE usage_folded IN EXCLUSIVE MODE")
    if size == BLOCK:  # a row may have come late since it was found, and a day of it be right no more
        hours, first_hour = (span * BLOCK, (span + 1) * BLOCK), _first_hour(session)
        if first_hour is None or not _is_ready(span, first_hour, _done(session, *hours)):
            return False
    mark = session.get(UsageFoldedRow, (size, span))
    if mark is None:
        session.add(UsageFoldedRow(size=size, span=span, token=token, is_done=False, began_at=now))
        return True
    if mark.is_done or mark.began_at > now - _GIVEN_UP_S:
        return False
    mark.token, mark.began_at = token, now
    return True


def _end(session: Session, size: int, span: int, token: str) -> None:
    """Unless somebody has written into it meanwhile."""
    row = UsageFoldedRow
    mine = (row.size == size) & (row.span == span) & (row.token == token)
    session.execute(update(row).where(mine).values(is_done=True))


_SUMS = tuple(
    name
    for name in UsageHourRow.__table__.columns.keys()  # noqa: SIM118  # a collection of columns, not a mapping
    if name not in ("hour", "model", "connection", "ending")
)


def _make(session: Session, fold: Fold, begin: int, end: int) -> None:
    """The rows of a fold within some hours, anew."""
    spans = (begin // fold.size, end // fold.size)
    of_fold = (UsageFoldRow.fold == fold.number) & (UsageFoldRow.size == fold.size)
    session.execute(delete(UsageFoldRow).where(of_fold, UsageFoldRow.span >= spans[0], UsageFoldRow.span < spans[1]))
    kept = [column for name, column in COLUMNS.items() if name in fold.names]
    names = [column if column in kept else "''" for column in COLUMNS.values()]
    sums = [f"SUM({name})" for name in _SUMS]
    if fold.size == BLOCK:
        source, at = "usage_folds", f"span / {_DAYS_OF_BLOCK}"
        where = f"fold = {fold.number} AND size = {DAY} AND span >= {begin // DAY} AND span < {end // DAY}"
    else:
        source = (
            UsageUserRow if fold.names & OF_USERS else UsageKeyRow if "key" in fold.names else UsageHourRow
        ).__tablename__
        at, where = f"hour / {fold.size}", f"hour >= {begin} AND hour < {end}"
        if source == UsageKeyRow.__tablename__:
            where = f"day >= {begin // DAY} AND day < {end // DAY}"
        if source == UsageUserRow.__tablename__:
            sums = [f"SUM({OF_A_USER[name]})" if name in OF_A_USER else "0" for name in _SUMS]
    session.connection().exec_driver_sql(
        f"INSERT INTO usage_folds (fold, size, span, {', '.join(COLUMNS.values())}, {', '.join(_SUMS)}) "
        f"SELECT {fold.number}, {fold.size}, {at}, {', '.join(names)}, {', '.join(sums)} FROM {source} WHERE {where} "
        f"GROUP BY {', '.join([at, *kept])}"
    )
