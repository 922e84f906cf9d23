"""The gateway's errors as Anthropic's clients know them, and which of Anthropic's own they get as they are.

https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.errors import Forwarded, GatewayError, UpstreamError
from app.translate.errors import TYPE_OF_STATUS

_STATUSES = {kind: status for status, kind in reversed(TYPE_OF_STATUS.items())}
_OUR_CREDENTIAL = "upstream_authentication_failed"
"""The client's own was in order: told as such it would send an agent to its sign-in page."""
_ANTHROPICS_CODES = {
    "thread_unsupported_request": "thread_unsupported_request",
    "unknown_url": "gateway_route_not_served",
    "unsupported_media_type": "request_body_encoding_unsupported",
}
_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "allow", "accept-encoding", "www-authenticate")
_EDGE_STATUSES = range(520, 528)
_LONGEST_WAIT_S = 60
"""What waits longer gives up at once."""


def forwarded(error: GatewayError) -> Forwarded | None:
    """Anthropic's answer, if the client gets it as it is."""
    if isinstance(error, UpstreamError) and error.code != _OUR_CREDENTIAL:
        return error.forwarded
    return None


def to_anthropic_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """(status, headers, body) of an error that the gateway tells in its own words."""
    status, kind, message = _told(error)
    told: dict[str, Any] = {"type": kind, "message": message}
    code = error.code if not (isinstance(error, UpstreamError) and error.upstream) else None
    if code is not None or status == 400:
        told["details"] = {"error_code": _ANTHROPICS_CODES.get(str(code), f"gateway_{code or 'bad_request'}")}
    headers = {name: value for name, value in error.headers.items() if name in _HEADERS}
    if error.code == _OUR_CREDENTIAL or status in (401, 403):  # agents ask ten times with a key that was refused
        headers["x-should-retry"] = "false"
    headers["request-id"] = request_id
    return status, headers, {"type": "error", "error": told, "request_id": request_id}


def _told(error: GatewayError) -> tuple[int, str, str]:
    """(status, type, message)."""
    upstream = error.upstream if isinstance(error, UpstreamError) else None
    if upstream and error.code != _OUR_CREDENTIAL:
        assert isinstance(error, UpstreamError)
        said = error.upstream_status or 0
        status = said if said >= 400 else _STATUSES.get(upstream["type"], 500)
        status = 502 if status in _EDGE_STATUSES else status
        return status, upstream["type"] or _type_of(status), upstream["message"]
    status = 503 if error.code == "upstream_unreachable" else error.status
    return status, _type_of(status), error.message


def _type_of(status: int) -> str:
    return TYPE_OF_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")


def to_error_event(error: GatewayError, request_id: str) -> dict[str, Any]:
    """The `error` event in which a stream ends whose head has gone out."""
    _, _, body = to_anthropic_error(error, request_id)
    if error.code == "gateway_stopping":
        body["error"]["type"] = "overloaded_error"
    return body


def chosen(errors: Sequence[UpstreamError]) -> UpstreamError:
    """Of the failures of several attempts the one that the client is told: the last, if they are alike; else a limit
    with the shortest wait, then what is overloaded, then other failures of the server."""
    last = errors[-1]
    if all((e.upstream_status, e.code) == (last.upstream_status, last.code) for e in errors):
        return last

    def rank(error: UpstreamError) -> tuple[int, float]:
        if error.code == "rate_limit_exceeded":
            return 0, _wait_s(error)
        if error.code == "overloaded":
            return 1, 0.0
        return (2 if error.forwarded is not None and error.status >= 500 else 3), 0.0

    best = min(rank(error) for error in errors)
    return next(error for error in reversed(errors) if rank(error) == best)


def _wait_s(error: UpstreamError) -> float:
    try:
        return float(error.headers.get("retry-after", ""))
    except ValueError:
        return _LONGEST_WAIT_S


def with_bounded_wait(error: UpstreamError) -> UpstreamError:
    """An error of the gateway's, which knows of no wait that is longer: it asks again by itself before."""
    if _wait_s(error) > _LONGEST_WAIT_S:
        error.headers.update({"retry-after": str(_LONGEST_WAIT_S), "retry-after-ms": str(1000 * _LONGEST_WAIT_S)})
    return error
