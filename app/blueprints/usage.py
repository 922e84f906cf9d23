"""GET /usage/…: the books for admins; GET /v1/usage: what a client key has used."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from flask import Blueprint, Flask, Response, g, request

from app.access.endpoint import endpoint
from app.errors import InvalidRequest, NotFound, shown
from app.schemas.usage import KeyUsageSchema, RequestListSchema, RequestSchema, UsageSeriesSchema, UsageTotalsSchema
from app.services import services, this_app
from app.storage import usage, usage_sums, validation
from app.storage.usage import FIELDS
from app.storage.usage_sums import GROUPS, INTERVALS, MOST_BUCKETS, SUMS, Filter, Sums

blueprint = Blueprint("usage", __name__)
_MOST_GROUPS, _MOST_SERIES = 1_000, 5
_MOST_BUCKETS_OF_SERIES = 400
_ROWS_AT_MOST = 200
_ROWS_OF_CSV = 1_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_RANGE = {
    "from": "RFC 3339 with a zone, as 2026-11-29T00:00:00Z; included. 24 hours before `to` if it is left out.",
    "to": "The same, not included. Now if it is left out.",
}
_OF_SUMS = {
    "key": "Of this client key alone, by its id",
    "model": "Of this model alone, as it is called in the books",
    "connection": "Of this connection alone, by its id",
    "ending": "Of those alone that ended so: complete, length, refusal, client_gone, upstream_cut, upstream_error, "
    "gateway_stopped, worker_lost",
    "user": "Of this user alone, as the books call them",
    "tag": "Of this tag alone",
}
_OF_ROWS = {
    "state": "exact, estimated or unknown cost",
    "warning": "With this code among its warnings",
    "min_cost": "Of at least so many micro-dollars",
    "tries": "Of at least so many calls upstream",
}
_BY = {"by": f"One group for each: {', '.join(GROUPS)}"}
_DIGITS = re.compile("[0-9]{1,13}")
_ID = re.compile("req_gw_[0-9a-f]{1,32}")
_MOST_TRIES = 2**31 - 1
_STATES = ("exact", "estimated", "unknown")
_WARNING = re.compile("[a-z0-9_]{1,64}")


@blueprint.get("/usage/totals")
@endpoint(
    "admin",
    "What was used",
    description=f"Sums over a span of time, the largest group first: at most {_MOST_GROUPS:,}, and with the name null "
    "all others together. By user and tag there are input and output tokens alone, of those requests that told one.",
    answers={200: UsageTotalsSchema},
    query={**_RANGE, **_BY, **_OF_SUMS},
)
def totals() -> Response:
    _known(_RANGE, _BY, _OF_SUMS)
    begin, end = _range()
    by, chosen = _choice("by", GROUPS), _filter(_OF_SUMS)
    _check_sums(by, chosen)
    _entered()
    edges = [_ms(begin), _ms(end)]
    groups: list[dict[str, Any]] = []
    if by is None:
        total = _together(usage_sums.sums(this_app(), edges, None, chosen).values())
    else:
        found = {
            name: sums for (_, name), sums in usage_sums.sums(this_app(), edges, by, chosen, most=_MOST_GROUPS).items()
        }
        total = _together(found.values())
        if len(found) == _MOST_GROUPS:  # there may be more
            total = _together(usage_sums.sums(this_app(), edges, by, chosen).values())
        groups += _named(found, total)
    told = {"object": "usage.totals", "from": _told(begin), "to": _told(end), "by": by}
    return _json({**told, "total": total, "data": groups})


def _named(found: Mapping[str, Sums], total: Sums) -> Iterator[dict[str, Any]]:
    """And all others together, without a name."""
    for name, sums in found.items():
        yield {"name": name, **sums}
    known = _together(found.values())
    if known != total and (others := {name: total[name] - known[name] for name in SUMS})["requests"] > 0:
        yield {"name": None, **others}


@blueprint.get("/usage/series")
@endpoint(
    "admin",
    "What was used, over time",
    description=f"Sums of each hour, day, week or month of a time zone; at most {MOST_BUCKETS:,} of them. With `by` at "
    f"most {_MOST_BUCKETS_OF_SERIES}, of the {_MOST_SERIES} groups that cost most and, with the name null, of all "
    "others together; what is nothing is left out.",
    answers={200: UsageSeriesSchema},
    query={
        **_RANGE,
        "interval": f"One of {', '.join(INTERVALS)}; day if it is left out",
        "tz": "An IANA time zone, as Europe/Vienna; UTC if it is left out",
        **_BY,
        **_OF_SUMS,
    },
)
def series() -> Response:
    _known(_RANGE, _BY, _OF_SUMS, ("interval", "tz"))
    begin, end = _range()
    by, chosen, zone = _choice("by", GROUPS), _filter(_OF_SUMS), _zone()
    _check_sums(by, chosen)
    interval: Any = _choice("interval", INTERVALS) or "day"
    edges = usage_sums.edges(begin, end, interval, zone)
    most = MOST_BUCKETS if by is None else _MOST_BUCKETS_OF_SERIES
    if len(edges) - 1 > most:
        raise InvalidRequest(
            f"From and to are more than {most:,} times one {interval} apart; ask for less, or for longer ones.",
            param="interval",
            code="invalid_value",
        )
    _entered()
    found: dict[int, dict[str, Sums]] = {}
    names = set()
    if by is not None:
        for (number, name), sums in sorted(usage_sums.sums(this_app(), edges, by, chosen, most=_MOST_SERIES).items()):
            found.setdefault(number, {})[name] = sums
            names.add(name)
    whole: Mapping[tuple[int, str], Sums] = {}
    if by is None or len(names) == _MOST_SERIES:  # there may be more
        whole = usage_sums.sums(this_app(), edges, by, chosen)
    data: list[dict[str, Any]] = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        of_it = found.get(number, {})
        total = whole.get((number, "")) or _together(of_it.values())
        groups = [total] if by is None else _named(of_it, total)
        data += [{"start": _told_ms(start), "end": _told_ms(stop), **group} for group in groups]
    told = {"object": "usage.series", "from": _told(begin), "to": _told(end), "interval": interval, "tz": str(zone)}
    return _json({**told, "by": by, "data": data})


@blueprint.get("/usage/requests")
@endpoint(
    "admin",
    "The requests in the books",
    description="The newest first. A page may be short and still have a `next`: a filter looks at so many only.",
    answers={200: RequestListSchema},
    query={
        **_RANGE,
        **_OF_SUMS,
        **_OF_ROWS,
        "before": "The id that the page before ended with, as `next` told it",
        "after": "Instead: the next ones that came after this id",
        "limit": f"1 to {_ROWS_AT_MOST}; 50 if it is left out",
    },
)
def requests_() -> Response:
    _known(_RANGE, _OF_SUMS, _OF_ROWS, ("before", "after", "limit"))
    begin, end = _range()
    before, after = request.args.get("before"), request.args.get("after")
    if before is not None and after is not None:
        raise InvalidRequest("before and after exclude each other.", param="after", code="invalid_value")
    for name, cursor in (("before", before), ("after", after)):
        if cursor is not None and not _ID.fullmatch(cursor):
            raise InvalidRequest(f"{name} must be the id of a request.", param=name, code="invalid_value")
    limit = _number("limit", 1, _ROWS_AT_MOST) or 50
    _entered()
    page = usage.page(this_app(), begin, end, _filter(_OF_SUMS, _OF_ROWS), limit=limit, before=before, after=after)
    return _json({"object": "list", "data": page.rows, "next": page.next})


@blueprint.get("/usage/requests.csv")
@endpoint(
    "admin",
    "The same as a table",
    description="All of them, as CSV. What a spreadsheet would take for a formula has a ' before it.",
    answers={200: "text/csv"},
    query={**_RANGE, **_OF_SUMS, **_OF_ROWS},
)
def requests_csv() -> Response:
    _known(_RANGE, _OF_SUMS, _OF_ROWS)
    begin, end = _range()
    chosen = _filter(_OF_SUMS, _OF_ROWS)
    _entered()
    name = f"requests-{begin:%Y-%m-%d}-{end:%Y-%m-%d}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(_table(this_app(), begin, end, chosen), 200, headers, content_type="text/csv; charset=utf-8")


def _table(app: Flask, begin: datetime, end: datetime, chosen: Filter) -> Iterator[str]:
    before, names = None, [*FIELDS, "cost_usd"]
    yield _lines([names])
    while True:
        page = usage.page(app, begin, end, chosen, limit=_ROWS_OF_CSV, before=before)
        if page.rows:
            yield _lines([[_cell(row, name) for name in names] for row in page.rows])
        if page.next is None:
            return
        before = page.next


def _lines(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name == "cost_usd":
        cost = row["cost_micros"]
        return "" if cost is None else f"{cost // 1_000_000}.{cost % 1_000_000:06}"
    value = row[name]
    if isinstance(value, list):
        value = ",".join(value)
    elif isinstance(value, dict):
        value = orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


@blueprint.get("/usage/requests/<id>")
@endpoint("admin", "One request in the books", answers={200: RequestSchema})
def request_(id: str) -> Response:
    _entered()
    found = None if "\0" in id else usage.one(this_app(), id)
    if found is None:
        raise NotFound(f"No request {shown(id)} is in the books.", param="id")
    return _json(found)


@blueprint.get("/v1/usage")
@endpoint(
    "client",
    "What this client key has used",
    description="Today, this week (from Monday) and this month, in the time zone `BUDGET_TIMEZONE`.",
    answers={200: KeyUsageSchema},
)
def of_this_key() -> Response:
    key = g.caller.key
    zone = ZoneInfo(services().config.snapshot.values["BUDGET_TIMEZONE"])
    now = datetime.now(UTC)
    _entered()
    told: dict[str, Any] = {"object": "usage", "key": {"id": key.id, "name": key.name}, "tz": str(zone)}
    spans: tuple[tuple[str, usage_sums.Interval], ...] = (("today", "day"), ("week", "week"), ("month", "month"))
    for name, interval in spans:
        edges = [_ms(usage_sums.beginning(now, interval, zone)), _ms(now) + 1]
        told[name] = _together(usage_sums.sums(this_app(), edges, None, Filter(key=key.id)).values())
    return _json(told)


def _entered() -> None:
    """What this worker has written, so that who was answered finds himself. Of another worker it takes a moment."""
    services().books.enter_now()


def _together(many: Any) -> Sums:
    total = dict.fromkeys(SUMS, 0)
    for sums in many:
        for name, value in sums.items():
            total[name] += value
    return total


def _known(*names: Any) -> None:
    """Raises InvalidRequest for a parameter that is misspelt: it would be a filter that filters nothing."""
    known = [name for some in names for name in some]
    for name in request.args:
        if name not in known:
            raise InvalidRequest(
                f"{shown(name)} is not known here; known are {', '.join(known)}.",
                param=name[:100],
                code="unknown_parameter",
            )


def _range() -> tuple[datetime, datetime]:
    end = _instant("to") or datetime.now(UTC) + timedelta(milliseconds=1)
    begin = _instant("from") or end - timedelta(hours=24)
    if begin >= end:
        raise InvalidRequest("from must be before to.", param="from", code="invalid_value")
    return begin, end


def _instant(name: str) -> datetime | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded
        if at.tzinfo is not None and 1971 <= at.year <= 9000:
            return at.astimezone(UTC).replace(microsecond=at.microsecond // 1000 * 1000)  # as ids tell it
    except ValueError:
        pass
    raise InvalidRequest(
        f"{name} must be a time with its zone by RFC 3339, as 2026-11-29T00:00:00Z, not {shown(text)}.",
        param=name,
        code="invalid_value",
    )


def _choice(name: str, choices: tuple[str, ...]) -> str | None:
    value = request.args.get(name)
    if value is not None and value not in choices:
        raise InvalidRequest(
            f"{name} must be one of {', '.join(choices)}, not {shown(value)}.", param=name, code="invalid_value"
        )
    return value


def _zone() -> ZoneInfo:
    return validation.time_zone(request.args.get("tz", "UTC"), "tz")


def _check_sums(by: str | None, chosen: Filter) -> None:
    """Of users and tags there are sums by key, and by nothing else."""
    asked = {*chosen.of(GROUPS), *([by] if by else [])}
    if asked & {"user", "tag"} and (others := sorted(asked - {"user", "tag", "key"})):
        raise InvalidRequest(
            f"user and tag go with key alone, not with {' or '.join(others)}; /usage/requests takes them together.",
            param="by" if by in others else others[0],
            code="invalid_value",
        )


def _number(name: str, least: int, most: int) -> int | None:
    text = request.args.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidRequest(
            f"{name} must be a whole number from {least} to {most}, not {shown(text)}.",
            param=name,
            code="invalid_value",
        )
    return int(text)


def _filter(*names: Mapping[str, str]) -> Filter:
    told: dict[str, Any] = {name: request.args[name] for some in names for name in some if name in request.args}
    for name, value in told.items():
        if not value or "\0" in value:  # which PostgreSQL takes in no text
            raise InvalidRequest(f"{name} must be neither empty nor hold NUL.", param=name, code="invalid_value")
    for name, most in (("min_cost", 10**12), ("tries", _MOST_TRIES)):
        if name in told:
            told[name] = _number(name, 0, most)
    if "state" in told:
        _choice("state", _STATES)
    if not _WARNING.fullmatch(told.get("warning", "none")):
        raise InvalidRequest(
            f"warning must be one code, as seed_ignored, not {shown(told['warning'])}.",
            param="warning",
            code="invalid_value",
        )
    return Filter(**told)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _told_ms(ms: int) -> str:
    return _told(datetime.fromtimestamp(ms / 1000, UTC))


def _told(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(told: Any) -> Response:
    return Response(orjson.dumps(told), mimetype="application/json")
