"""Connections: the (base URL, key) pairs, what is configured for each, and which one is which after a change.

Pure. A pair's id is an HMAC of its URL and first key, so that it says nothing of the key and outlives its rotation:
ids that no longer follow from the pair are remembered as `aliases`, fingerprint of the pair to id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from app.errors import InvalidRequest
from app.money.charges import FACTOR
from app.storage import validation

Pair = tuple[str, str]


@dataclass(frozen=True)
class Connection:
    """One pair with its settings. `base_url` has no trailing `/` or `/v1`; lower `priority` goes first;
    `timeout_s` bounds the wait for the first event; `auto_cache` None leaves it to the gateway;
    `price_factor` is in ten-thousandths of the list's prices."""

    id: str
    index: int
    base_url: str
    key: str = field(repr=False)
    enable: bool = True
    name: str = ""
    prefix_id: str = ""
    model_ids: tuple[str, ...] = ()
    tags: tuple[Any, ...] = ()
    priority: int = 0
    weight: float = 1.0
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    timeout_s: float | None = None
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    auto_cache: bool | None = None
    price_factor: int = FACTOR


def to_connections(
    pairs: Sequence[Pair], configs: Mapping[str, Any], *, salt: str, aliases: Mapping[str, str]
) -> tuple[Connection, ...]:
    return tuple(
        _to_connection(index, pair, entry_of(index, pair[0], configs), identity(pair, salt, aliases))
        for index, pair in enumerate(pairs)
    )


def _to_connection(index: int, pair: Pair, entry: Mapping[str, Any], id: str) -> Connection:
    return Connection(
        id=id,
        index=index,
        base_url=pair[0],
        key=pair[1],
        enable=entry.get("enable", True),
        name=entry.get("name", ""),
        prefix_id=entry.get("prefix_id", ""),
        model_ids=tuple(entry.get("model_ids", ())),
        tags=tuple(entry.get("tags", ())),
        priority=entry.get("priority", 0),
        weight=float(entry.get("weight", 1.0)),
        headers=MappingProxyType(dict(entry.get("headers", {}))),
        timeout_s=entry.get("timeout_s"),
        auth=entry.get("auth", "x-api-key"),
        auto_cache=entry.get("auto_cache"),
        price_factor=round(entry.get("price_factor", 1) * FACTOR),
    )


def entry_of(index: int, url: str, configs: Mapping[str, Any]) -> Mapping[str, Any]:
    """An index entry wins over a URL entry."""
    if str(index) in configs:
        entry: Mapping[str, Any] = configs[str(index)]
        return entry
    return entry_by_url(url, configs) or {}


def entry_by_url(url: str, configs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for place, entry in configs.items():
        if not place.isdecimal() and validation.base_url(place, place) == url:
            found: Mapping[str, Any] = entry
            return found
    return None


def fingerprint(pair: Pair, salt: str, *, again: int = 0) -> str:
    """Hex; `again` makes another one when the first is taken."""
    text = "\n".join([*pair, *(["again"] * again)])
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:20]


def identity(pair: Pair, salt: str, aliases: Mapping[str, str]) -> str:
    print_of_pair = fingerprint(pair, salt)
    return aliases.get(print_of_pair, f"conn_{print_of_pair}")


def came_from(old: Sequence[Pair], new: Sequence[Pair]) -> dict[int, int]:
    """Which old pair each new one is, by index: the same pair, else one with the same key (its URL changed), else the
    one at the same place unless pairs were removed (its key was rotated). What is missing is new."""
    origins: dict[int, int] = {}

    def match(index: int, candidates: list[int]) -> None:
        free = [candidate for candidate in candidates if candidate not in origins.values()]
        if index not in origins and free:
            origins[index] = index if index in free else free[0]

    for index, pair in enumerate(new):
        match(index, [at for at, was in enumerate(old) if was == pair])
    for index, pair in enumerate(new):
        match(index, [at for at, was in enumerate(old) if was[1] == pair[1]])
    if len(new) >= len(old):
        for index in range(min(len(old), len(new))):
            match(index, [index])
    return origins


def moved_configs(configs: Mapping[str, Any], old: Sequence[Pair], new: Sequence[Pair]) -> dict[str, Any]:
    """Index entries moved to where their pairs are now; those of removed pairs go with them."""
    moved = {place: entry for place, entry in configs.items() if not place.isdecimal()}
    origins = came_from(old, new)
    for index in range(len(new)):
        if index in origins and str(origins[index]) in configs:
            moved[str(index)] = configs[str(origins[index])]
    for place, entry in configs.items():  # an entry that had no pair waits for one at its place
        if place.isdecimal() and int(place) >= len(old) and int(place) not in origins:
            moved[place] = entry
    return moved


def kept_ids(old: Sequence[Pair], new: Sequence[Pair], *, salt: str, aliases: Mapping[str, str]) -> dict[str, str]:
    """The aliases after a change: a pair keeps its id when its key is rotated in place; a new URL makes a new id."""
    origins = came_from(old, new)
    ids: dict[int, str] = {}
    for index, pair in enumerate(new):
        origin = origins.get(index)
        if origin is not None and old[origin][0] == pair[0]:
            ids[index] = identity(old[origin], salt, aliases)
    after: dict[str, str] = {}
    for index, pair in enumerate(new):
        again = 0
        while index not in ids:
            candidate = f"conn_{fingerprint(pair, salt, again=again)}"
            if candidate not in ids.values():
                ids[index] = candidate
            again += 1
        own = fingerprint(pair, salt)
        if ids[index] != f"conn_{own}":
            after[own] = ids[index]
    return after


def unmasked_configs(
    posted: Mapping[str, Any], stored: Mapping[str, Any], old: Sequence[Pair], new: Sequence[Pair], field: str
) -> dict[str, Any]:
    """Posted configs with masked header values replaced by the stored ones. Raises InvalidRequest."""
    from app.storage import masking

    origins = came_from(old, new)
    everywhere = [entry for entry in stored.values() if isinstance(entry, Mapping)]
    unmasked: dict[str, Any] = {}
    for place, entry in posted.items():
        headers = entry.get("headers") if isinstance(entry, Mapping) else None
        if not isinstance(headers, Mapping) or not any(masking.is_mask(value) for value in headers.values()):
            unmasked[place] = entry
            continue
        at_its_place = _stored_at(place, stored, origins)
        unmasked[place] = {
            **entry,
            "headers": {
                name: masking.unmask_header(
                    value, name, at_its_place, everywhere, f"{field}.{place[:100]}.headers.{name[:100]}"
                )
                if masking.is_mask(value)
                else value
                for name, value in headers.items()
            },
        }
    return unmasked


def _stored_at(place: str, stored: Mapping[str, Any], origins: Mapping[int, int]) -> Mapping[str, Any] | None:
    if place.isdecimal():
        origin = origins.get(int(place), int(place))
        found: Mapping[str, Any] | None = stored.get(str(origin))
        return found
    try:
        return entry_by_url(validation.base_url(place, place), stored)
    except InvalidRequest:
        return None
