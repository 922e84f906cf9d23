"""Anthropic's response headers in OpenAI's names, and those that its own clients get.

https://docs.anthropic.com/en/api/rate-limits, https://platform.openai.com/docs/guides/rate-limits
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

_PLAIN = re.compile(r"[\x20-\x7e]{1,200}")
_PASSED_ON = ("anthropic-ratelimit-", "anthropic-fast-")
_RELAYED = frozenset({"content-type", "request-id", "retry-after", "retry-after-ms", "x-should-retry"})
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,1000}")


def to_relayed_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """What Anthropic's own clients get of its headers; the rest tells of its edge and of the operator's account."""
    return {
        name: value
        for name, value in upstream.items()
        if (name in _RELAYED or name.startswith(_PASSED_ON)) and _PRINTABLE.fullmatch(value)
    }


def to_client_headers(upstream: Mapping[str, str], *, now: datetime) -> dict[str, str]:
    """`upstream` has lower-case names. `now` is aware; resets become durations from it."""
    plain = {name: value for name, value in upstream.items() if _PLAIN.fullmatch(value)}
    headers = {name: value for name, value in plain.items() if name.startswith(_PASSED_ON)}
    request_id = plain.get("request-id")
    if request_id:
        headers["x-request-id"] = headers["request-id"] = request_id
    for kind, sources in (("requests", ("requests",)), ("tokens", ("tokens", "input-tokens"))):
        source = next((s for s in sources if f"anthropic-ratelimit-{s}-limit" in headers), None)
        if source is None:
            continue
        for what in ("limit", "remaining"):
            value = headers.get(f"anthropic-ratelimit-{source}-{what}")
            if value is not None:
                headers[f"x-ratelimit-{what}-{kind}"] = value
        reset = _duration(headers.get(f"anthropic-ratelimit-{source}-reset"), now)
        if reset is not None:
            headers[f"x-ratelimit-reset-{kind}"] = reset
    return headers


def _duration(moment: str | None, now: datetime) -> str | None:
    """`1m3s`, `250ms`: how OpenAI writes the time until a limit is full again."""
    if moment is None:
        return None
    try:
        seconds = max(0.0, (datetime.fromisoformat(moment) - now).total_seconds())
    except (ValueError, TypeError):
        return None
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
