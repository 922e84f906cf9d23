"""What our worker does otherwise than gunicorn's."""

from __future__ import annotations

import socket
import time
from typing import Any

import gevent
import pytest
from gevent.socket import socket as GeventSocket
from gunicorn import util as gunicorn_util  # type: ignore[import-untyped]  # it comes without types

from app.serve.worker import _ClientSocket, _Server, http_date


def test_who_waits_in_the_queue_when_a_worker_closes_its_port_is_served() -> None:
    listener = GeventSocket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    waiting = [socket.create_connection(listener.getsockname(), timeout=5) for _ in range(5)]
    served: list[Any] = []

    def serve(client: Any, address: Any) -> None:
        client.sendall(b"welcome")
        served.append(address)

    server = _Server(listener, handle=serve)
    server.start()
    server.close()
    gevent.wait(timeout=1)
    assert sorted(served) == sorted(client.getsockname() for client in waiting)
    for client in waiting:
        assert client.recv(7) == b"welcome"
        client.close()
    assert server.closed
    server.close()


def test_what_does_not_fit_into_the_kernels_buffer_is_sent_all_the_same() -> None:
    here, there = socket.socketpair()
    client = _ClientSocket(here.family, here.type, here.proto, fileno=here.detach())
    data = bytes(range(256)) * 20_000
    received = bytearray()

    def read() -> None:
        while piece := reader.recv(65536):
            received.extend(piece)

    reader = GeventSocket(there.family, there.type, there.proto, fileno=there.detach())
    reading = gevent.spawn(read)
    client.sendall(data)
    client.sendall(b"end")
    client.close()
    reading.join(10)
    reader.close()
    assert bytes(received) == data + b"end"


def test_a_client_that_takes_nothing_in_is_one_that_is_gone() -> None:
    here, there = socket.socketpair()
    client = _ClientSocket(here.family, here.type, here.proto, fileno=here.detach())
    client.settimeout(0.05)
    with pytest.raises(ConnectionResetError):
        client.sendall(b"x" * 5_000_000)
    client.close()
    there.close()


def test_the_date_of_a_second_is_gunicorns() -> None:
    for moment in (0.0, 1_790_000_000.0, 1_790_000_000.9, 1_790_000_001.0):
        assert http_date(moment) == gunicorn_util.http_date(moment)
    assert http_date() in (gunicorn_util.http_date(), gunicorn_util.http_date(time.time() - 1))
