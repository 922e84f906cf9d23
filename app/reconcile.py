"""`dragoman reconcile`: the books beside what Anthropic's Analytics reports say of the connections' keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
from flask import Flask

from app.errors import ConfigError
from app.money.reconcile import EDGE, SEARCHES, Booked, Cost, Line, compare, costs, minutes, twice
from app.services import Services
from app.storage import audit, usage
from app.storage.connections import Connection
from app.upstream.analytics import Reports, Width

_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
_LONGEST = 31 * _DAY
_SEARCHED_DAYS = 3
"""On how many days of those that differ the minutes are looked for."""


@dataclass
class Reconciled:
    """`begin` and `end` are what was compared: less than was asked for where the reports are not complete yet."""

    begin: datetime
    end: datetime
    connections: Sequence[str]
    lines: Sequence[Line] = ()
    costs: Sequence[Cost] = ()
    twice: Sequence[str] = ()
    minutes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """equal, explained or differs: that of the worst line. Money differs for a reason if tokens do, or if some of
        it is not known."""
        found = {line.verdict for line in self.lines}
        if "differs" in found or self.twice:
            return "differs"
        if all(cost.is_equal for cost in self.costs):
            return "explained" if "explained" in found else "equal"
        lines = [line for line in self.lines if line.verdict == "explained"]
        explained = {line.kind.model for line in lines}
        if any(line.booked.searches != line.reported.searches for line in lines):
            explained.add(SEARCHES)
        unequal = [cost for cost in self.costs if not cost.is_equal]
        return "explained" if all(cost.unknown or cost.what in explained for cost in unequal) else "differs"

    def as_json(self) -> dict[str, Any]:
        return {
            "from": _told(self.begin),
            "to": _told(self.end),
            "connections": list(self.connections),
            "verdict": self.verdict,
            "usage": [
                {
                    **asdict(line.kind),
                    "verdict": line.verdict,
                    "booked": asdict(line.booked),
                    "reported": asdict(line.reported),
                    "causes": list(line.causes),
                }
                for line in self.lines
            ],
            "costs_micros": [
                {"of": c.what, "booked": str(c.booked), "listed": str(c.listed), "charged": str(c.charged)}
                for c in self.costs
            ],
            "twice": list(self.twice),
            "minutes": self.minutes,
        }


def reconcile(
    app: Flask,
    begin: datetime,
    end: datetime,
    admin_key: str,
    *,
    connection: str | None = None,
    key_ids: Sequence[str] = (),
    who: str,
) -> Reconciled:
    """The result goes into the audit log, too. Raises ConfigError for what cannot be compared, UpstreamError when
    Anthropic cannot be asked, DatabaseUnavailable."""
    ours: Services = app.extensions["dragoman"]
    chosen = _chosen(ours.config.snapshot.connections, connection)
    _check(begin, end)
    _check_way(chosen[0].base_url)
    with closing(Reports(chosen[0].base_url, admin_key)) as reports:
        done = _compared(app, reports, chosen, begin, end, key_ids)
    told = done.as_json()
    brief = {name: told[name] for name in ("from", "to", "connections", "verdict", "costs_micros")}
    audit.record(app, who=who, action="books.reconcile", detail=orjson.dumps(brief).decode())
    return done


def _compared(
    app: Flask, reports: Reports, chosen: Sequence[Connection], begin: datetime, end: datetime, key_ids: Sequence[str]
) -> Reconciled:
    key_ids = key_ids or _key_ids(reports, chosen)
    end = min(end, _whole(reports.refreshed_at(begin), begin, end))
    if end <= begin:
        raise ConfigError(f"Anthropic's reports are not complete yet for anything after {_told(begin)}.")
    width = _width(begin, end)
    reported = reports.usage(begin, end, width, key_ids)
    factors = {each.id: each.price_factor for each in chosen}
    booked = list(usage.charged(app, begin - EDGE, end + EDGE, factors))
    inside = [row for row in booked if begin <= row.at < end]
    done = Reconciled(
        begin,
        end,
        sorted(factors),
        compare(booked, reported, begin, end),
        costs(inside, reports.costs(begin, end, width, key_ids), factors),
        list(twice(inside)),
    )
    done.minutes += _minutes(reports, done, inside, key_ids)
    return done


def _check_way(base_url: str) -> None:
    """An admin key can do more than any other: it does not go over a network in the clear."""
    parts = urlsplit(base_url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"{base_url} is not https: the organisation's admin key is not sent there.")


def _chosen(connections: Sequence[Connection], id: str | None) -> list[Connection]:
    found = [each for each in connections if id in (None, each.id, each.name)]
    if not found:
        where = "Connections come from this gateway's database and its environment: set here what it is started with."
        raise ConfigError(
            f"There is no connection {id}. {where}" if id else f"There is no connection to reconcile. {where}"
        )
    if len({each.base_url for each in found}) > 1:
        names = ", ".join(f"{each.id} ({each.name or each.base_url})" for each in found)
        raise ConfigError(f"The connections are to different addresses; choose one with --connection: {names}.")
    return found


def _key_ids(reports: Reports, chosen: Sequence[Connection]) -> list[str]:
    found = reports.key_ids(each.key for each in chosen)
    lacking = [each.name or each.id for each in chosen if each.key not in found]
    if lacking:
        raise ConfigError(
            f"Anthropic lists no key, or several, like that of {', '.join(lacking)}; name it with --api-key-id."
        )
    return sorted(set(found.values()))


def _check(begin: datetime, end: datetime) -> None:
    if end <= begin:
        raise ConfigError("--to must be later than --from.")
    if any(at.second or at.microsecond for at in (begin, end)):
        raise ConfigError("--from and --to must be whole minutes: Anthropic reports no less.")
    if end - begin > (_DAY if _width(begin, end) == "1m" else _LONGEST):
        raise ConfigError(
            "--from and --to may be 31 days apart, or 24 hours where they are not whole hours: Anthropic's reports "
            "reach no further."
        )


def _width(begin: datetime, end: datetime) -> Width:
    for width, step in (("1d", _DAY), ("1h", _HOUR)):
        if all((at - datetime(2026, 1, 1, tzinfo=UTC)) % step == timedelta(0) for at in (begin, end)):
            return width  # type: ignore[return-value]  # one of them
    return "1m"


def _whole(at: datetime, begin: datetime, end: datetime) -> datetime:
    """Down to the end of the last bucket that is complete."""
    step = {"1d": _DAY, "1h": _HOUR, "1m": _MINUTE}[_width(begin, end)]
    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // step * step


def _minutes(reports: Reports, done: Reconciled, inside: Sequence[Booked], key_ids: Sequence[str]) -> Iterator[str]:
    """Where the lines that differ do so, on the first days of the range that do."""
    kinds = [line.kind for line in done.lines if line.verdict == "differs"]
    day, searched = done.begin, 0
    while kinds and day < done.end and searched < _SEARCHED_DAYS:
        following = min(day + _DAY, done.end)
        rows = [row for row in inside if day <= row.at < following]
        reported = reports.usage(day, following, "1m", key_ids)
        found = [f"{kind}, {text}" for kind in kinds for text in minutes(kind, rows, reported)]
        searched += bool(found)
        yield from found
        day = following


def _told(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
