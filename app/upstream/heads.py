"""The heads of requests to Anthropic: what the SDK would send, made by its own client once for all that are alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import anthropic
import httpx2

from app.storage.connections import Connection
from app.upstream.sdk import new_sdk
from app.upstream.transport import Transport

_KEPT = 64
"""Clients choose their beta features, so there may be many of a connection."""


class Heads:
    """Of one connection, as `transport` writes them: all but the body's length. A time-out is told in whole seconds."""

    def __init__(self, connection: Connection, transport: Transport) -> None:
        sdk = new_sdk(
            api_key=connection.key,
            base_url=connection.base_url,
            max_retries=0,
            default_headers=headers_of(connection),
            http_client=httpx2.Client(transport=httpx2.MockTransport(_answer_nothing), trust_env=False),
            open_telemetry=False,
        )

        @lru_cache(_KEPT)
        def made(
            method: str,
            path: str,
            headers: tuple[tuple[str, str], ...],
            params: tuple[tuple[str, Any], ...],
            timeout_s: int,
        ) -> bytes:
            options: Any = {"headers": dict(headers), "params": dict(params), "timeout": httpx2.Timeout(timeout_s)}
            if method == "GET":
                response = sdk.get(path, cast_to=httpx2.Response, options=options)
            else:
                response = sdk.post(path, cast_to=httpx2.Response, content=b"", options=options)
            return transport.head(response.request)

        self._made = made

    def post(self, path: str, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """`headers` are those of this request alone. Raises httpx2.LocalProtocolError."""
        return self._made("POST", path, tuple(headers.items()), (), math.ceil(timeout_s))

    def get(self, path: str, params: Mapping[str, Any], timeout_s: float) -> bytes:
        """Raises httpx2.LocalProtocolError."""
        return self._made("GET", path, (), tuple(params.items()), math.ceil(timeout_s))


def headers_of(connection: Connection) -> Any:
    """Of every request. The SDK sends its key as `Authorization: Bearer`, which is taken off where `x-api-key` goes."""
    headers: dict[str, Any] = {"accept-encoding": "identity"}
    if connection.auth == "x-api-key":
        headers.update({"x-api-key": connection.key, "authorization": anthropic.omit})
    return {**headers, **{name.lower(): value for name, value in connection.headers.items()}}


def _answer_nothing(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200)
