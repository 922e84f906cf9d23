"""How an answer goes onto the wire: streamed or whole, paced, torn or broken off."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from app.simulator import http
from app.simulator.connection import Connection
from app.simulator.events import PING, Event, accumulate, frame
from app.simulator.faults import Fault
from app.simulator.refusal import TYPE_OF_STATUS, Refusal
from app.simulator.replay import Recording
from app.simulator.scenarios import Ending, Reply

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

    async def send(self, reply: Reply, stream: bool) -> bool:
        """The reply as events, or as one JSON message."""
        if self.fault and self.fault.ending:
            reply.ending = self.fault.ending
        await pause(reply.headers_delay_ms)
        if reply.ending and reply.ending.kind == "reset":
            self.connection.transport.abort()
            return True
        if reply.raw:
            status, content_type, body = reply.raw
            self.connection.respond(status, {**self.headers, "content-type": content_type}, body)
            return False
        return await (self._stream(reply) if stream else self._whole(reply))

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
        connection.start_stream(200, {**STREAM_HEADERS, **self.headers})
        await pause(reply.ttft_ms)
        loop = asyncio.get_running_loop()
        due = loop.time()
        held: list[bytes] = []
        held_bytes = 0
        for at, event in enumerate(reply.events):
            if reply.ending and reply.ending.after == at:
                break
            if reply.gap_ms and event["type"] == "content_block_delta":
                connection.transport.write(b"".join(held))
                held.clear()
                due += reply.gap_ms / 1000
                await asyncio.sleep(due - loop.time())
                await connection.drain()
            data = b"".join(map(http.chunk, torn(frame(event)))) if reply.torn else http.chunk(frame(event))
            held.append(data)
            held_bytes += len(data)
            if held_bytes > FLUSH_BYTES:
                connection.transport.write(b"".join(held))
                held.clear()
                held_bytes = 0
                await connection.drain()
        if reply.ending is None:
            connection.transport.write(b"".join(held) + http.LAST_CHUNK)
            return False
        connection.transport.write(b"".join(held))
        await self._break_off(reply.ending, streaming=True)
        return True

    async def _break_off(self, ending: Ending, streaming: bool) -> None:
        transport = self.connection.transport
        match ending.kind:
            case "cut":
                await asyncio.sleep(0.02)  # an abort throws away what the kernel has not taken yet
                transport.abort()
            case "eof" if streaming:
                transport.write(http.LAST_CHUNK)
            case "eof":
                transport.close()
            case "half_close" if transport.can_write_eof():  # which TLS cannot
                transport.write_eof()
                await forever()
            case "pings" if streaming:
                while True:
                    transport.write(http.chunk(frame(PING)))
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
            self.connection.respond(200, self.headers, body)
            return False
        if reply.ending.kind not in ("stall", "pings"):
            headers = {"content-type": "application/json", **self.headers, "content-length": str(len(body))}
            self.connection.transport.write(http.head(200, headers) + body[: len(body) // 2])
        await self._break_off(reply.ending, streaming=False)
        return True


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
