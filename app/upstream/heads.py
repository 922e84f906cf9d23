"""The heads of requests to Anthropic: what the SDK would send, made by its own client once for all that are alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import anthropic
import httpx2

from app.storage.connections import Connection
from app.translate.translation import API_VERSION_WITH_SAMPLING
from app.upstream.sdk import new_sdk
from app.upstream.transport import Transport
from app.version import VERSION

BETA_HEADER = "anthropic-beta"
_KEPT = 64
"""Clients choose their beta features, so there may be many of a connection."""
_SAID_BY_CLIENTS = re.compile(r"accept|user-agent|anthropic-.*|x-stainless-.*")
"""Of a relayed request: what the SDK would say of itself."""
_UNSAID = {
    "accept": "application/json",
    "anthropic-version": API_VERSION_WITH_SAMPLING,
    "user-agent": f"dragoman/{VERSION}",
}
_RELAYED_TIMEOUT_S = 600
"""It is not told."""


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
        configured = {name.lower(): value for name, value in connection.headers.items()}
        self._betas = configured.pop(BETA_HEADER, "")
        self._configured = frozenset(configured)

        def request(
            method: str,
            path: str,
            headers: tuple[tuple[str, str], ...],
            params: tuple[tuple[str, Any], ...],
            timeout_s: int,
        ) -> httpx2.Request:
            options: Any = {"headers": dict(headers), "params": dict(params), "timeout": httpx2.Timeout(timeout_s)}
            if method == "GET":
                return sdk.get(path, cast_to=httpx2.Response, options=options).request
            return sdk.post(path, cast_to=httpx2.Response, content=b"", options=options).request

        @lru_cache(_KEPT)
        def made(*asked: Any) -> bytes:
            return transport.head(request(*asked))

        @lru_cache(_KEPT)
        def standing(path: str, beta: bool) -> bytes:
            sdks = request("POST", path, (), (("beta", "true"),) if beta else (), _RELAYED_TIMEOUT_S)
            for name in [*sdks.headers]:
                if _SAID_BY_CLIENTS.fullmatch(name) and name not in self._configured:
                    del sdks.headers[name]
            return transport.head(sdks)

        self._made = made
        self._standing = standing

    def post(self, path: str, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """`headers` are those of this request alone. Raises httpx2.LocalProtocolError."""
        return self._made("POST", path, tuple(headers.items()), (), math.ceil(timeout_s))

    def relay(self, path: str, headers: Mapping[str, str], *, beta: bool) -> bytes:
        """`headers` are the client's, by lower-case name, all ASCII without line breaks: they replace what the SDK says
        of itself, and are replaced by what the connection is configured to send; of beta features both hold. Raises
        httpx2.LocalProtocolError."""
        said = {**_UNSAID, **headers}
        betas = [each for value in (said.pop(BETA_HEADER, ""), self._betas) for each in value.split(",")]
        if betas := [*dict.fromkeys(name for each in betas if (name := each.strip()))]:
            said[BETA_HEADER] = ",".join(betas)
        lines = [f"{name}: {value}\r\n" for name, value in said.items() if name not in self._configured]
        return self._standing(path, beta) + "".join(lines).encode("ascii")

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
