"""Masks of secrets, and what a mask that comes back stands for.

A mask holds "…", which no key or header value may hold: so a mask can never be taken for a secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import InvalidRequest, shown

ELLIPSIS = "…"
SHOWN_FROM = 20  # characters; the last four of a shorter secret would tell too much
PLAIN_HEADERS = frozenset({"anthropic-beta", "anthropic-version", "user-agent", "accept", "accept-language"})


def mask(secret: str) -> str:
    """`sk-ant-…wxyz`; short secrets are masked as a whole."""
    if len(secret) < SHOWN_FROM:
        return ELLIPSIS
    prefix = "sk-ant-" if secret.startswith("sk-ant-") else ""
    return f"{prefix}{ELLIPSIS}{secret[-4:]}"


def is_mask(value: Any) -> bool:
    return isinstance(value, str) and ELLIPSIS in value


def mask_keys(keys: Sequence[str]) -> list[str]:
    return [mask(key) for key in keys]


def mask_configs(configs: Mapping[str, Any]) -> dict[str, Any]:
    """ANTHROPIC_API_CONFIGS with the values of `headers` masked, but for those that are no secrets."""
    return {place: _mask_entry(entry) for place, entry in configs.items()}


def _mask_entry(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("headers"), Mapping):
        return entry
    headers = {n: v if n.lower() in PLAIN_HEADERS else mask(str(v)) for n, v in entry["headers"].items()}
    return {**entry, "headers": headers}


def unmask_keys(posted: Sequence[Any], stored: Sequence[str], field: str) -> list[Any]:
    """`posted` with each mask replaced by the key it stands for: the one at its place, else the one that matches.

    Raises InvalidRequest when a mask matches no stored key, or when some of several keys that look alike were
    removed, so that nobody can tell which.
    """
    masks = mask_keys(stored)
    kept = Counter(value for value in posted if is_mask(value))
    had = Counter(masks)
    keys: list[Any] = []
    for index, value in enumerate(posted):
        if not is_mask(value):
            keys.append(value)
            continue
        path = f"{field}[{index}]"
        if had[value] == 0:
            raise InvalidRequest(
                f"{path}: the mask {shown(value)} matches no stored key; send the key itself.", param=path
            )
        at_its_place = index < len(masks) and masks[index] == value
        if had[value] > 1 and (not at_its_place or (kept[value] < had[value] and len(posted) < len(stored))):
            raise InvalidRequest(
                f"{path}: {had[value]} stored keys look like {shown(value)}; send the key itself.",
                param=path,
            )
        keys.append(stored[index if at_its_place else masks.index(value)])
    return keys


def unmask_header(
    posted: str, name: str, at_its_place: Mapping[str, Any] | None, everywhere: Sequence[Mapping[str, Any]], path: str
) -> str:
    """The stored header value that a mask stands for: of the same connection, else the only one that matches."""
    same = _header(at_its_place, name)
    if same is not None and mask(same) == posted:
        return same
    found = {value for entry in everywhere if (value := _header(entry, name)) is not None and mask(value) == posted}
    if len(found) != 1:
        reason = "matches no stored value" if not found else f"matches {len(found)} stored values"
        raise InvalidRequest(f"{path}: the mask {shown(posted)} {reason}; send the value itself.", param=path)
    return found.pop()


def _header(entry: Mapping[str, Any] | None, name: str) -> str | None:
    headers = entry.get("headers") if isinstance(entry, Mapping) else None
    if not isinstance(headers, Mapping):
        return None
    return next((str(value) for key, value in headers.items() if key.lower() == name.lower()), None)
