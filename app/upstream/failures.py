"""How a call to Anthropic fails without an answer of its own, or with one that cannot be read."""

from __future__ import annotations

import logging
from typing import Any

from app.errors import UpstreamError
from app.translate import exact_json
from app.translate.errors import scrubbed
from app.translate.json_depth import is_deeper_than

log = logging.getLogger(__name__)
_DEEPEST = 200


class Understanding:
    """Around the reading of an answer: what is not as Anthropic documents it is the upstream's fault, not ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyError | TypeError | AttributeError | ValueError | IndexError | RecursionError):
            log.warning("an answer could not be read", exc_info=error)
            raise not_understood("it is not as Anthropic's API documents it") from error


understanding = Understanding()


def not_understood(what: str) -> UpstreamError:
    return UpstreamError(
        f"Anthropic's answer could not be read: {what}.",
        status=502,
        type="server_error",
        code="upstream_invalid_response",
    )


def json_value(raw: bytes) -> Any:
    """None where it is no JSON."""
    try:
        return exact_json.loads(raw.decode())
    except ValueError:
        return None


def json_object(raw: bytes) -> dict[str, Any]:
    value = json_value(raw)
    if not isinstance(value, dict):
        raise not_understood("it is not a JSON object")
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST and is_deeper_than(value, _DEEPEST):
        raise not_understood("it is nested too deep")
    return value


def timed_out(seconds: float) -> UpstreamError:
    return UpstreamError(
        f"Anthropic did not answer within {seconds:g} s.", status=504, type="server_error", code="timeout"
    )


def silent(seconds: float) -> UpstreamError:
    return UpstreamError(
        f"Anthropic was silent for {seconds:g} s in the middle of its answer.",
        status=504,
        type="server_error",
        code="upstream_timeout",
    )


def disconnected(error: Exception) -> UpstreamError:
    return UpstreamError(
        f"The connection to Anthropic broke off in the middle of the answer: {scrubbed(str(error))}",
        status=502,
        type="server_error",
        code="upstream_disconnected",
    )


def cut_short() -> UpstreamError:
    return UpstreamError(
        "Anthropic's answer ended before it was complete.",
        status=502,
        type="server_error",
        code="upstream_disconnected",
    )
