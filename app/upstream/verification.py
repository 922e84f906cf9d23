"""Trying a connection out, with what is wrong in words that help."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass

from app.errors import UpstreamError
from app.storage.config import Connection
from app.translate.translation import API_VERSION, ReplyContext, Translation
from app.upstream.catalogue import list_models
from app.upstream.client import UpstreamClient
from app.upstream.limits import Limits
from app.upstream.pool import Pool

_MESSAGE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Verification:
    """`status` is the upstream's HTTP status, None when it did not answer."""

    ok: bool
    status: int | None
    latency_ms: int
    models: list[str]
    error: str | None


def verify(pool: Pool, connection: Connection, model: str | None = None) -> Verification:
    """Lists the models, and with `model` has it write one token."""
    started = time.monotonic()
    models: list[str] = []
    client = pool.new_client(connection)
    try:
        models = [m["id"] for m in list_models(client)]
        if model is not None:
            _one_token(client, model)
    except UpstreamError as error:
        return Verification(False, error.upstream_status, _since(started), models, in_plain_words(error, connection))
    finally:
        client.transport.close()
    return Verification(True, 200, _since(started), models, None)


def _one_token(client: UpstreamClient, model: str) -> None:
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    translation = Translation(body, {"anthropic-version": API_VERSION}, may_run_long=False, reply=ReplyContext())
    limits = Limits(_MESSAGE_TIMEOUT_S, _MESSAGE_TIMEOUT_S)
    client.send(translation, stream=False, limits=limits).close()


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def in_plain_words(error: UpstreamError, connection: Connection) -> str:
    """What is wrong with a connection and what to do about it, for its admin."""
    host = urllib.parse.urlsplit(connection.base_url).netloc
    # Of a failure of our own only the cause: that the host could not be reached is what the advice says.
    said = (error.upstream or {}).get("message") or error.message.partition(f" at {host}: ")[2]
    advice = {
        "upstream_authentication_failed": f"{host} refused the key. Check that it was copied whole and is not revoked.",
        "upstream_unreachable": f"{host} cannot be reached from here. Check the base URL, the network and the proxy.",
        "timeout": f"{host} did not answer in time.",
        "insufficient_quota": "The key is right, but its account has no credit left or has reached its spend limit.",
        "rate_limit_exceeded": "The key is right, but its rate limit is used up at the moment.",
        "model_not_found": "The key is right, but this account has no such model.",
        "not_found": f"{host} answers, but it is no Anthropic API. Check the base URL.",
        "upstream_invalid_response": f"{host} answers, but it is no Anthropic API. Check the base URL.",
        "overloaded": "Anthropic is overloaded at the moment; the key may well be right. Try again in a minute.",
    }.get(error.code or "")
    return f"{advice} ({said})" if advice and said not in advice else advice or said or error.message
