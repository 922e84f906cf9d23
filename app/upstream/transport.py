"""The SDK's HTTP transport, on urllib3.

Reading a paced stream through the SDK's own transport costs about three times the CPU. Proxies and certificate
authorities come from the settings as the SDK's transport would take them from the environment.
"""

from __future__ import annotations

import ssl
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse as HeadAndFile
from typing import Any, cast

import certifi
import httpx2
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.util import Timeout

from app.errors import ConfigError
from app.settings import Settings
from app.upstream.body import BodyReader

_CONNECTIONS_KEPT = 64
BODY = "dragoman_body"
"""Extension of the response under which the Body stands: the client wraps the stream, and a wrapped generator cannot
be taken up again after a timer interrupted it."""


class Body(httpx2.SyncByteStream):
    """The response's body; the connection is used again if it was read to its end."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response
        self._reader = BodyReader(cast(HeadAndFile, response._fp))

    def read(self) -> bytes:
        """What has arrived, b"" at the end. Raises httpx2.TransportError."""
        try:
            return self._reader.read()
        except (TimeoutError, OSError, HTTPError) as error:
            raise _as_httpx_error(error) from error

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def close(self) -> None:
        if self._reader.is_complete:
            cast(HeadAndFile, self._response._fp).close()  # ends the response, not the connection
            self._response.release_conn()
        else:
            self._response.close()


class WayOut:
    """How Anthropic is reached from here: the same certificate authorities and proxies for all connections."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError."""
        self._settings = settings
        self._context = _ssl_context(settings)
        self._proxies = {
            scheme: (name, url)
            for scheme, name, url in (
                ("https", "HTTPS_PROXY", settings.https_proxy),
                ("http", "HTTP_PROXY", settings.http_proxy),
            )
            if url
        }
        for name, url in self._proxies.values():
            self._proxy_manager(name, url)

    def transport(self, base_url: str) -> Urllib3Transport:
        """With sockets of its own; close() it."""
        parts = urllib.parse.urlsplit(base_url)
        proxy = self._proxies.get(parts.scheme)
        if proxy is None or self._is_bypassed(parts.netloc.rpartition("@")[2]):
            manager = urllib3.PoolManager(maxsize=_CONNECTIONS_KEPT, block=False, ssl_context=self._context)
            return Urllib3Transport(manager, manager.connection_from_url(base_url))
        return Urllib3Transport(self._proxy_manager(*proxy), None)

    def _is_bypassed(self, host: str) -> bool:
        return bool(urllib.request.proxy_bypass_environment(host, {"no": self._settings.no_proxy}))  # type: ignore[attr-defined]  # typeshed lacks it

    def _proxy_manager(self, name: str, url: str) -> urllib3.ProxyManager:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{name} must be a URL such as http://proxy.example:3128.")
        headers = None
        if parts.username:
            credentials = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            headers = urllib3.make_headers(proxy_basic_auth=credentials)
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return urllib3.ProxyManager(
            address, proxy_headers=headers, maxsize=_CONNECTIONS_KEPT, block=False, ssl_context=self._context
        )


class Urllib3Transport(httpx2.BaseTransport):
    """To one base URL: directly through `pool`, or by what the manager finds for each URL."""

    def __init__(self, manager: urllib3.PoolManager, pool: urllib3.HTTPConnectionPool | None) -> None:
        self._manager = manager
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        options: Any = {
            "body": request.content,
            "headers": urllib3.HTTPHeaderDict(request.headers.multi_items()),
            "timeout": Timeout(connect=timeouts.get("connect"), read=timeouts.get("read")),
            "preload_content": False,
            "decode_content": False,
            "redirect": False,
            "retries": False,
        }
        try:
            if self._pool is not None:
                response = self._pool.urlopen(request.method, request.url.raw_path.decode("ascii"), **options)
            else:
                response = self._manager.urlopen(request.method, str(request.url), **options)
        except (TimeoutError, OSError, HTTPError) as error:
            raise _as_httpx_error(error) from error
        body = Body(cast(urllib3.HTTPResponse, response))
        return httpx2.Response(
            response.status, headers=list(response.headers.items()), stream=body, extensions={BODY: body}
        )

    def close(self) -> None:
        """Closes the idle sockets; those in use go with their last user. A request that comes late is still sent."""
        pools = [self._pool] if self._pool else [self._manager.pools[key] for key in self._manager.pools.keys()]  # noqa: SIM118  # it cannot be iterated over
        for pool in pools:
            _close_idle(pool)


def _close_idle(pool: urllib3.HTTPConnectionPool) -> None:
    """urllib3's own close() would refuse requests from then on."""
    places = pool.pool
    assert places is not None  # as it is until urllib3's close()
    for connection in [places.get_nowait() for _ in range(places.qsize())]:
        if connection is not None:
            connection.close()
        places.put_nowait(None)


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ssl_cert_file or certifi.where())
    except OSError as error:
        raise ConfigError(f"SSL_CERT_FILE: {settings.ssl_cert_file} cannot be read as PEM ({error}).") from error


def _as_httpx_error(error: Exception) -> httpx2.TransportError:
    """urllib3's and the socket's errors in the SDK's terms."""
    reason: Any = error
    if isinstance(error, ProtocolError) and len(error.args) > 1:
        reason = error.args[1]
    if isinstance(error, NewConnectionError | ProxyError | ssl.SSLError | urllib3.exceptions.SSLError):
        return httpx2.ConnectError(_text(error))
    if isinstance(error, ConnectTimeoutError):
        return httpx2.ConnectTimeout(_text(error))
    if isinstance(error, ReadTimeoutError) or isinstance(reason, TimeoutError):
        return httpx2.ReadTimeout(_text(error))
    return httpx2.RemoteProtocolError(_text(error))


def _text(error: Exception) -> str:
    """Without the address of the pool object that urllib3 puts in front."""
    return str(error).rpartition("): ")[2] or type(error).__name__
