"""A socket of the simulator: requests in, answers out."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable

import orjson

from app.simulator import http
from app.simulator.http import MalformedRequest, Request
from app.simulator.refusal import Refusal

DEAF_S = 2.0
"""How long a refused upload is still read, so that its sender gets to see the refusal."""

Handle = Callable[[Request, "Connection"], Awaitable[None]]


def made_up_id(prefix: str) -> str:
    """An id that looks like the API's: `req_01…`, `msg_01…`."""
    return prefix + secrets.token_hex(11)


class Connection(asyncio.Protocol):
    """One socket: requests in, answers out in their order. Cancels the running task when the client leaves."""

    transport: asyncio.Transport

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.parser = http.Parser()
        self.waiting: deque[Request] = deque()
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.clear()
        if self.task:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        self.parser.feed(data)
        try:
            while request := self.parser.next_request():
                self.waiting.append(request)
        except MalformedRequest as error:
            self._refuse_bytes(error)
            return
        if self.parser.wants_continue:
            self.parser.wants_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._next()

    def _refuse_bytes(self, error: MalformedRequest) -> None:
        self.deaf = True
        request_id = made_up_id("req_01")
        body = orjson.dumps(Refusal(error.message, error.status).envelope(request_id))
        self.respond(error.status, {"connection": "close", "request-id": request_id, "x-should-retry": "false"}, body)
        asyncio.get_running_loop().call_later(DEAF_S, self.transport.close)

    def _next(self) -> None:
        if self.task is None and self.waiting:
            self.task = asyncio.get_running_loop().create_task(self._answer(self.waiting.popleft()))

    async def _answer(self, request: Request) -> None:
        try:
            await self.handle(request, self)
        finally:
            self.task = None
        if request.headers.get("connection", "").lower() == "close":
            self.transport.close()
        self._next()

    def respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """A whole answer with its length."""
        headers = {"content-type": "application/json", **headers, "content-length": str(len(body))}
        self.transport.write(http.head(status, headers) + body)

    def start_stream(self, status: int, headers: dict[str, str]) -> None:
        self.transport.write(http.head(status, {**headers, "transfer-encoding": "chunked"}))

    async def drain(self) -> None:
        """Waits until the client has taken most of it; lets the loop run, which then notices one that left."""
        await asyncio.sleep(0)
        await self.writable.wait()
