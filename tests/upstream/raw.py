"""An upstream that keeps every byte it gets, and answers byte for byte what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

Answer = Callable[["Asked"], None]


@dataclass
class Asked:
    """One request as it came, and the socket to answer it on."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    socket: socket.socket

    def named(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def respond(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: Any) -> None:
        """Whole, with its length."""
        told = {"content-type": kind, "content-length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
        self.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)

    def begin(self, kind: str = "text/event-stream", **headers: Any) -> None:
        """The head of a chunked answer; then chunk() and end()."""
        told = {"content-type": kind, "transfer-encoding": "chunked", **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
        self.send(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode())

    def chunk(self, data: bytes) -> None:
        if data:
            self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")


@dataclass
class RawUpstream:
    url: str
    asked: list[Asked] = field(default_factory=list)
    answer: Answer = lambda asked: asked.respond(b"{}")
    closed: threading.Event = field(default_factory=threading.Event)
    """Set whenever the other side has closed a connection."""


@contextmanager
def raw_upstream() -> Iterator[RawUpstream]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = RawUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
    open_sockets: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                headers = []
                while (header := reader.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    headers.append((name.decode("latin-1"), value.decode("latin-1").strip()))
                lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
                body = reader.read(sum(lengths))
                asked = Asked(line.decode("latin-1").strip(), headers, body, connection)
                made.asked.append(asked)
                made.answer(asked)
        made.closed.set()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_sockets.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in open_sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def of_events(*events: Any) -> bytes:
    """As Anthropic writes them."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)
