"""Connections to the upstream, over real sockets: kept, given up, taken up again. The last test runs the others under
gevent, as the gateway does."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization

from app.settings import Settings
from app.upstream import transport as module
from app.upstream.transport import Response, Transport, WayOut
from tests.conftest import ROOT, wait_for
from tests.upstream.test_outbound import certificate

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[Any, int], None]
"""What the server does with one request on a connection: (the socket, how many requests came before)."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_request(connection: Any, *, body: bool = True) -> bytes:
    """The request's bytes, b"" when the client has gone."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return b""
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while body and lengths and len(rest) < int(lengths[0]):
        rest += connection.recv(65536)
    return head + b"\r\n\r\n" + rest


class Server:
    """Plays a script for each request; notes how many connections there were and what was asked."""

    def __init__(self, script: Script, *, reads_body: bool = True, context: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.read: Callable[..., bytes] = read_request
        self._script, self._reads_body, self._context = script, reads_body, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: Any) -> None:
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                count = 0
                while request := self.read(connection, body=self._reads_body):
                    self.requests.append(request)
                    self._script(connection, count)
                    count += 1
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(script: Script, **options: Any) -> Server:
        servers.append(Server(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def to() -> Iterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def transport(url: str, **settings: Any) -> Transport:
        made.append(WayOut(Settings(**settings)).transport(url))
        return made[-1]

    yield transport
    for each in made:
        each.close()


def ask(transport: Transport, url: str, body: bytes = b"{}", read_s: float = 5.0, **headers: str) -> Response:
    head = transport.head(httpx2.Request("POST", f"{url}/v1/messages", headers=headers))
    return transport.send(head, body, connect_s=5.0, read_s=read_s)


def whole(response: Response) -> bytes:
    read = response.read_all()
    response.close()
    return read


def test_a_connection_is_kept_for_the_next_request(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.sendall(OK))
    transport = to(server.url)
    for _ in range(3):
        assert whole(ask(transport, server.url)) == b"ok"
    assert (server.connections, len(server.requests)) == (1, 3)


def test_one_that_was_not_read_to_its_end_is_not_kept(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.sendall(HEAD + chunk(b"one") + chunk(b"two")))
    transport = to(server.url)
    body = ask(transport, server.url)
    body.read()
    body.close()
    body.close()
    assert transport._idle == []
    ask(transport, server.url).close()
    assert server.connections == 2


def test_what_comes_unasked_ends_a_connection(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.sendall(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"))
    transport = to(server.url)
    for _ in range(3):
        assert whole(ask(transport, server.url)) == b"ok"
    assert server.connections == 3


def test_one_that_the_server_closed_while_it_lay_idle_is_not_used(serve: Any, to: Any) -> None:
    def script(connection: Any, _: int) -> None:
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)

    server = serve(script)
    transport = to(server.url)
    assert whole(ask(transport, server.url)) == b"ok"
    wait_for(lambda: not transport._idle[0].is_usable(), what="the end has arrived")
    assert whole(ask(transport, server.url)) == b"ok"
    assert (server.connections, len(server.requests)) == (2, 2)


def test_one_that_is_closed_upon_the_next_request_is_replaced(serve: Any, to: Any) -> None:
    def script(connection: Any, count: int) -> None:
        if count:
            connection.close()
        else:
            connection.sendall(OK)

    server = serve(script)
    transport = to(server.url)
    for _ in range(3):
        assert whole(ask(transport, server.url)) == b"ok"
    assert server.connections == 3


def test_however_many_lie_idle_a_request_goes_out_once_more_at_most(serve: Any, to: Any) -> None:
    is_broken = False
    bodies: list[Response] = []

    def script(connection: Any, _: int) -> None:
        if is_broken:
            connection.close()
        else:
            connection.sendall(OK)

    server = serve(script)
    transport = to(server.url)
    bodies = [ask(transport, server.url) for _ in range(10)]
    assert [whole(body) for body in bodies] == [b"ok"] * 10
    assert len(transport._idle) == 10
    is_broken = True
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(transport, server.url)
    assert len(server.requests) == 10 + 2


@pytest.mark.parametrize("start", [b"H", b"HTTP/1.1 200 OK\r\nx: y", b"SSH-2.0-x\r\n\r\n"])
def test_what_was_answered_with_anything_is_not_sent_again(serve: Any, to: Any, start: bytes) -> None:
    def script(connection: Any, count: int) -> None:
        connection.sendall(start if count else OK)
        if count:
            connection.close()

    server = serve(script)
    transport = to(server.url)
    assert whole(ask(transport, server.url)) == b"ok"
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(transport, server.url)
    assert len(server.requests) == 2


def test_a_new_one_that_is_closed_is_an_error_and_nothing_is_sent_twice(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.close())
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(to(server.url), server.url)
    assert (server.connections, len(server.requests)) == (1, 1)


def test_a_refusal_before_the_body_was_sent_is_read(serve: Any, to: Any) -> None:
    def script(connection: Any, _: int) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlarge")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):  # or the kernel would take the answer back
            pass

    server = serve(script, reads_body=False)
    response = ask(to(server.url), server.url, b"x" * 20_000_000)
    assert (response.status, whole(response)) == (413, b"large")


def test_a_read_is_given_up_and_taken_up_again(serve: Any, to: Any) -> None:
    go_on = [threading.Event() for _ in range(3)]

    def script(connection: Any, _: int) -> None:
        connection.sendall(HEAD)
        for number, event in enumerate(go_on):
            assert event.wait(10)
            piece = chunk(b"piece %d" % number)
            connection.sendall(piece[:4])
            connection.sendall(piece[4:])
        connection.sendall(b"0\r\n\r\n")

    server = serve(script)
    transport = to(server.url)
    body = ask(transport, server.url)
    received = b""
    for event in go_on:
        assert body.read_within(0.05) is None
        assert body.read_within(0.05) is None
        event.set()
        while not received.endswith(b"piece %d" % go_on.index(event)):
            received += body.read_within(5) or b""
    assert received + whole(body) == b"piece 0piece 1piece 2"
    assert len(transport._idle) == 1


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768])
def test_silence_after_a_full_read_is_noticed(serve: Any, to: Any, size: int) -> None:
    over = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"

    def script(connection: Any, _: int) -> None:
        connection.sendall(head + bytes(size - len(head)))
        over.wait(10)

    server = serve(script)
    body = ask(to(server.url), server.url)
    received = 0
    while (data := body.read_within(0.2)) is not None:
        received += len(data)
    assert received == size - len(head)
    body.close()
    over.set()


def test_bytes_that_are_none_of_the_body_do_not_lengthen_a_wait(serve: Any, to: Any) -> None:
    over = threading.Event()

    def script(connection: Any, _: int) -> None:
        connection.sendall(HEAD)
        for _ in range(200):  # the size of a chunk, without end
            connection.sendall(b"0")
            if over.wait(0.02):
                return

    server = serve(script)
    body = ask(to(server.url), server.url)
    began = time.monotonic()
    assert body.read_within(0.3) is None
    assert time.monotonic() - began < 1.5
    body.close()
    over.set()


def test_silence_is_a_time_out(serve: Any, to: Any) -> None:
    over = threading.Event()
    server = serve(lambda connection, _: over.wait(10))
    with pytest.raises(httpx2.ReadTimeout):
        ask(to(server.url), server.url, read_s=0.1)
    over.set()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's; its authority is tmp_path / "ca.pem"."""
    authority, authority_key = certificate("authority")
    own, key = certificate("server", (authority.subject, authority_key))
    pem = serialization.Encoding.PEM
    (tmp_path / "ca.pem").write_bytes(authority.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(own.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    return context


def test_a_short_wait_for_one_answer_does_not_bound_the_next_request(
    serve: Any, to: Any, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    def script(connection: Any, _: int) -> None:
        connection.sendall(OK)

    def slow(connection: Any, *, body: bool = True) -> bytes:
        if server.requests:
            time.sleep(0.5)  # a way out that is slower than the wait before
        return read_request(connection, body=body)

    server = serve(script, context=tls)
    server.read = slow
    transport = to(server.url, ssl_cert_file=str(tmp_path / "ca.pem"))
    body = ask(transport, server.url)
    while body.read_within(0.1):
        pass
    body.close()
    assert whole(ask(transport, server.url, b"x" * 9_000_000)) == b"ok"
    assert (server.connections, len(server.requests)) == (1, 2)
    assert len(server.requests[1]) > 9_000_000


def test_a_handshake_that_is_given_up_leaves_no_socket(
    serve: Any, to: Any, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenUp(BaseException):
        pass

    made: list[Any] = []

    def give_up(self: Any, *_: Any, **__: Any) -> None:
        made.append(self)
        raise GivenUp

    server = serve(lambda connection, _: connection.sendall(OK))
    transport = to(server.url.replace("http:", "https:"), ssl_cert_file=str(tmp_path / "ca.pem"))
    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", give_up)
    with pytest.raises(GivenUp):
        ask(transport, server.url.replace("http:", "https:"))
    assert [client.fileno() for client in made] == [-1]


def test_a_large_answer_comes_whole_over_tls(serve: Any, to: Any, tls: ssl.SSLContext, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    piece_sizes = (1, 16383, 16384, 16385, 50_000, 900_847)

    def script(connection: Any, _: int) -> None:
        connection.sendall(HEAD)
        at = 0
        for size in piece_sizes:
            connection.sendall(chunk(data[at : at + size]))
            at += size
        connection.sendall(b"0\r\n\r\n")

    assert sum(piece_sizes) == len(data)
    server = serve(script, context=tls)
    transport = to(server.url, ssl_cert_file=str(tmp_path / "ca.pem"))
    for _ in range(3):
        assert whole(ask(transport, server.url)) == data
    assert server.connections == 1
    with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
        ask(to(server.url), server.url)


def test_a_head_with_a_line_break_in_it_is_not_sent(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.sendall(OK))
    with pytest.raises(httpx2.LocalProtocolError):
        ask(to(server.url), server.url, x_team="a\r\nx-admin: 1")
    assert server.connections == 0


def test_closed_it_keeps_nothing_and_still_sends_what_comes_late(serve: Any, to: Any) -> None:
    server = serve(lambda connection, _: connection.sendall(OK))
    transport = to(server.url)
    running = ask(transport, server.url)
    assert whole(ask(transport, server.url)) == b"ok"
    transport.close()
    assert transport._idle == []
    assert whole(running) == b"ok"
    assert whole(ask(transport, server.url)) == b"ok"
    assert transport._idle == []


def test_what_has_lain_idle_for_long_is_closed(serve: Any, to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda connection, _: connection.sendall(OK))
    transport = to(server.url)
    assert whole(ask(transport, server.url)) == b"ok"
    transport.close_idle()
    assert len(transport._idle) == 1
    monkeypatch.setattr(module, "_KEPT_S", -1.0)
    transport.close_idle()
    assert transport._idle == []


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("waits_s", "works_s", "turns"), [(0.01, 0.0005, 0), (0.0, 0.0005, 4), (0.0, 0.02, 99)])
def test_only_a_stream_that_works_for_more_than_its_share_queues_up_for_turns(
    monkeypatch: pytest.MonkeyPatch, waits_s: float, works_s: float, turns: int
) -> None:
    clock, given = Clock(), []
    ours, theirs = socket.socketpair()
    wire = module.Wire(SimpleNamespace(sock=ours, close=ours.close))  # type: ignore[arg-type]  # what it uses of one
    wire.send(b"head", b"")

    def received(seconds: float | None) -> bytes:
        clock.now += waits_s
        return b"event"

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "give_turn", lambda: given.append(clock.now))
    monkeypatch.setattr(wire, "_received", received)
    for _ in range(100):
        assert wire.receive(None) == b"event"
        clock.now += works_s
    wire.close()
    theirs.close()
    assert len(given) == turns


def test_all_of_it_holds_under_gevent() -> None:
    command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    run = subprocess.run(
        [*command, "-k", "not gevent"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
