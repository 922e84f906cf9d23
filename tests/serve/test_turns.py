"""What one client does holds nobody else up, whether it has a key or none."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from app.errors import RequestTimeout, TooManyRequests
from app.serve import worker
from app.serve.bodies import MOST_AT_ONCE, BodiesUnderWay
from app.serve.worker import _ClientSocket
from tests.conftest import ADMIN, CLIENT, Gateway, GatewayMaker

_shared: list[Gateway] = []


@pytest.fixture
def running(module_gateway: GatewayMaker) -> Gateway:
    if not _shared or _shared[0].process.poll() is not None:
        _shared[:] = [module_gateway(WEB_CONCURRENCY="1")]
    return _shared[0]


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])), timeout=30)


@contextlib.contextmanager
def sent_without_end(gateway: Gateway, head: bytes, again: bytes) -> Iterator[threading.Event]:
    """`again` behind `head` until the block ends; the event tells that the worker has taken a megabyte of it."""
    ends, is_under_way = threading.Event(), threading.Event()
    client = connected(gateway)

    def receive() -> None:
        with contextlib.suppress(OSError):
            while client.recv(1 << 20):
                pass

    def send() -> None:
        with contextlib.suppress(OSError):
            client.sendall(head)
            sent = 0
            while not ends.is_set():
                client.sendall(again)
                sent += len(again)
                if sent > 1_000_000:
                    is_under_way.set()
        is_under_way.set()

    threads = [threading.Thread(target=work, daemon=True) for work in (receive, send)]
    for thread in threads:
        thread.start()
    try:
        yield is_under_way
    finally:
        ends.set()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        client.close()


CRUMBS = b"1\r\nx\r\n" * 20_000


@pytest.mark.parametrize(
    ("head", "again"),
    [
        pytest.param(b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 200, id="requests behind one another"),
        pytest.param(b"", b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" * 200, id="refused ones"),
        pytest.param(
            b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", CRUMBS, id="crumbs for nothing"
        ),
        pytest.param(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer client-key-of-the-tests\r\n\r\n",
            CRUMBS,
            id="crumbs with a key",
        ),
    ],
)
def test_while_one_client_sends_without_pause_the_others_are_answered(
    running: Gateway, head: bytes, again: bytes
) -> None:
    with sent_without_end(running, head, again) as is_under_way:
        assert is_under_way.wait(20)
        for _ in range(3):
            assert requests.get(running.url + "/healthz", timeout=4).ok


@pytest.mark.parametrize(
    ("path", "headers", "kind", "size"),
    [
        ("/admin/login", {}, "application/x-www-form-urlencoded", 200_000),
        ("/setup", {}, "application/x-www-form-urlencoded", 200_000),
        ("/config/update", ADMIN, "application/json", 1_100_000),
        ("/verify", ADMIN, "application/json", 1_100_000),
    ],
)
def test_what_is_no_conversation_is_small(
    running: Gateway, path: str, headers: dict[str, str], kind: str, size: int
) -> None:
    answer = requests.post(
        running.url + path, b"a=" + b"x" * size, headers={**headers, "content-type": kind}, timeout=10
    )
    assert answer.status_code == 413, answer.text


@pytest.fixture
def ends() -> Iterator[tuple[_ClientSocket, socket.socket]]:
    here, there = socket.socketpair()
    client = _ClientSocket(here.family, here.type, here.proto, fileno=here.detach())
    yield client, there
    client.close()
    there.close()


def test_a_body_that_comes_too_slowly_is_not_waited_for(
    ends: tuple[_ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SLOW_BODY_S", 0.1)
    client, sender = ends
    sender.sendall(b"x" * 100)
    client.expect_body()
    assert client.recv(1000) == b"x" * 100
    with pytest.raises(RequestTimeout, match="64 KB in 0\\.1 seconds"):
        client.recv(1000)


def test_one_that_makes_progress_may_take_long(
    ends: tuple[_ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("app.serve.worker.time.monotonic", lambda: now[0])
    client, sender = ends
    client.expect_body()
    for _ in range(5):
        sender.sendall(b"x" * worker.LEAST_OF_BODY)
        received = 0
        while received < worker.LEAST_OF_BODY:
            received += len(client.recv(worker.LEAST_OF_BODY))
        now[0] += worker.SLOW_BODY_S + 1
    sender.sendall(b"x")
    client.recv(1)
    now[0] += worker.SLOW_BODY_S + 1
    sender.sendall(b"x")
    with pytest.raises(RequestTimeout):
        client.recv(1)


def test_the_next_request_is_waited_for_as_long_as_the_server_keeps_connections(
    ends: tuple[_ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("app.serve.worker.time.monotonic", lambda: now[0])
    client, sender = ends
    client.expect_body()
    client.expect_head()
    now[0] += 10 * worker.SLOW_BODY_S
    sender.sendall(b"GET")
    assert client.recv(3) == b"GET"


def answered(clients: list[socket.socket], least: int) -> list[socket.socket]:
    """Who has been sent something, once it is so many, or no more come for a while."""
    waiting = select.poll()
    by_number = {client.fileno(): client for client in clients}
    for number in by_number:
        waiting.register(number, select.POLLIN)
    found: list[socket.socket] = []
    while len(found) < least and (ready := waiting.poll(5000)):
        for number, _ in ready:
            waiting.unregister(number)
            found.append(by_number[number])
    return found


class TestLargeBodiesAtOnce:
    SIZE = 1_000_000

    @pytest.fixture
    def hold(self) -> Iterator[Callable[[str, int], None]]:
        bodies = BodiesUnderWay(self.SIZE)
        with contextlib.ExitStack() as held:

            def receive(who: str, size: int) -> None:
                held.enter_context(bodies.one(who, size))

            yield receive

    def test_one_key_holds_a_share_and_another_has_its_own(self, hold: Callable[[str, int], None]) -> None:
        for _ in range(MOST_AT_ONCE):
            hold("ann", self.SIZE)
        with pytest.raises(TooManyRequests) as refused:
            hold("ann", self.SIZE)
        assert refused.value.headers["retry-after"] == "1"
        hold("ben", self.SIZE)

    def test_small_ones_are_not_counted(self, hold: Callable[[str, int], None]) -> None:
        for _ in range(10_000):
            hold("ann", 10_000)
        hold("ann", self.SIZE)

    def test_what_was_received_is_no_longer_held(self) -> None:
        bodies = BodiesUnderWay(self.SIZE)
        for _ in range(100):
            with contextlib.suppress(ZeroDivisionError), bodies.one("ann", self.SIZE):
                raise ZeroDivisionError
        assert not bodies._held

    def test_more_that_are_promised_and_not_sent_are_refused_with_a_time(self, gateway: GatewayMaker) -> None:
        running = gateway(WEB_CONCURRENCY="1")
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 33000000\r\n"
            b"Authorization: Bearer client-key-of-the-tests\r\n\r\n{"
        )
        with contextlib.ExitStack() as held:
            clients = [held.enter_context(contextlib.closing(connected(running))) for _ in range(MOST_AT_ONCE + 3)]
            for client in clients:
                client.sendall(head)
            refused = answered(clients, 3)
            assert len(refused) == 3
            assert refused[0].recv(65_536).startswith(b"HTTP/1.1 429")
        answer = requests.post(running.url + "/v1/chat/completions", b"[]", headers=CLIENT, timeout=10)
        assert answer.status_code == 400
