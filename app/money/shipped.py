"""The prices that come with the gateway. They are data: app/prices.json is changed without a line of code."""

from __future__ import annotations

from pathlib import Path

import orjson

from app.money.prices import PriceList, price_list

_APP = Path(__file__).parent.parent
_MODELS = orjson.loads((_APP / "models.json").read_bytes())["models"]
DATA = orjson.loads((_APP / "prices.json").read_bytes())
PRICES: PriceList = price_list(DATA, {alias: id for id, entry in _MODELS.items() for alias in entry["aliases"]})
