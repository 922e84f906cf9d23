"""A connection that is tried out before it is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import InvalidRequest
from app.storage import masking, validation
from app.storage.connections import Connection, to_connections


def trial_connection(url: str, key: str, config: Mapping[str, Any], stored: Sequence[Connection]) -> Connection:
    """Raises InvalidRequest. A mask stands for a secret only together with the URL that the secret is stored with:
    else anybody who may verify could have it sent to a host of theirs."""
    base_url = validation.base_url(url, "url")
    at_this_url = [connection for connection in stored if connection.base_url == base_url]
    if masking.is_mask(key):
        key = _stored_key(key, at_this_url)
    key = validation.api_key(key, "key")
    validation.connection_config(config, "config")
    entry = {**config, "headers": _unmasked_headers(config.get("headers") or {}, key, at_this_url)}
    return to_connections([(base_url, key)], {"0": entry}, salt="", aliases={})[0]


def _stored_key(mask: str, at_this_url: Sequence[Connection]) -> str:
    found = {connection.key for connection in at_this_url if masking.mask(connection.key) == mask}
    if len(found) != 1:
        reason = "no key that is" if not found else "several keys that are"
        raise InvalidRequest(
            f"key: the mask {mask} matches {reason} stored with this URL; send the key itself.", param="key"
        )
    return found.pop()


def _unmasked_headers(headers: Mapping[str, str], key: str, at_this_url: Sequence[Connection]) -> dict[str, str]:
    same = next((connection.headers for connection in at_this_url if connection.key == key), {})
    unmasked = {}
    for name, value in headers.items():
        if masking.is_mask(value):
            value = masking.unmask_header(value, name, {"headers": same}, (), f"config.headers.{name}")
        unmasked[name] = value
    return unmasked
