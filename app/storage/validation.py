"""Is this value one that a runtime setting may have? Pure; errors name the field and what is accepted.

Nothing is coerced: "5" is no number and 1 is no boolean. Values come back as they are stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import orjson

from app.errors import ConfigError, InvalidRequest, shown
from app.money.charges import FACTOR
from app.money.prices import BadPrices, to_rows
from app.settings import RUNTIME_SETTINGS, RuntimeSetting, Settings, parse_bool, split_list

MOST_BYTES = 1_000_000
MOST_DIGITS = 6  # of an index; Python refuses to read thousands
DECLARED: Mapping[str, RuntimeSetting] = {setting.name: setting for setting in RUNTIME_SETTINGS}
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The transport's own business; a value of ours would break the request or send it elsewhere.
TRANSPORT_HEADERS = frozenset(
    [
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"),
        *("content-type", "accept-encoding"),
    ]
)


def check(name: str, value: Any) -> Any:
    """`value` in the form in which it is stored. Raises InvalidRequest; unknown names are refused."""
    setting = DECLARED.get(name)
    if setting is None:
        raise InvalidRequest(f"{name[:100]} is not a setting; there are: {', '.join(DECLARED)}.", param=name[:100])
    checked = _BY_TYPE[setting.type](setting, value)
    if setting.name in _FURTHER:
        checked = _FURTHER[setting.name](checked)
    try:
        size = len(orjson.dumps(checked))
    except orjson.JSONEncodeError:
        raise refuse(name, "JSON with numbers of at most 64 bits", value) from None
    if size > MOST_BYTES:
        raise InvalidRequest(f"{name} is {size} bytes of JSON; the most is {MOST_BYTES}.", param=name)
    return checked


def refuse(path: str, accepted: str, value: Any) -> InvalidRequest:
    """The value itself is not told: it may be a secret in the wrong field."""
    return InvalidRequest(f"{path} must be {accepted}, not {_kind(value)}.", param=path)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "this string" if value else "an empty string"
        case list():
            return "an array"
    return "an object"


def _bool(setting: RuntimeSetting, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refuse(setting.name, "true or false", value)
    return value


def _int(setting: RuntimeSetting, value: Any) -> int:
    least = setting.minimum if setting.minimum is not None else -(2**31)
    if not _is_int(value) or not least <= value < 2**31:
        raise refuse(setting.name, f"a whole number from {least}", value)
    return int(value)


def _str(setting: RuntimeSetting, value: Any) -> str:
    if not isinstance(value, str) or (setting.choices and value not in setting.choices):
        raise refuse(setting.name, " or ".join(map(repr, setting.choices)) or "a string", value)
    return value


def _list(setting: RuntimeSetting, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise refuse(setting.name, "an array of strings", value)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise refuse(f"{setting.name}[{index}]", "a string", item)
    return [item.strip() for item in value]


def _object(setting: RuntimeSetting, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refuse(setting.name, "an object", value)
    return value


def _objects(setting: RuntimeSetting, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise refuse(setting.name, "an array of objects", value)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise refuse(f"{setting.name}[{index}]", "an object", item)
    return value


_BY_TYPE: Mapping[str, Callable[[RuntimeSetting, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "str": _str,
    "list": _list,
    "object": _object,
    "objects": _objects,
}


def time_zone(name: str, path: str) -> ZoneInfo:
    """Raises InvalidRequest."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # as ZoneInfo has it for names that it knows not, and that are paths
        raise refuse(path, "an IANA time zone, as Europe/Vienna", name) from None


def _time_zone(name: str) -> str:
    return time_zone(name, "BUDGET_TIMEZONE").key


def _base_urls(urls: list[str]) -> list[str]:
    if not urls:
        raise InvalidRequest("ANTHROPIC_API_BASE_URLS must hold at least one URL.", param="ANTHROPIC_API_BASE_URLS")
    for index, url in enumerate(urls):
        base_url(url, f"ANTHROPIC_API_BASE_URLS[{index}]")
    return urls


def base_url(url: Any, path: str) -> str:
    """The URL as it is used: without the trailing `/` and `/v1` that people add. Raises InvalidRequest."""
    if not isinstance(url, str):
        raise refuse(path, "a URL as in https://api.anthropic.com", url)
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise refuse(path, "a URL as in https://api.anthropic.com", url) from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not _PRINTABLE.fullmatch(url.strip()):
        raise refuse(path, "an http:// or https:// URL with a host", url)
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(f"{path} must not hold a user name or password.", param=path)
    if "?" in url or "#" in url or "\\" in url:
        raise InvalidRequest(f"{path} must not hold a query, a fragment or a backslash.", param=path)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown_port = f":{port}" if port is not None and port != {"http": 80, "https": 443}[parts.scheme.lower()] else ""
    folder = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme.lower()}://{host}{shown_port}{folder}"


def _keys(keys: list[str]) -> list[str]:
    for index, key in enumerate(keys):
        api_key(key, f"ANTHROPIC_API_KEYS[{index}]")
    return keys


def api_key(key: Any, path: str) -> str:
    """Without surrounding white space. Raises InvalidRequest."""
    if not isinstance(key, str):
        raise refuse(path, "a string", key)
    if not _PRINTABLE.fullmatch(key.strip()) or len(key) > 2000:
        raise refuse(path, "a key of printable ASCII characters without spaces", key)
    return key.strip()


def _configs(configs: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, str] = {}
    for place, entry in configs.items():
        path = f"ANTHROPIC_API_CONFIGS.{place[:100]}"
        canonical = place
        if place.isdecimal() and place.isascii():
            if len(place) > MOST_DIGITS:
                raise refuse(path, f"named by an index of at most {MOST_DIGITS} digits", place)
            if str(int(place)) != place:
                raise refuse(path, "named by an index without leading zeros", place)
        else:
            try:
                canonical = base_url(place, path)
            except InvalidRequest:
                message = f'{path}: entries are named by the index of their connection, as in "0", or by its base URL.'
                raise InvalidRequest(message, param=path) from None
        if canonical in seen:
            raise InvalidRequest(f"{path}: {shown(seen[canonical])} names the same URL.", param=path)
        seen[canonical] = place
        connection_config(entry, path)
    return configs


def connection_config(entry: Any, path: str) -> dict[str, Any]:
    """One connection's settings; fields that we do not know are let through. Raises InvalidRequest."""
    if not isinstance(entry, dict):
        raise refuse(path, "an object", entry)
    for field, value in entry.items():
        if field in _CONNECTION_FIELDS:
            accepted, fits = _CONNECTION_FIELDS[field]
            if not fits(value):
                raise refuse(f"{path}.{field}", accepted, value)
    for header, value in entry.get("headers", {}).items():
        where = f"{path}.headers.{header[:100]}"
        if not _HEADER_NAME.fullmatch(header):
            raise InvalidRequest(f"{where}: this is not the name of a header.", param=where)
        if header.lower() in TRANSPORT_HEADERS:
            raise InvalidRequest(f"{where}: this header is the gateway's own business.", param=where)
        if not isinstance(value, str) or not (_HEADER_VALUE.fullmatch(value) or "…" in value):
            raise refuse(where, "a string of printable ASCII characters", value)
    return entry


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    number = (isinstance(value, (int, float)) and not isinstance(value, bool)) and math.isfinite(value)
    return number and 0 < value <= 1_000_000


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not _CONTROL.search(value) and len(value) <= 500


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(item) and item for item in value)


def _is_tags(value: Any) -> bool:
    """Open WebUI writes tags as objects."""
    return isinstance(value, list) and all(
        _is_text(item) or (isinstance(item, dict) and _is_text(item.get("name"))) for item in value
    )


def _is_factor(value: Any) -> bool:
    return _is_positive(value) and value <= 10 and round(value * FACTOR) >= 1 and round(value, 4) == value


_CONNECTION_FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "enable": ("true or false", lambda value: isinstance(value, bool)),
    "name": ("a string", _is_text),
    "prefix_id": ("a string", _is_text),
    "model_ids": ("an array of strings", _is_texts),
    "tags": ('an array of strings or of objects as in {"name": "team"}', _is_tags),
    "priority": (
        "a whole number; lower goes first",
        lambda value: _is_int(value) and -1_000_000 <= value <= 1_000_000,
    ),
    "weight": ("a number above 0", _is_positive),
    "headers": ("an object of strings", lambda value: isinstance(value, dict)),
    "timeout_s": ("a number of seconds above 0, or null", lambda value: value is None or _is_positive(value)),
    "auth": ("'x-api-key' or 'bearer'", lambda value: value in ("x-api-key", "bearer")),
    "price_factor": ("a number from 0.0001 to 10 with at most four digits behind the point", _is_factor),
    "auto_cache": ("true, false or null", lambda value: value is None or isinstance(value, bool)),
}


def misspelt(configs: Mapping[str, Any]) -> list[str]:
    """What looks like a setting of a connection and is none: unknown names are kept, and mean nothing."""
    found = []
    for place, entry in configs.items():
        for name in entry if isinstance(entry, Mapping) else ():
            near = [] if name in _CONNECTION_FIELDS else get_close_matches(name, _CONNECTION_FIELDS, 1, 0.75)
            if near:
                found.append(f"{place[:100]}.{name[:100]} means nothing; did you mean {near[0]}?")
    return found


MODEL_FLAGS = (
    *("sampling", "prefill", "forced_tool", "mid_system", "structured_outputs"),
    *("web_search", "bound_thinking", "fast_mode"),
)
"""What a model takes, as translate/facts.py has it (a test compares): the layers know nothing of each other."""


def _models(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: set[str] = set()
    for index, model in enumerate(models):
        path = f"ANTHROPIC_MODELS[{index}]"
        if not _is_text(model.get("id")) or not model["id"].strip():
            raise refuse(f"{path}.id", "a string that names the model", model.get("id"))
        if model["id"] in seen:
            raise InvalidRequest(f"{path}.id: {shown(model['id'])} is there twice.", param=f"{path}.id")
        seen.add(model["id"])
        for field in ("name", "owned_by"):
            if model.get(field) is not None and not _is_text(model[field]):
                raise refuse(f"{path}.{field}", "a string", model[field])
        for field in ("tokens_per_message", "tokens_per_request", "max_tokens", "context_length", "max_output_tokens"):
            value = model.get(field)
            if value is not None and not (_is_int(value) and 0 <= value < 2**31):
                raise refuse(f"{path}.{field}", "a whole number from 0", value)
        for field in MODEL_FLAGS:
            if model.get(field) is not None and not isinstance(model[field], bool):
                raise refuse(f"{path}.{field}", "true or false", model[field])
    return models


def _aliases(aliases: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, str] = {}
    for alias, model in aliases.items():
        path = f"MODEL_ALIASES.{alias[:100]}"
        if not alias.strip() or not _is_text(alias):
            raise InvalidRequest(f"{path}: an alias must not be empty.", param=path)
        if not _is_text(model) or not model.strip():
            raise refuse(path, "the id of a model", model)
        if seen.setdefault(alias.lower(), alias) != alias:
            both = f"{shown(seen[alias.lower()])} and {shown(alias)}"
            message = f"MODEL_ALIASES: {both} are the same name: large and small letters make no difference."
            raise InvalidRequest(message, param="MODEL_ALIASES")
    return aliases


def _prices(models: dict[str, Any]) -> dict[str, Any]:
    try:
        to_rows(models, "")
    except BadPrices as error:
        path = f"MODEL_PRICES.{error.path[:200]}"
        raise InvalidRequest(f"{path} {error.message}.", param=path) from None
    return models


_FURTHER: Mapping[str, Callable[[Any], Any]] = {
    "BUDGET_TIMEZONE": _time_zone,
    "ANTHROPIC_API_BASE_URLS": _base_urls,
    "ANTHROPIC_API_KEYS": _keys,
    "ANTHROPIC_API_CONFIGS": _configs,
    "ANTHROPIC_MODELS": _models,
    "MODEL_ALIASES": _aliases,
    "MODEL_PRICES": _prices,
}


def pairs(urls: Sequence[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """(base URL as used, key) of each connection. Raises InvalidRequest when the lists do not pair up."""
    if len(urls) != 1 and len(urls) != len(keys):
        raise InvalidRequest(
            f"ANTHROPIC_API_BASE_URLS holds {len(urls)} URLs and ANTHROPIC_API_KEYS {len(keys)} keys: "
            "give one URL for all keys, or one for each.",
            param="ANTHROPIC_API_BASE_URLS",
        )
    used = [base_url(url, f"ANTHROPIC_API_BASE_URLS[{index}]") for index, url in enumerate(urls)]
    paired = list(zip(used * len(keys) if len(used) == 1 else used, keys, strict=True))
    for index, pair in enumerate(paired):
        if pair in paired[:index]:
            path = f"ANTHROPIC_API_KEYS[{index}]"
            raise InvalidRequest(
                f"{path}: connection {paired.index(pair)} has the same base URL and the same key.", param=path
            )
    return paired


def host_of(url: str) -> str:
    """Of a base URL as used; with the port, behind which there may be somebody else."""
    return urlsplit(url).netloc


def is_as_safe(url: str, was: str) -> bool:
    """Whether a key that went to the base URL `was` may go to `url` without being asked for."""
    return host_of(url) == host_of(was) and (url.startswith("https:") or not was.startswith("https:"))


_EXAMPLES: Mapping[str, str] = {
    "ANTHROPIC_API_CONFIGS": '{"0": {"name": "main", "priority": 1}}',
    "ANTHROPIC_MODELS": '[{"id": "claude-sonnet-5-5"}]',
    "MODEL_ALIASES": '{"gpt-4o": "claude-sonnet-5-5"}',
    "MODEL_PRICES": '{"claude-opus-5": {"input": 4, "output": 20}}',
}


def from_environment(setting: RuntimeSetting, settings: Settings) -> Any:
    """What the environment says of a runtime setting. Raises ConfigError that names it."""
    raw = settings.runtime[setting.name].strip()
    value: Any = raw
    match setting.type:
        case "bool":
            value = parse_bool(setting.name, raw)
        case "int":
            try:
                value = int(raw)
            except ValueError:
                raise ConfigError(f"{setting.name} must be a whole number, not {shown(raw)}.") from None
        case "list":
            value = split_list(raw)
        case "object" | "objects":
            try:
                value = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                example = f", as in '{_EXAMPLES[setting.name]}'" if setting.name in _EXAMPLES else ""
                raise ConfigError(f"{setting.name} must be JSON{example}: {error}.") from None
    try:
        return check(setting.name, value)
    except InvalidRequest as error:
        raise ConfigError(error.message) from None
