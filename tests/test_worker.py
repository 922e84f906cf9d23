"""What our worker does otherwise than gunicorn's."""

from __future__ import annotations

import socket
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket

from app.worker import _Server


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
