"""What Anthropic charges for the messages of one answer, in whole micro-dollars.

Each message stands for itself: attempts, rounds and choices may differ in connection, model and price. What is not
known is None, never 0. Nothing here is changed once it is made; frozen, it would take three times as long to make.

https://docs.anthropic.com/en/docs/about-claude/pricing
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from app.money.prices import PriceList, Rates
from app.money.tokens import Counted, Tokens, counted, larger, total, with_estimated_output

State = Literal["exact", "estimated", "unknown"]
FACTOR = 10_000
"""A connection's `price_factor` of 1, in ten-thousandths."""
_BILLED_REFUSALS = frozenset({"bio", "frontier_llm", "reasoning_extraction"})
"""Categories in which a refusal before any output is billed."""
_PLAIN_TIERS = (None, "standard", "standard_only", "batch")
_ODD = re.compile(r"[^\w.:-]", re.ASCII)
_HOPS = ("message", "fallback_message")
_PICO_PER_MICRO = 10**6 * FACTOR


@dataclass
class Message:
    """What the gateway knows of one message of Anthropic's. `at` is when it began, which decides its price; `usage` is
    merged of all its events, None where it is not known. Of one that was cut, `received` is what came of its content in
    bytes, and `thought_s` how long it thought without showing it."""

    connection: str
    model: str
    at: datetime
    usage: Mapping[str, Any] | None
    content: Sequence[Mapping[str, Any]] = ()
    stop_reason: str | None = None
    refusal_category: str | None = None
    only_1h: bool = False
    is_cut: bool = False
    received: int = 0
    thought_s: float = 0.0
    factor: int = FACTOR


@dataclass
class Charge:
    """The messages of an answer that cost alike. `micros` is None where it is not known."""

    connection: str
    model: str
    speed: str | None
    geo: str | None
    tier: str | None
    tokens: Tokens
    searches: int
    messages: int
    """How many of them; 0 where it is of another model that only helped (an advisor, or one that declined)."""
    micros: int | None
    saved_micros: int | None
    """What the prompt cache saved: less than 0 where more was written than read."""
    state: State
    price_version: str | None


@dataclass
class _Item:
    """Tokens of one model at one price. `is_billed` is False for what Anthropic does not charge."""

    model: str
    counted: Counted
    speed: str | None = None
    geo: str | None = None
    tier: str | None = None
    is_billed: bool = True


@dataclass
class _Sum:
    tokens: Tokens
    searches: int = 0
    messages: int = 0
    scaled: int | None = 0
    """Pico-dollars times ten-thousandths of the price factor."""
    saved: int = 0
    state: State = "exact"
    version: str | None = None


def charges(messages: Iterable[Message], prices: PriceList) -> list[Charge]:
    """One for all messages of equal connection, served model, speed, geography and tier; rounded once, half up."""
    sums: dict[tuple[str, str, str | None, str | None, str | None], _Sum] = {}
    for message in messages:
        items = _items(message)
        if items is None:
            unknown = sums.setdefault((message.connection, message.model, None, None, None), _Sum(Tokens()))
            unknown.scaled, unknown.state = None, "unknown"
            unknown.messages += 1
            continue
        for item in items:
            key = (message.connection, item.model, item.speed, item.geo, item.tier)
            counts = item.counted
            if (sum := sums.get(key)) is None:
                sum = sums[key] = _Sum(counts.tokens, counts.searches)
            else:
                sum.tokens += counts.tokens
                sum.searches += counts.searches
            _price(sum, item, message.at, message.factor, prices, is_cut=message.is_cut)
        sums[key].messages += 1  # what the model that answered used stands last
    return [_charge(key, sum) for key, sum in sums.items()]


def charged_again(charge: Charge, prices: PriceList, at: datetime, factor: int) -> Charge:
    """At what was in force at an instant: of one message as it was charged the first time."""
    item = _Item(
        charge.model, Counted(charge.tokens, charge.searches), speed=charge.speed, geo=charge.geo, tier=charge.tier
    )
    sum = _Sum(charge.tokens, charge.searches, charge.messages)
    _price(sum, item, at, factor, prices, is_cut=False)
    return _charge((charge.connection, charge.model, charge.speed, charge.geo, charge.tier), sum)


def _charge(key: tuple[str, str, str | None, str | None, str | None], sum: _Sum) -> Charge:
    return Charge(
        *key,
        tokens=sum.tokens,
        searches=sum.searches,
        messages=sum.messages,
        micros=None if sum.scaled is None else _micros(sum.scaled),
        saved_micros=None if sum.scaled is None else _micros(sum.saved),
        state=sum.state,
        price_version=sum.version,
    )


def _micros(scaled: int) -> int:
    return (scaled + _PICO_PER_MICRO // 2) // _PICO_PER_MICRO


def _price(sum: _Sum, item: _Item, at: datetime, factor: int, prices: PriceList, *, is_cut: bool) -> None:
    counts = item.counted
    if not counts.is_exact or is_cut or item.tier not in _PLAIN_TIERS:
        sum.state = "unknown" if sum.state == "unknown" else "estimated"
    if not item.is_billed:
        return
    tokens, price = counts.tokens, prices.price(item.model, at)
    prompt = tokens.prompt
    rates = None if price is None else price.rates_for(prompt, item.speed)
    if price is None or rates is None:
        sum.scaled, sum.state = None, "unknown"
        return
    sum.version = price.version
    if sum.scaled is None:
        return
    pico, saved = _pico(tokens, prompt, rates, item)
    sum.scaled += pico * factor + counts.searches * prices.search * FACTOR
    sum.saved += saved * factor


def _pico(tokens: Tokens, prompt: int, rates: Rates, item: _Item) -> tuple[int, int]:
    """(what they cost, what the cache saved)."""
    cost = (
        tokens.input * rates.input
        + tokens.write_5m * rates.write_5m
        + tokens.write_1h * rates.write_1h
        + tokens.read * rates.read
        + tokens.output * rates.output
    )
    saved = prompt * rates.input + tokens.output * rates.output - cost
    if item.geo == "us":
        cost, saved = cost * 11 // 10, saved * 11 // 10
    if item.tier == "batch":
        cost, saved = cost // 2, saved // 2
    return cost, saved


def _items(message: Message) -> list[_Item] | None:
    """None where nothing is known of what it used."""
    usage = message.usage
    whole = counted(usage, only_1h=message.only_1h)
    if usage is None or whole is None:
        return None
    base = _Item(
        message.model, whole, _text(usage, "speed"), _text(usage, "inference_geo"), _text(usage, "service_tier")
    )
    credit = usage.get("fallback_credit")
    if isinstance(credit, Mapping) and credit.get("status") == "redeemed":  # repriced, which the counts do not show
        base = replace(base, counted=replace(whole, is_exact=False))
    if message.is_cut:
        tokens = with_estimated_output(whole.tokens, message.model, message.received, message.thought_s)
        return [replace(base, counted=replace(whole, tokens=tokens, is_exact=False))]
    iterations = usage.get("iterations")
    if isinstance(iterations, list) and iterations:
        return _iterations(iterations, base, message)
    if message.stop_reason == "refusal" and not message.content:
        return [replace(base, is_billed=message.refusal_category in _BILLED_REFUSALS)]
    return [base]


def _text(usage: Mapping[str, Any], name: str, longest: int = 20) -> str | None:
    value = usage.get(name)
    if not isinstance(value, str):
        return None
    return (value if value.isascii() and value.isalnum() else _ODD.sub("", value))[:longest]


def _iterations(entries: Sequence[Any], base: _Item, message: Message) -> list[_Item] | None:
    """The bill is the sum of all entries: what compacts and advises is not in the counts at the top."""
    items: list[tuple[str, _Item]] = []
    for entry in entries:
        of_it = counted(entry, only_1h=message.only_1h)
        if of_it is None:
            return None
        model = _text(entry, "model", 200) or message.model
        alike = base if model == message.model else _Item(model, of_it, tier=base.tier)
        items.append((str(entry.get("type")), replace(alike, model=model, counted=replace(of_it, searches=0))))
    serving = [item for kind, item in items if kind in _HOPS and item.model == message.model]
    others = [(kind, item) for kind, item in items if not (kind in _HOPS and item.model == message.model)]
    summed = total(item.counted.tokens for item in serving)
    top = base.counted.tokens
    if replace(summed, thinking=0) != replace(top, thinking=0):
        serving = [replace(base, counted=replace(base.counted, tokens=larger(summed, top), is_exact=False))]
    elif serving:
        serving[0] = replace(serving[0], counted=_with(serving[0].counted, base.counted, top.thinking))
    return [*_declined(others, items, message), *serving]


def _with(first: Counted, whole: Counted, thinking: int) -> Counted:
    """What is told of the message alone stands with the first of its entries."""
    tokens = replace(first.tokens, thinking=thinking)
    return Counted(tokens, whole.searches, first.is_exact and whole.is_exact)


def _declined(
    others: Sequence[tuple[str, _Item]], items: Sequence[tuple[str, _Item]], message: Message
) -> Iterator[_Item]:
    """The entries that are not of the model that answered. Where it took over from others, each of those declined for
    the reason that its fallback block tells, and what declined before it wrote a word may be free."""
    hops = [model for model, _ in groupby(item.model for kind, item in items if kind in _HOPS)]
    blocks = [block for block in message.content if block.get("type") == "fallback"]
    reasons = [str(block["trigger"].get("category")) for block in blocks if isinstance(block.get("trigger"), Mapping)]
    is_told = len(reasons) == len(blocks) == len(hops) - 1
    by_model = dict(zip(hops, reasons, strict=False))
    for kind, item in others:
        if kind not in _HOPS:
            yield item
        elif not is_told:
            yield replace(item, counted=replace(item.counted, is_exact=False))
        else:
            is_free = item.counted.tokens.output == 0 and by_model.get(item.model) not in _BILLED_REFUSALS
            yield replace(item, is_billed=not is_free)
