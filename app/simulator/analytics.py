"""What was answered, as Anthropic would bill it, and the Analytics reports that tell it.

https://docs.anthropic.com/en/api/usage-cost-api
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from app.simulator.events import Event
from app.simulator.http import Request
from app.simulator.models import SIM_PREFIX
from app.simulator.refusal import Refusal
from app.simulator.usage import CHARACTERS_PER_TOKEN

BETA = "analytics-usage-cost-2026-08-24"
_PRICES = Path(__file__).resolve().parent.parent / "prices.json"
_SIM_PRICE: dict[str, Any] = {
    "input": "1",
    "output": "5",
    "write_5m": "1.25",
    "write_1h": "2",
    "read": "0.10",
    "fast": None,
}
"""Of a model that plays a part, in dollars for a million tokens."""
_SEARCH_CENTS = Decimal(1)
_BILLED_REFUSALS = ("bio", "frontier_llm", "reasoning_extraction")
_WIDTHS_S = {"1m": 60, "1h": 3600, "1d": 86_400}
_DIMENSIONS = ("model", "speed", "inference_geo", "service_tier", "api_key_id")
_COST_TYPES = ("tokens", "web_search")
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


class Group(NamedTuple):
    """What is billed apart, in one minute; `minute` counts from 1970."""

    minute: int
    model: str
    speed: str
    inference_geo: str | None
    service_tier: str
    api_key_id: str


@dataclass
class Billed:
    requests: int = 0
    input: int = 0
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0
    output: int = 0
    searches: int = 0
    cents: Decimal = Decimal(0)
    """For tokens alone."""

    def add(self, other: "Billed") -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def total(self) -> int:
        return self.input + self.write_5m + self.write_1h + self.read + self.output


def key_id(key: str) -> str:
    return "apikey_01" + hashlib.blake2b(key.encode(), digest_size=11).hexdigest()


@dataclass
class Bill:
    """All that was billed. `refreshed_at` is until when the reports are complete; None for now."""

    groups: dict[Group, Billed] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    refreshed_at: datetime | None = None

    def add(self, group: Group, billed: Billed, key: str) -> None:
        self.keys[group.api_key_id] = key
        billed.cents = _cents(group, billed)
        self.groups.setdefault(group, Billed()).add(billed)

    # ------------------------------------------------------------------------------------------------------ reports

    def api_keys(self, key: str) -> dict[str, Any]:
        _check_admin(key)
        data = [
            {
                "id": id,
                "type": "api_key",
                "name": f"key {place}",
                "partial_key_hint": f"{key[:14]}...{key[-4:]}",
                "status": "active",
                "created_at": "2026-01-01T00:00:00Z",
                "created_by": None,
                "expires_at": None,
                "principal": None,
                "scope": {"type": "organization"},
            }
            for place, (id, key) in enumerate(sorted(self.keys.items()))
        ]
        return {"data": data, "has_more": False, "first_id": None, "last_id": None}

    def usage(self, request: Request, key: str) -> dict[str, Any]:
        _check_admin(key)
        return self._report(request, _usage_rows, ())

    def cost(self, request: Request, key: str) -> dict[str, Any]:
        _check_admin(key)
        return self._report(request, _cost_rows, ("cost_type",))

    def _report(self, request: Request, rows_of: Any, more_dimensions: tuple[str, ...]) -> dict[str, Any]:
        if BETA not in request.headers.get("anthropic-beta", "").split(","):
            raise Refusal(f"this endpoint requires the anthropic-beta header {BETA}")
        begin, end, width_s = _range(request)
        wanted = request.lists.get("group_by[]", [])
        for name in wanted:
            if name not in _DIMENSIONS + more_dimensions:
                raise Refusal(f"group_by: the simulator knows {', '.join(_DIMENSIONS + more_dimensions)}, not {name!r}")
        dimensions = [name for name in wanted if name in _DIMENSIONS]
        sums: dict[tuple[Any, ...], Billed] = {}
        for group, billed in self.groups.items():
            at = group.minute * 60
            if not begin.timestamp() <= at < end.timestamp() or not _is_chosen(group, request.lists):
                continue
            bucket = at // width_s * width_s if width_s else int(begin.timestamp())
            key = (bucket, *(getattr(group, name) for name in dimensions))
            sums.setdefault(key, Billed()).add(billed)
        rows = []
        for key, billed in sorted(sums.items(), key=lambda item: str(item[0])):
            span = {
                "starting_at": _rfc3339(datetime.fromtimestamp(key[0], UTC)),
                "ending_at": _rfc3339(datetime.fromtimestamp(key[0] + width_s, UTC) if width_s else end),
            }
            known = dict.fromkeys(_DIMENSIONS) | dict(zip(dimensions, key[1:], strict=True))
            rows.append([{**span, **row} for row in rows_of(known, billed, wanted)])
        return self._page(request, rows)

    def _page(self, request: Request, rows: list[list[dict[str, Any]]]) -> dict[str, Any]:
        limit, page = request.query.get("limit", "20"), request.query.get("page", "page_0")
        if not limit.isdigit() or not 1 <= int(limit) <= 1000:
            raise Refusal("limit: Input should be between 1 and 1000")
        start = page.removeprefix("page_")
        if not start.isdigit():
            raise Refusal("page: this is no cursor")
        stop = int(start) + int(limit)
        has_more = stop < len(rows)
        return {
            "data": [row for some in rows[int(start) : stop] for row in some],
            "has_more": has_more,
            "next_page": f"page_{stop}" if has_more else None,
            "data_refreshed_at": _rfc3339(self.refreshed_at or datetime.now(UTC)),
        }


def _check_admin(key: str) -> None:
    if not key.startswith("sk-ant-admin"):
        raise Refusal("This endpoint requires an API key with the read:analytics scope, or an Admin API key", 403)


def _range(request: Request) -> tuple[datetime, datetime, int]:
    """(from, to, seconds of a bucket, 0 without). Without buckets the ends are rounded down to the hour."""
    width = request.query.get("time_bucket_width")
    if width is not None and width not in _WIDTHS_S:
        raise Refusal("time_bucket_width: Input should be '1d', '1h' or '1m'")
    begin, end = _instant(request, "starting_at"), _instant(request, "ending_at")
    now = datetime.now(UTC)
    if begin is None:
        raise Refusal("starting_at: Field required")
    if begin < max(_EARLIEST, now - timedelta(days=365)):
        raise Refusal("starting_at: must be within the last 365 days and no earlier than 2026-01-01T00:00:00Z")
    if end is None:
        if width is not None:
            raise Refusal("ending_at: required when time_bucket_width is set")
        end = min(now, begin + timedelta(days=31))
    if end <= begin:
        raise Refusal("ending_at: must be after starting_at")
    if end - begin > (timedelta(days=1) if width == "1m" else timedelta(days=31)):
        raise Refusal("ending_at: the range is too long")
    if width is None:
        begin, end = (at.replace(minute=0, second=0, microsecond=0) for at in (begin, end))
    return begin, end, _WIDTHS_S.get(width or "", 0)


def _instant(request: Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{name}: Input should be a valid datetime") from None
    if at.tzinfo is None:
        raise Refusal(f"{name}: must have a time zone")
    return at.astimezone(UTC)


def _rfc3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _is_chosen(group: Group, lists: dict[str, list[str]]) -> bool:
    chosen = {"api_key_ids[]": group.api_key_id, "models[]": group.model}
    return all(value in lists[name] for name, value in chosen.items() if name in lists)


def _usage_rows(group: dict[str, Any], billed: Billed, wanted: list[str]) -> Iterator[dict[str, Any]]:
    usage = {
        "uncached_input_tokens": billed.input,
        "cache_creation": {
            "ephemeral_5m_input_tokens": billed.write_5m,
            "ephemeral_1h_input_tokens": billed.write_1h,
        },
        "cache_read_input_tokens": billed.read,
        "output_tokens": billed.output,
        "server_tool_use": {"web_search_requests": billed.searches},
        "total_tokens": billed.total,
        "requests": billed.requests,
    }
    yield {"group": group, "usage": usage}


def _cost_rows(group: dict[str, Any], billed: Billed, wanted: list[str]) -> Iterator[dict[str, Any]]:
    by_type = {"tokens": billed.cents, "web_search": billed.searches * _SEARCH_CENTS}
    if "cost_type" not in wanted:
        yield _cost(group, sum(by_type.values(), Decimal(0)), billed.requests)
        return
    for kind, cents in by_type.items():
        if cents:
            yield _cost({**group, "cost_type": kind, "token_type": None}, cents, None)


def _cost(group: dict[str, Any], cents: Decimal, requests: int | None) -> dict[str, Any]:
    amount = f"{cents.quantize(Decimal('0.0001')):f}"
    return {
        "group": group,
        "cost": {"amount": amount, "list_amount": amount, "currency": "USD", "requests": requests},
    }


@cache
def _prices() -> dict[str, Any]:
    prices: dict[str, Any] = json.loads(_PRICES.read_text())["models"]
    return prices


def _cents(group: Group, billed: Billed) -> Decimal:
    """Of one message, or of an entry of its `iterations`."""
    day = datetime.fromtimestamp(group.minute * 60, UTC).date().isoformat()
    rows = [_SIM_PRICE] if group.model.startswith(SIM_PREFIX) else _prices().get(group.model, [])
    in_force = [row for row in rows if (row.get("from") or "") <= day]
    if not in_force:
        return Decimal(0)
    price = in_force[-1]
    above = price.get("above")
    if above and billed.total - billed.output > above["prompt"]:
        price = above
    if group.speed == "fast" and price.get("fast"):
        price = price["fast"]
    classes = ("input", "write_5m", "write_1h", "read", "output")
    dollars = sum((getattr(billed, name) * Decimal(price[name]) for name in classes), Decimal(0)) / 10**6
    if group.inference_geo == "us":
        dollars *= Decimal("1.1")
    return dollars * 100


# -------------------------------------------------------------------------------------------------------------- meter


@dataclass
class Meter:
    """Listens to what one answer sends and bills it, whole or as far as it came."""

    bill: Bill
    key: str
    began_s: float | None = None
    model: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    text_bytes: int = 0
    has_content: bool = False
    end: Event | None = None
    """The message_delta."""

    def hear(self, event: Event) -> None:
        match event.get("type"):
            case "message_start":
                self.began_s = time.time()
                self.model = event["message"]["model"]
                self.usage = dict(event["message"].get("usage") or {})
            case "content_block_start":
                self.has_content = True
            case "content_block_delta":
                delta = event["delta"]
                text = delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
                self.text_bytes += len(text.encode("utf-8", "surrogatepass"))
            case "message_delta":
                self.end = event
                self.usage.update({name: value for name, value in event["usage"].items() if value is not None})

    def forget(self) -> None:
        """It became an error, which costs nothing."""
        self.began_s = None

    def close(self) -> None:
        if self.began_s is None:
            return
        whole = _counts(self.usage, requests=1)
        if self.end is None:
            written = -(-self.text_bytes // CHARACTERS_PER_TOKEN)
            self._add(self.model, replace(whole, output=max(whole.output, written)))
        elif self._is_free_refusal(self.end):
            self._add(self.model, Billed(requests=1))
        elif entries := self.usage.get("iterations"):
            self._add(self.model, Billed(requests=1, searches=whole.searches))
            for entry in entries:
                self._add(entry.get("model") or self.model, _counts(entry))
        else:
            self._add(self.model, whole)

    def _is_free_refusal(self, end: Event) -> bool:
        details = end["delta"].get("stop_details") or {}
        is_refusal = end["delta"].get("stop_reason") == "refusal"
        return is_refusal and not self.has_content and details.get("category") not in _BILLED_REFUSALS

    def _add(self, model: str, billed: Billed) -> None:
        assert self.began_s is not None
        of_it = self.usage if model == self.model else {}
        geo = of_it.get("inference_geo")
        group = Group(
            minute=int(self.began_s // 60),
            model=model,
            speed=of_it.get("speed") or "standard",
            inference_geo=geo if geo in ("us", "global") else None,
            service_tier=self.usage.get("service_tier") or "standard",
            api_key_id=key_id(self.key),
        )
        self.bill.add(group, billed, self.key)


def _counts(usage: dict[str, Any], requests: int = 0) -> Billed:
    parts = usage.get("cache_creation") or {}
    written = usage.get("cache_creation_input_tokens") or 0
    long = min(parts.get("ephemeral_1h_input_tokens") or 0, written)
    return Billed(
        requests=requests,
        input=usage.get("input_tokens") or 0,
        write_5m=written - long,
        write_1h=long,
        read=usage.get("cache_read_input_tokens") or 0,
        output=usage.get("output_tokens") or 0,
        searches=(usage.get("server_tool_use") or {}).get("web_search_requests", 0) if requests else 0,
    )


def heard(meter: Meter, events: Iterable[Event]) -> Iterator[Event]:
    """The events, each counted once it has gone out: when the next is asked for."""
    for event in events:
        yield event
        meter.hear(event)
