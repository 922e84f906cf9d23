"""The way to Anthropic, made for streams.

urllib3 opens the connections, through proxies and TLS, as the settings say it; what goes over them is read and written
here: a request is one write, and a read takes all that has arrived, costs one system call, and can be given up and
taken up again. Through the SDK's own transport a paced stream costs three times the CPU.
"""

from __future__ import annotations

import socket
import ssl
import time
import urllib.parse
import urllib.request
import weakref
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import certifi
import gevent
import httpx2
import urllib3
from gevent import monkey
from gevent.hub import Waiter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util import parse_url

from app.errors import ConfigError
from app.settings import Settings
from app.turns import EVERY_S, give_turn
from app.upstream.http1 import BadResponse, ResponseDecoder
from app.upstream.waiting import is_silent_and_open

_READ_SIZE = 16384
_SHARE = 0.1
"""Of a worker's time, what one answer may take without queuing up for it. A paced stream takes a hundredth."""
_CONNECTIONS_KEPT = 64
_KEPT_S = 60.0
_WRITTEN_AT_ONCE = 65536
_DRAINED_WITHIN_S = 0.2
_MOST_OF_AN_ANSWER = 64 * 1024 * 1024
"""Bytes, four times what the longest answers are with all that streams put around them."""
_MOST_OF_AN_ERROR = 1024 * 1024
_STALE_WITHIN_S = 2.0
"""After that a connection that breaks off was not closed for being old: the request may be under way."""
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),  # Claude may think for minutes: a peer that has vanished is noticed
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]


class Wire:
    """An open connection. A wait for it can be interrupted by an exception without harm."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._socket: Any = connection.sock
        self._socket.settimeout(None)
        self._pending = getattr(self._socket, "pending", None)
        # TLS within TLS has no socket to watch.
        self._is_watched = monkey.is_module_patched("socket") and isinstance(self._socket, socket.socket)
        self._has_more = False
        self._readable: Any = None
        self._timer: Any = None
        self._timer_s = 0.0
        self._worked_since = 0.0
        self._paid_until = 0.0
        """In monotonic seconds, as is the former: when its share of the time will have made up for what it worked."""
        self.was_used = False
        self.idle_since = 0.0

    def send(self, head: bytes, body: bytes | bytearray) -> None:
        self._has_more = False
        if len(body) <= _WRITTEN_AT_ONCE:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)
        self._worked_since = time.monotonic()

    def receive(self, seconds: float | None) -> bytes | None:
        """What has arrived, b"" at the end; None when nothing came in time. Raises OSError."""
        self._give_turn_if_hasty()
        try:
            return self._received(seconds)
        finally:
            self._worked_since = time.monotonic()

    def _give_turn_if_hasty(self) -> None:
        """An upstream may send without pause. Others, of which each read wants a moment, do not queue up behind those
        that work for long: whatever waits for the socket goes on first in each round of the loop. What a client takes
        long to read counts as work, too: then it queues up once where it need not."""
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now) + (now - self._worked_since) / _SHARE
        if self._paid_until - now > EVERY_S / _SHARE:
            give_turn()
            self._paid_until = 0.0

    def _received(self, seconds: float | None) -> bytes | None:
        is_there = False
        if self._is_watched and not self._has_more and not self._holds_bytes():
            if not self._wait(seconds):
                return None
            is_there = self._pending is None  # of a record of TLS perhaps only a part
        try:
            data = self._read() if is_there else self._read_within(seconds)
        except TimeoutError as error:
            if error.errno is not None:  # the kernel's: the other side is gone
                raise
            return None
        self._has_more = len(data) == _READ_SIZE
        return data

    def _read(self) -> bytes:
        data: bytes = self._socket.recv(_READ_SIZE)
        return data

    def _read_within(self, seconds: float | None) -> bytes:
        self._socket.settimeout(seconds)
        try:
            return self._read()
        finally:
            self._socket.settimeout(None)  # or it would bound the next request's way out

    def _holds_bytes(self) -> bool:
        """Of TLS: decrypted, and not in the socket any more."""
        return self._pending is not None and self._pending() > 0

    def _wait(self, seconds: float | None) -> bool:
        """Whether there is something to read. gevent's own wait makes a timer and two watchers for each."""
        waiter = Waiter()
        if self._readable is None:
            self._readable = gevent.get_hub().loop.io(self._socket.fileno(), 1)
        if seconds is not None and seconds != self._timer_s:
            self._timer = gevent.get_hub().loop.timer(seconds, seconds)
            self._timer_s = seconds
        self._readable.start(waiter.switch, True)
        try:
            if seconds is not None:
                self._timer.again(waiter.switch, False, update=False)
            return bool(waiter.get())
        finally:
            self._readable.stop()
            if seconds is not None:
                self._timer.stop()

    def is_usable(self) -> bool:
        """Whether another request may be sent: it lies idle, and nothing has come meanwhile."""
        return not self._holds_bytes() and is_silent_and_open(self._socket.fileno())

    def close(self) -> None:
        for watcher in (self._readable, self._timer):
            if watcher is not None:
                watcher.close()
        self._readable = self._timer = None
        self._connection.close()


class Response:
    """Its head is there. The connection is used again if the body was read to its end."""

    def __init__(
        self, transport: Transport, wire: Wire, decoder: ResponseDecoder, start: bytes, timeout_s: float | None
    ) -> None:
        self._transport = transport
        self._wire: Wire | None = wire
        self._decoder = decoder
        self._start = start
        self._timeout_s = timeout_s
        self._left = _MOST_OF_AN_ANSWER if self.is_success else _MOST_OF_AN_ERROR

    @property
    def status(self) -> int:
        return self._decoder.status

    @property
    def is_success(self) -> bool:
        return 200 <= self._decoder.status < 300

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        found: dict[str, str] = {}
        for raw_name, raw in self._decoder.headers:
            name, value = raw_name.decode().lower(), _decoded(raw)
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    def read(self) -> bytes:
        """What has arrived, b"" at the end. Raises httpx2.TransportError."""
        data = self.read_within(self._timeout_s)
        if data is None:
            raise httpx2.ReadTimeout("nothing came in time")
        return data

    def read_within(self, seconds: float | None) -> bytes | None:
        """The same; None when nothing came in time: it may be asked again."""
        if self._start:
            start, self._start = self._start, b""
            return self._counted(start)
        ends_at = None if seconds is None else time.monotonic() + seconds
        while not self._decoder.is_complete:
            assert self._wire is not None, "read after close"
            with _as_httpx_errors:
                data = _receive(self._wire, self._decoder, seconds)
            if data is None or data:
                return data and self._counted(data)
            if ends_at is not None:  # some came, but nothing of the body
                seconds = max(0.001, ends_at - time.monotonic())
        return b""

    def _counted(self, data: bytes) -> bytes:
        """Of an error the beginning says enough. Raises httpx2.TransportError for any other answer without end."""
        self._left -= len(data)
        if self._left >= 0:
            return data
        if self.is_success:
            raise httpx2.RemoteProtocolError("the answer is too large")
        return b""

    def read_all(self) -> bytes:
        """The rest. Raises httpx2.TransportError."""
        return b"".join(iter(self.read, b""))

    def read_what_comes(self, seconds: float) -> bytes:
        """Of the rest what comes in time, before the connection breaks off."""
        until, pieces = time.monotonic() + seconds, []
        with suppress(httpx2.TransportError):
            while (left_s := until - time.monotonic()) > 0 and (piece := self.read_within(left_s)):
                pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if self._decoder.is_complete and self._decoder.keeps_alive:
            self._transport.take_back(wire)
        else:
            wire.close()


def drain(response: Response) -> None:
    """The end of the transfer coding follows the last event at once; read, it leaves the connection usable."""
    ends_at = time.monotonic() + _DRAINED_WITHIN_S
    with suppress(httpx2.TransportError):
        while (left_s := ends_at - time.monotonic()) > 0 and response.read_within(left_s):
            pass


class WayOut:
    """How Anthropic is reached from here: the same certificate authorities and proxies for all connections."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError."""
        self._settings = settings
        self._options: Any = {"ssl_context": _ssl_context(settings), "socket_options": _SOCKET_OPTIONS}
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

    def transport(self, base_url: str) -> Transport:
        """With connections of its own; close() it."""
        parts = parse_url(base_url)
        scheme, proxy = parts.scheme or "http", None
        if scheme in self._proxies and not self._is_bypassed(parts.netloc or ""):
            proxy = self._proxy_manager(*self._proxies[scheme])
        manager = proxy or urllib3.PoolManager(**self._options)
        return Transport(manager.connection_from_url(base_url), proxy, scheme)

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
        return urllib3.ProxyManager(address, proxy_headers=headers, **self._options)


class Transport:
    """To one base URL, over connections of its own that stay open for the next request."""

    def __init__(self, pool: urllib3.HTTPConnectionPool, proxy: urllib3.ProxyManager | None, scheme: str) -> None:
        self._pool = pool
        self._tunnels = proxy is not None and scheme == "https"
        self._forwards = proxy is not None and not self._tunnels
        self._proxy_headers = [
            (name.encode(), value.encode()) for name, value in (proxy.proxy_headers if proxy else {}).items()
        ]
        self._idle: list[Wire] = []
        self._is_closed = False
        weakref.finalize(self, _close_all, self._idle)

    def head(self, request: httpx2.Request) -> bytes:
        """What `send` takes, of a request without a body. Raises httpx2.LocalProtocolError."""
        target = str(request.url).encode() if self._forwards else request.url.raw_path
        headers = [header for header in request.headers.raw if header[0].lower() != b"content-length"]
        headers += self._proxy_headers if self._forwards else ()
        lines = [request.method.encode() + b" " + target + b" HTTP/1.1", *(b"%b: %b" % header for header in headers)]
        head = b"\r\n".join(lines) + b"\r\n"
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise httpx2.LocalProtocolError("a line of the request's head has a line break in it")
        return head

    def send(
        self, head: bytes, body: bytes | bytearray | None, *, connect_s: float | None, read_s: float | None
    ) -> Response:
        """Raises httpx2.TransportError. Close what it answers."""
        head += b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n" % len(body)
        wire = self._take() or self._connect(connect_s)
        try:
            decoder, start = _exchange(wire, head, body or b"", read_s)
        except _Stale:
            # The other side had closed it, or did in the moment in which it was taken: what it got, it did not look at.
            # The others may be as old.
            _close_all(self._idle)
            wire = self._connect(connect_s)
            decoder, start = _exchange(wire, head, body or b"", read_s)
        wire.was_used = True
        return Response(self, wire, decoder, start, read_s)

    def _take(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.is_usable():
                return wire
            wire.close()
        return None

    def take_back(self, wire: Wire) -> None:
        if self._is_closed or len(self._idle) >= _CONNECTIONS_KEPT:
            wire.close()
            return
        wire.idle_since = time.monotonic()
        self._idle.append(wire)

    def _connect(self, timeout_s: float | None) -> Wire:
        connection: Any = self._pool._new_conn()
        connection.timeout = timeout_s
        try:
            if self._tunnels:
                self._pool._prepare_proxy(connection)
            else:
                connection.connect()
            return Wire(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectTimeoutError | TimeoutError) and not isinstance(error, NewConnectionError):
                raise httpx2.ConnectTimeout(_text(error)) from error
            if isinstance(error, OSError | HTTPError | HTTPException):  # the last of a proxy that speaks no HTTP
                raise httpx2.ConnectError(_text(error)) from error
            raise

    def close_idle(self) -> None:
        """Closes what has lain idle for a while."""
        now = time.monotonic()
        while self._idle and now - self._idle[0].idle_since > _KEPT_S:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Closes idle connections now, and those in use when their answers are over. A request that comes late is still
        sent."""
        self._is_closed = True
        _close_all(self._idle)


def _close_all(wires: list[Wire]) -> None:
    while wires:
        wires.pop().close()


class _Stale(Exception):
    """A connection that was kept gave not one byte of an answer."""


def _exchange(
    wire: Wire, head: bytes, body: bytes | bytearray, timeout_s: float | None
) -> tuple[ResponseDecoder, bytes]:
    """Sends a request. Answers its decoder, when it has the head of the response, and what came of the body. Closes
    the wire when it raises."""
    sent_at = time.monotonic()
    decoder = ResponseDecoder()
    try:
        with _as_httpx_errors:
            with suppress(BrokenPipeError, ConnectionResetError):  # there may be an answer that says why
                wire.send(head, body)
            while True:
                start = _receive(wire, decoder, timeout_s)
                if start is None:
                    raise httpx2.ReadTimeout("nothing came in time")
                if decoder.status:
                    return decoder, start
    except httpx2.RemoteProtocolError as error:
        wire.close()
        if wire.was_used and not decoder.has_begun and time.monotonic() - sent_at < _STALE_WITHIN_S:
            raise _Stale from error
        raise
    except BaseException:
        wire.close()
        raise


def _receive(wire: Wire, decoder: ResponseDecoder, seconds: float | None) -> bytes | None:
    data = wire.receive(seconds)
    if data:
        return decoder.feed(data)
    if data is not None:
        decoder.end()
    return data


class _AsHttpxErrors:
    """The socket's errors and the decoder's in the SDK's terms."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError | BadResponse):
            raise httpx2.RemoteProtocolError(str(error) or type(error).__name__) from error


_as_httpx_errors = _AsHttpxErrors()


class _SSLContext(ssl.SSLContext):
    def wrap_socket(self, sock: Any, *_: Any, server_hostname: Any = None, **__: Any) -> Any:
        """A handshake that is given up leaves no socket behind: nobody else has it yet."""
        wrapped = super().wrap_socket(sock, do_handshake_on_connect=False, server_hostname=server_hostname)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    context = _SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificate and host name
    try:
        context.load_verify_locations(settings.ssl_cert_file or certifi.where())
    except OSError as error:
        raise ConfigError(f"SSL_CERT_FILE: {settings.ssl_cert_file} cannot be read as PEM ({error}).") from error
    return context


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _text(error: BaseException) -> str:
    """Without the address of the pool object that urllib3 puts in front."""
    return str(error).rpartition("): ")[2] or type(error).__name__
