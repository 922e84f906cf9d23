"""How an answer goes onto the wire: streamed or whole, paced, torn or broken off."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from app.simulator import http
from app.simulator.connection import Connection
from app.simulator.encodings import GzipStream, gzipped
from app.simulator.events import PING, Event, accumulate, frame
from app.simulator.faults import Fault
from app.simulator.refusal import TYPE_OF_STATUS, Refusal
from app.simulator.replay import Recording
from app.simulator.reply import Ending, Reply

FLUSH_BYTES = 64 * 1024
PING_EVERY_S = 0.5
STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
STATUS_OF_TYPE = {name: status for status, name in TYPE_OF_STATUS.items()}


@dataclass(slots=True)
class Delivery:
    """One answer on its way to one connection. Methods say whether it was broken off on purpose."""

    connection: Connection
    headers: dict[str, str]
    fault: Fault | None = None
    takes_gzip: bool = False
    """Whether the client does. Only JSON is compressed for it, as by the edge of the real API."""

    async def send(self, reply: Reply, stream: bool) -> bool:
        """The reply as events, or as one JSON message."""
        if self.fault:
            self.fault.alter(reply)
        self.headers = {**reply.headers, **self.headers}
        await pause(reply.headers_delay_ms)
        if reply.ending and reply.ending.kind == "reset":
            self.connection.transport.abort()
            return True
        if reply.raw:
            status, content_type, body = reply.raw
            self._respond(status, content_type, body, reply.gzip)
            return False
        if reply.as_stream is not None:
            stream = reply.as_stream
        return await (self._stream(reply) if stream else self._whole(reply))

    def _respond(self, status: int, content_type: str, body: bytes, gzip: bool) -> None:
        headers = {**self.headers, "content-type": content_type}
        if gzip or self.takes_gzip:
            body, headers = gzipped(body), {**headers, "content-encoding": "gzip"}
        self.connection.respond(status, headers, body)

    def replay(self, recording: Recording) -> None:
        """A recorded answer: its bytes, its status, its headers of interest."""
        if not recording.is_stream:
            self.connection.respond(recording.status, recording.headers, recording.body)
            return
        self.connection.start_stream(recording.status, recording.headers)
        frames = [part + b"\n\n" for part in recording.body.split(b"\n\n") if part]
        self.connection.transport.write(b"".join(http.chunk(part) for part in frames) + http.LAST_CHUNK)

    # ------------------------------------------------------------------------------------------------------- stream

    async def _stream(self, reply: Reply) -> bool:
        """Frame after frame, a delta every `gap_ms` by the clock (not by the sum of the sleeps)."""
        connection = self.connection
        wire = Wire(reply)
        connection.start_stream(200, {**STREAM_HEADERS, **self.headers, **wire.headers})
        await pause(reply.ttft_ms)
        loop = asyncio.get_running_loop()
        due = loop.time()
        held: list[bytes] = []
        held_bytes = 0
        for at, event in enumerate(reply.events):
            if reply.ending and reply.ending.after == at:
                if reply.ending.kind == "eof_inside":
                    held.append(wire.half(event))
                break
            if reply.gap_ms and event["type"] == "content_block_delta":
                connection.transport.write(b"".join(held))
                held.clear()
                due += reply.gap_ms / 1000
                await self._wait(due, reply.ping_ms, wire)
                await connection.drain()
            data = wire.event(event)
            held.append(data)
            held_bytes += len(data)
            if held_bytes > FLUSH_BYTES:
                connection.transport.write(b"".join(held))
                held.clear()
                held_bytes = 0
                await connection.drain()
        if reply.ending is None:
            connection.transport.write(b"".join(held) + wire.end())
            return False
        connection.transport.write(b"".join(held))
        await self._break_off(reply.ending, wire)
        return True

    async def _wait(self, due: float, ping_ms: float, wire: "Wire") -> None:
        """Until `due`, with a ping every `ping_ms` before."""
        loop = asyncio.get_running_loop()
        while ping_ms and due - loop.time() > ping_ms / 1000:
            await pause(ping_ms)
            self.connection.transport.write(wire.event(PING))
        await asyncio.sleep(due - loop.time())

    async def _break_off(self, ending: Ending, wire: "Wire | None") -> None:
        """`wire` is the stream's; there is none for an answer in JSON."""
        transport = self.connection.transport
        match ending.kind:
            case "cut":
                await asyncio.sleep(0.02)  # an abort throws away what the kernel has not taken yet
                transport.abort()
            case "eof" | "eof_inside" if wire:
                transport.write(wire.end())
            case "eof" | "eof_inside":
                transport.close()
            case "half_close" if transport.can_write_eof():  # which TLS cannot
                transport.write_eof()
                await forever()
            case "pings" if wire:
                while True:
                    transport.write(wire.event(PING))
                    await asyncio.sleep(PING_EVERY_S)
            case _:
                await forever()

    # -------------------------------------------------------------------------------------------------------- whole

    async def _whole(self, reply: Reply) -> bool:
        """The message the events add up to, after `ttft_ms`."""
        await pause(reply.ttft_ms)
        events: list[Event] = list(reply.events)
        if error := next((event["error"] for event in events if event["type"] == "error"), None):
            raise Refusal(error["message"], STATUS_OF_TYPE.get(error["type"], 500))
        body = orjson.dumps(accumulate(events))
        if any(event["type"] == "garbage" for event in events):
            body = body[: len(body) // 2]
        if reply.ending is None:
            self._respond(200, "application/json", body, reply.gzip)
            return False
        if reply.ending.kind not in ("stall", "pings"):
            headers = {"content-type": "application/json", **self.headers, "content-length": str(len(body))}
            self.connection.transport.write(http.head(200, headers) + body[: len(body) // 2])
        await self._break_off(reply.ending, None)
        return True


class Wire:
    """The events of one stream as the bytes of its chunks."""

    def __init__(self, reply: Reply) -> None:
        self.crlf, self.tight, self.torn = reply.crlf, reply.tight, reply.torn
        self.packer = GzipStream() if reply.gzip else None
        self.headers = {"content-encoding": "gzip"} if reply.gzip else {}

    def event(self, event: Event) -> bytes:
        return self._chunks(self._framed(event))

    def half(self, event: Event) -> bytes:
        """The first half of the event."""
        data = self._framed(event)
        return self._chunks(data[: len(data) // 2])

    def end(self) -> bytes:
        """What ends the body."""
        return (http.chunk(self.packer.end()) if self.packer else b"") + http.LAST_CHUNK

    def _framed(self, event: Event) -> bytes:
        data = frame(event)
        if self.tight:  # as text JSON holds no line end, so these are the names of fields
            data = data.replace(b"event: ", b"event:", 1).replace(b"\ndata: ", b"\ndata:", 1)
        return data.replace(b"\n", b"\r\n") if self.crlf else data

    def _chunks(self, data: bytes) -> bytes:
        if self.packer:
            data = self.packer.piece(data)
        return b"".join(map(http.chunk, torn(data))) if self.torn else http.chunk(data)


async def pause(milliseconds: float) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1000)


async def forever() -> None:
    """Waits until the client leaves."""
    await asyncio.get_running_loop().create_future()


def torn(data: bytes) -> Iterator[bytes]:
    """`data` cut inside UTF-8 sequences and between CR and LF."""
    start = 0
    for at, byte in enumerate(data, 1):
        if byte >= 0xC0 or byte == 0x0D:
            yield data[start:at]
            start = at
    yield data[start:]
