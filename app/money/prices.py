"""What tokens cost: rows of prices by model, each in force from an instant on.

In memory a price is whole pico-dollars (10^-12 $) for a token: dollars for a million tokens, times a million. Each is a
multiple of 20, so that half of it and eleven tenths of it are whole, too: no sum of money ever meets a float.

https://docs.anthropic.com/en/docs/about-claude/pricing
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

CLASSES = ("input", "write_5m", "write_1h", "read", "output")
_STEP = 20
_DEAREST = 10_000 * 10**6
_NAMES_KEPT = 256
_DATE_OF_A_SNAPSHOT = re.compile(r"-\d{8}$")
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_OF_INPUT = {"write_5m": Decimal("1.25"), "write_1h": Decimal(2), "read": Decimal("0.1")}
_OF_A_ROW = {"from", *CLASSES, "fast", "above"}


class BadPrices(ValueError):
    """`path` is that of the field at fault, as in `claude-opus-5[0].input`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


@dataclass(frozen=True)
class Rates:
    """Pico-dollars for a token of each class."""

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int

    def dollars(self) -> tuple[str, ...]:
        """For a million tokens, in the order of CLASSES."""
        return tuple(f"{(Decimal(getattr(self, name)) / 10**6).normalize():f}" for name in CLASSES)


@dataclass(frozen=True)
class Price:
    """One row. `fast` is for what was served in fast mode; `above` holds the prompt (all of the input, in tokens)
    beyond which the whole message costs other rates."""

    since: datetime
    rates: Rates
    fast: Rates | None = None
    above: tuple[int, Rates] | None = None
    version: str = ""
    """`f:` and the date of the list, or `o:` and the generation of the configuration that overrides it."""

    def table(self) -> Iterator[tuple[str, ...]]:
        """Lines of (since, what for, dollars for a million tokens of each class …, version)."""
        since = "always" if self.since == _ALWAYS else self.since.isoformat().replace("T00:00:00+00:00", "")
        yield since, "-", *self.rates.dollars(), self.version
        if self.fast is not None:
            yield since, "fast", *self.fast.dollars(), self.version
        if self.above is not None:
            yield since, f"prompt > {self.above[0]:,}", *self.above[1].dollars(), self.version

    def rates_for(self, prompt: int, speed: str | None) -> Rates | None:
        """None where it says nothing of that speed."""
        if speed == "fast":
            return self.fast
        if self.above is not None and prompt > self.above[0]:
            return self.above[1]
        return self.rates


Rows = Mapping[str, Sequence[Price]]


class PriceList:
    """Prices by exact id, by alias, and by a snapshot's id without its date. A model that is not listed has no price:
    none is borrowed from one whose name is alike."""

    def __init__(self, rows: Rows, aliases: Mapping[str, str], search: int, overrides: Rows | None = None) -> None:
        """`search` is what a web search costs, in pico-dollars, whatever the model."""
        self.search = search
        self._rows = rows
        self._aliases = aliases
        self._overrides = overrides or {}

        @lru_cache(_NAMES_KEPT)
        def names(model: str) -> Sequence[str]:
            undated = _DATE_OF_A_SNAPSHOT.sub("", model)
            pairs = ((name, aliases.get(name)) for name in dict.fromkeys((model, undated)))
            return tuple(name for pair in pairs for name in pair if name is not None)

        self._names = names

    def overridden(self, overrides: Rows) -> PriceList:
        """An override is in force from its date on, whatever the list says."""
        return PriceList(self._rows, self._aliases, self.search, overrides)

    def price(self, model: str, at: datetime) -> Price | None:
        """What is in force at an instant, None where nothing is known."""
        for rows in (self._overrides, self._rows):
            for name in self._names(model):
                if name in rows and (found := _in_force(rows[name], at)) is not None:
                    return found
        return None

    def listed(self, model: str) -> str | None:
        """The name under which a model has rows, None where it has none."""
        return next((name for name in self._names(model) if name in self._overrides or name in self._rows), None)

    @property
    def models(self) -> Mapping[str, Sequence[Price]]:
        """All rows of the models, those of the overrides last."""
        names = dict.fromkeys((*self._rows, *self._overrides))
        return {name: (*self._rows.get(name, ()), *self._overrides.get(name, ())) for name in names}


def _in_force(rows: Sequence[Price], at: datetime) -> Price | None:
    for row in reversed(rows):
        if row.since <= at:
            return row
    return None


def price_list(data: Mapping[str, Any], aliases: Mapping[str, str]) -> PriceList:
    """Of app/prices.json; `aliases` are those of the models' own table. Raises BadPrices."""
    rows = to_rows(data["models"], f"f:{data['as_of']}")
    for model, prices in rows.items():
        for i, price in enumerate(prices):
            for rates in (price.rates, price.fast, price.above and price.above[1]):
                if rates and (rates.write_5m * 4 != rates.input * 5 or rates.write_1h != rates.input * 2):
                    raise BadPrices(f"{model}[{i}]", "a cache write costs 1.25 and 2 times the input")
    return PriceList(rows, {**aliases, **data["aliases"]}, int(Decimal(data["web_search"]) * 10**12))


def to_rows(models: Any, version: str) -> Rows:
    """`{model: [row, …]}`, or a row alone: `{"from"?: date or instant, "input", "output", "write_5m"?, "write_1h"?,
    "read"?, "fast"?: {…}, "above"?: {"prompt": tokens, …}}`, in dollars for a million tokens. What is left out of the
    cache's prices is 1.25, 2 and 0.1 times the input's. Raises BadPrices."""
    if not isinstance(models, Mapping):
        raise BadPrices("", "must be an object of models")
    return {model: _rows_of(model, rows, version) for model, rows in models.items()}


def _rows_of(model: str, rows: Any, version: str) -> Sequence[Price]:
    rows = [rows] if isinstance(rows, Mapping) else rows
    if not isinstance(rows, list) or not rows:
        raise BadPrices(model, "must be a list of rows, or one row")
    prices = [_price(row, f"{model}[{i}]", version) for i, row in enumerate(rows)]
    for i in range(1, len(prices)):
        if prices[i].since <= prices[i - 1].since:
            raise BadPrices(f"{model}[{i}].from", "must be later than that of the row before it")
    return prices


def _price(row: Any, path: str, version: str) -> Price:
    if not isinstance(row, Mapping):
        raise BadPrices(path, "must be an object")
    _check_names(row, _OF_A_ROW, path)
    fast, above = row.get("fast"), row.get("above")
    return Price(
        _instant(row.get("from"), f"{path}.from"),
        _rates(row, path),
        None if fast is None else _rates(fast, f"{path}.fast", set(CLASSES)),
        None
        if above is None
        else (_prompt(above, f"{path}.above"), _rates(above, f"{path}.above", {"prompt", *CLASSES})),
        version,
    )


def _check_names(value: Mapping[str, Any], known: set[str], path: str) -> None:
    for name in value:
        if name not in known:
            raise BadPrices(f"{path}.{name}", f"is not known here; accepted are {', '.join(sorted(known))}")


def _rates(row: Any, path: str, known: set[str] | None = None) -> Rates:
    if not isinstance(row, Mapping):
        raise BadPrices(path, "must be an object")
    if known is not None:
        _check_names(row, known, path)
    dollars = {name: _dollars(row[name], f"{path}.{name}") for name in CLASSES if row.get(name) is not None}
    for name in ("input", "output"):
        if name not in dollars:
            raise BadPrices(f"{path}.{name}", "is missing")
    for name, factor in _OF_INPUT.items():
        dollars.setdefault(name, dollars["input"] * factor)
    return Rates(**{name: _pico(value, f"{path}.{name}") for name, value in dollars.items()})


def _dollars(value: Any, path: str) -> Decimal:
    """A float is what its digits say: nobody who writes 0.1 means anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadPrices(path, "must be a number of dollars for a million tokens")
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise BadPrices(path, "must be a number of dollars for a million tokens") from None


def _pico(dollars: Decimal, path: str) -> int:
    pico = dollars * 10**6
    if not pico.is_finite() or not 0 <= pico <= _DEAREST:
        raise BadPrices(path, "must be between 0 and 10,000 dollars for a million tokens")
    if pico % _STEP:
        raise BadPrices(path, "must be a multiple of 0.00002 dollars for a million tokens")
    return int(pico)


def _prompt(above: Any, path: str) -> int:
    tokens = above.get("prompt") if isinstance(above, Mapping) else None
    if type(tokens) is not int or tokens <= 0:
        raise BadPrices(f"{path}.prompt", "must be a number of tokens above 0")
    return tokens


def _instant(value: Any, path: str) -> datetime:
    if value is None:
        return _ALWAYS
    try:
        if isinstance(value, str):
            if len(value) == len("2026-01-01"):
                return datetime.combine(date.fromisoformat(value), time(), UTC)
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is not None:
                return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadPrices(path, "must be a date (in UTC), or an instant with its zone, such as 2026-10-07T00:00:00Z")
