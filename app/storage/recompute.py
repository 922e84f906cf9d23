"""Rows of the books that had no price, or another than the one in force, charged anew.

A row keeps what it was charged for, and so the same tokens can be charged again. Of messages that were charged together
it keeps the sum, not the length of each prompt, for which some prices ask, nor which of them were free: what comes of
such is an estimate. What was free alone stays free, and of what nothing is known nothing is known now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import orjson
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.money.charges import FACTOR, Charge, charged_again
from app.money.prices import PriceList
from app.money.tokens import Tokens
from app.storage import audit, database, ledger
from app.storage.ledger import Entry, as_entry, id_at
from app.storage.tables import RequestRow

_AT_ONCE = 500
_Pair = tuple[Entry, Entry]


@dataclass
class Recomputed:
    """Amounts are µ$ of the rows that changed; what was not known counts as 0 before."""

    rows: int = 0
    changed: int = 0
    still_unknown: int = 0
    before_micros: int = 0
    after_micros: int = 0
    by_model: dict[str, int] = field(default_factory=dict)
    """Rows that changed."""


def recompute(
    app: Flask,
    begin: datetime,
    end: datetime,
    *,
    model: str | None = None,
    is_dry: bool = False,
    who: str,
) -> Recomputed:
    """Of the requests that began from `begin` on and before `end`, at the prices in force when each began and the price
    factor that its connection has now. With `is_dry` nothing is written. Raises DatabaseUnavailable: what was done
    until then stays, and the same again does the rest."""
    snapshot = app.extensions["dragoman"].config.snapshot
    factors = {connection.id: connection.price_factor for connection in snapshot.connections}
    result = Recomputed()
    after, last = (id_at(round(at.timestamp() * 1000)) for at in (begin, end))

    def some(session: Session) -> str | None:
        """The id with which to go on."""
        chosen = select(RequestRow).where(RequestRow.id > after, RequestRow.id < last)
        if model is not None:
            chosen = chosen.where(RequestRow.model == model)
        rows = list(session.scalars(chosen.order_by(RequestRow.id).limit(_AT_ONCE).with_for_update()))
        pairs = [(old, _corrected(old, snapshot.prices, factors)) for old in map(as_entry, rows)]
        _sum_up(result, pairs)
        if not is_dry:
            ledger.replace(session, [(old, new) for old, new in pairs if old != new])
        return rows[-1].id if len(rows) == _AT_ONCE else None

    go_on: str | None = after
    while go_on is not None:
        after = go_on
        go_on = database.read(app, some) if is_dry else database.write(app, some)
    if result.changed and not is_dry:
        told = {"from": begin.isoformat(), "to": end.isoformat(), "model": model, "rows": result.changed}
        told |= {"before_micros": result.before_micros, "after_micros": result.after_micros}
        audit.record(app, who=who, action="books.recompute", detail=orjson.dumps(told).decode())
    return result


def _sum_up(result: Recomputed, pairs: Sequence[_Pair]) -> None:
    for old, new in pairs:
        result.rows += 1
        result.still_unknown += new.cost_micros is None
        if old != new:
            result.changed += 1
            result.before_micros += old.cost_micros or 0
            result.after_micros += new.cost_micros or 0
            result.by_model[new.model] = result.by_model.get(new.model, 0) + 1


def _corrected(row: Entry, prices: PriceList, factors: Mapping[str, int]) -> Entry:
    """The same where there is nothing to correct."""
    at = datetime.fromtimestamp((row.at + (row.ttft_ms or 0)) / 1000, UTC)
    old = ledger.charges_of(row)
    new = [_again(charge, row.ending, prices, at, factors) for charge in old]
    if new == old:
        return row
    parts = row.parts
    if parts is not None:
        told = orjson.loads(parts) | {"charges": [ledger.part_of(charge) for charge in new]}
        parts = orjson.dumps(told).decode()
    whole = ledger.together(new, row.model)
    return replace(
        row,
        cost_micros=whole.micros,
        saved_micros=whole.saved_micros,
        cost_state=whole.state,
        price_version=whole.price_version,
        parts=parts,
    )


def _again(charge: Charge, ending: str, prices: PriceList, at: datetime, factors: Mapping[str, int]) -> Charge:
    had_no_price = charge.micros is None and charge.tokens != Tokens()
    price = prices.price(charge.model, at)
    if price is None or not (had_no_price or charge.price_version not in (None, price.version)):
        return charge
    if not had_no_price and charge.messages != 1 and _is_override(charge.price_version) and _is_override(price.version):
        return charge  # whether the price has changed is not known, and what each message was, neither
    new = charged_again(charge, prices, at, factors.get(charge.connection, FACTOR))
    if new.micros in (None, charge.micros):  # a new list with the same price is no reason to touch a row
        return charge
    is_exact = new.state == "exact" and charge.messages == 1 and charge.state != "estimated"
    if had_no_price:  # whether its tokens were certain, the state does not say any more
        is_exact = is_exact and ending in ledger.WHOLE
    return replace(new, state="exact" if is_exact else "estimated")


def _is_override(version: str | None) -> bool:
    """Its number is that of the whole configuration: it grows without a change of the price."""
    return version is not None and version.startswith("o:")
