"""Anthropic's errors as OpenAI clients know them.

https://docs.anthropic.com/en/api/errors, https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.errors import ModelNotFound, UpstreamError

OVERLOADED_RETRY_AFTER_S = 5
_LONGEST_TEXT = 2000
"""Of what other servers say, in characters: it is passed on, logged, and kept for as long as a connection is out."""
_SECRET = re.compile(r"sk-[A-Za-z0-9_-]{6,}")
_IDENTIFIER = re.compile(r"[\w.-]{1,100}", re.ASCII)
_WORD = re.compile(r"[a-z_]{1,60}")
_DELAY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_MESSAGE_PATH = re.compile(r"\bmessages\.(\d{1,9})(?!\d)((?:\.[A-Za-z0-9_]+)*)")
_LIMIT_CODE = re.compile(r".*(spend|usage)_limit_reached")
_CREDIT_TEXT = re.compile(r"your credit balance is too low\b")
_LIMIT_TEXT = re.compile(r"you have reached your .{0,40}\b(usage|spend) limits?\b")
"""From the beginning: within a text Anthropic may quote the client."""

_MEANINGS: Mapping[str | None, str] = {
    "upstream_authentication_failed": "Anthropic refused this gateway's key; its administrator must correct it.",
    "insufficient_quota": "This gateway's Anthropic account has no credit left; its administrator must add some.",
    "overloaded": "Anthropic has more requests than it can serve at the moment; ask again in some seconds.",
}
"""By code, for clients: what Anthropic says of the gateway's account reads as if it were about theirs."""
_SPEND_LIMIT = "This gateway's Anthropic account has reached its spend limit; its administrator can raise it."

# Anthropic's type: (status, OpenAI's type, code)
_KNOWN: Mapping[str, tuple[int, str, str | None]] = {
    "invalid_request_error": (400, "invalid_request_error", None),
    "authentication_error": (503, "server_error", "upstream_authentication_failed"),
    "billing_error": (429, "insufficient_quota", "insufficient_quota"),
    "permission_error": (403, "invalid_request_error", "permission_denied"),
    "not_found_error": (404, "invalid_request_error", "not_found"),
    "conflict_error": (409, "invalid_request_error", "conflict"),
    "request_too_large": (413, "invalid_request_error", "request_too_large"),
    "rate_limit_error": (429, "rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": (504, "server_error", "timeout"),
    "api_error": (500, "server_error", "internal_error"),
    "overloaded_error": (503, "server_error", "overloaded"),
}
TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without what looks like a key, and without `secrets`: an upstream may echo whatever was sent to it."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return _SECRET.sub("sk-…", text)


def to_upstream_error(
    status: int,
    body: Any,
    headers: Mapping[str, str],
    *,
    message_sources: tuple[tuple[int, ...], ...] = (),
    request_id: str | None = None,
    secrets: Iterable[str] = (),
) -> UpstreamError:
    """`body` is the parsed JSON of the answer, or None where it was none (an edge's HTML page). No message repeats
    one of the `secrets`.

    An error event within a stream has the status 200 and is known by its type.
    """
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    kind = str(error.get("type") or "")
    is_anthropics = kind in _KNOWN
    if kind not in _KNOWN or status == 401:  # proxies and other servers have their own words
        kind = TYPE_OF_STATUS.get(status, kind if _WORD.fullmatch(kind) else "")
    said = error.get("message")
    text = scrubbed(str(said or _status_text(status)), secrets)
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    is_spend_limit = _is_spend_limit(text.lower(), str(error.get("error_code") or ""))
    made_status, made_type, code = _classify(kind, status, text, is_spend_limit)
    if status == 403 and not is_anthropics:  # a firewall on the way, which may mean this request alone
        made_status, made_type, code = _KNOWN["permission_error"]
    message, param = _with_our_paths(text, message_sources)
    made_headers = _retry_headers(headers, made_status, code)
    if code == "model_not_found":
        named = ModelNotFound(text.removeprefix("model: "))
        message, param = named.message, named.param
    meaning = _SPEND_LIMIT if is_spend_limit and code == "insufficient_quota" else _MEANINGS.get(code)
    if meaning is not None:
        message = f"{meaning} Anthropic says: {text}" if said else meaning
    return UpstreamError(
        message,
        status=made_status,
        type=made_type,
        code=code,
        param=param,
        headers=made_headers,
        upstream_status=status,
        upstream={
            "type": kind,
            "message": text,
            "request_id": _identifier(request_id or (body.get("request_id") if isinstance(body, dict) else None)),
        },
    )


def _identifier(value: Any) -> str | None:
    """An id that may stand in a header; another server's may be anything."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def _status_text(status: int) -> str:
    try:
        return f"Anthropic answered {status} {http.HTTPStatus(status).phrase}."
    except ValueError:
        return f"Anthropic answered {status}."


def _is_spend_limit(lowered: str, error_code: str) -> bool:
    return bool(_LIMIT_CODE.fullmatch(error_code) or _LIMIT_TEXT.match(lowered))


def _classify(kind: str, status: int, text: str, is_spend_limit: bool) -> tuple[int, str, str | None]:
    lowered = text.lower()
    may_be_quota = kind in ("invalid_request_error", "rate_limit_error")
    if may_be_quota and (is_spend_limit or _CREDIT_TEXT.match(lowered)):
        return _KNOWN["billing_error"]
    if kind == "not_found_error" and "model" in lowered:
        return 404, "invalid_request_error", "model_not_found"
    if kind == "permission_error" and "model" not in lowered and "feature" not in lowered:
        return _KNOWN["authentication_error"]
    if kind == "invalid_request_error":
        return 400, "invalid_request_error", _code_of_invalid_request(lowered)
    if kind in _KNOWN:
        return _KNOWN[kind]
    made_status = status if 400 <= status <= 599 else 502
    made_type = "server_error" if made_status >= 500 else "invalid_request_error"
    return made_status, made_type, kind or ("upstream_error" if made_status >= 500 else None)


def _code_of_invalid_request(lowered: str) -> str | None:
    if "prompt is too long" in lowered or "context window" in lowered or "context limit" in lowered:
        return "context_length_exceeded"
    if "image" in lowered:
        return "invalid_image"
    return "invalid_value" if "max_tokens" in lowered else None


def _with_our_paths(text: str, sources: tuple[tuple[int, ...], ...]) -> tuple[str, str | None]:
    """Anthropic's `messages.4.content…` as the index of the client's own message."""
    if "max_tokens" in text and "messages." not in text:
        return text, "max_tokens"
    match = _MESSAGE_PATH.search(text)
    own = _own_index(match, sources) if match else None
    if own is None:
        return text, None
    return _MESSAGE_PATH.sub(lambda m: _renumbered(m, sources), text), f"messages[{own}]"


def _own_index(match: re.Match[str], sources: tuple[tuple[int, ...], ...]) -> int | None:
    index = int(match[1])
    return sources[index][0] if index < len(sources) and sources[index] else None


def _renumbered(match: re.Match[str], sources: tuple[tuple[int, ...], ...]) -> str:
    own = _own_index(match, sources)
    return match[0] if own is None else f"messages.{own}{match[2]}"


def _retry_headers(upstream: Mapping[str, str], status: int, code: str | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    told = upstream.get("retry-after", "")
    retry_after = told if _DELAY.fullmatch(told) or _HTTP_DATE.fullmatch(told) else None
    if code == "overloaded" and retry_after is None:
        retry_after = str(OVERLOADED_RETRY_AFTER_S)
    if code in ("insufficient_quota", "upstream_authentication_failed"):
        headers["x-should-retry"] = "false"
    elif retry_after is not None and status in (429, 503):
        headers["retry-after"] = retry_after
        if _DELAY.fullmatch(retry_after):
            headers["retry-after-ms"] = str(round(float(retry_after) * 1000))
    if upstream.get("x-should-retry") in ("true", "false") and "x-should-retry" not in headers:
        headers["x-should-retry"] = upstream["x-should-retry"]
    return headers
