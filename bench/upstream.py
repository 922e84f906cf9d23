"""A stand-in for Anthropic's Messages API that costs next to nothing, so that the load is the gateway's.

Run: python -m bench.upstream PORT [--events N] [--ttft S] [--gap S]. `POST /behaviour` changes how it answers from
then on.

The text of an answer is numbered words, "0/60 1/60 …", one to a delta: bench/load.py sees by them what was lost or came
out of order. The simulator of the tests (app/simulator) is the strict one; this one checks nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
from dataclasses import asdict, dataclass
from typing import Any

import orjson

MODEL = "claude-opus-5-5"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream":\s*true')
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Behaviour:
    """How answers come."""

    events: int = 60
    """Text deltas."""
    ttft_s: float = 0.0
    """Silence before the first byte, of JSON answers too."""
    gap_s: float = 0.0
    """Between two deltas; without it (and without `ttft_s`) a whole stream is one write."""


def word(number: int, of: int) -> str:
    return f"{number}/{of} "


def _json_answer(body: Any) -> bytes:
    raw = orjson.dumps(body)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_bench\r\ncontent-length: %d\r\n\r\n"
    return head % len(raw) + raw


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Answers:
    """What is sent, made once per behaviour."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        words = [word(number, behaviour.events) for number in range(behaviour.events)]
        usage = {
            "input_tokens": 25,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": behaviour.events,
            "service_tier": "standard",
        }
        message = {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "text", "text": "".join(words)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
        self.whole = _json_answer(message)
        beginning = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        self.start = _SSE_HEAD + _chunk(
            _event("message_start", message=beginning)
            + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            + _event("ping")
        )
        self.deltas = [
            _chunk(_event("content_block_delta", index=0, delta={"type": "text_delta", "text": each})) for each in words
        ]
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        self.end = (
            _chunk(
                _event("content_block_stop", index=0)
                + _event("message_delta", delta=ended, usage={"output_tokens": behaviour.events})
                + _event("message_stop")
            )
            + b"0\r\n\r\n"
        )
        self.burst = self.start + b"".join(self.deltas) + self.end


_MODELS = _json_answer(
    {
        "data": [
            {
                "id": MODEL,
                "type": "model",
                "display_name": "Claude Opus 5.5",
                "created_at": "2026-01-01T00:00:00Z",
                "lifecycle": "active",
                "max_input_tokens": 200_000,
                "max_tokens": 64_000,
            }
        ],
        "has_more": False,
        "first_id": MODEL,
        "last_id": MODEL,
    }
)


class Upstream:
    """What all connections share."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.answers = Answers(behaviour)

    async def listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=4096)


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(found[1]) if (found := _LENGTH.search(head)) else 0
        if len(rest) >= length:  # nobody pipelines
            self._received = b""
            self._answer(head, rest)

    def _answer(self, head: bytes, body: bytes) -> None:
        answers = self._upstream.answers
        if head.startswith(b"GET "):
            self._transport.write(_MODELS)
        elif head.startswith(b"POST /behaviour "):
            self._upstream.answers = Answers(Behaviour(**orjson.loads(body)))
            self._transport.write(_json_answer(asdict(self._upstream.answers.behaviour)))
        elif not _STREAM.search(body):
            self._later(answers.behaviour.ttft_s, answers.whole)
        elif not answers.behaviour.gap_s:
            self._later(answers.behaviour.ttft_s, answers.burst)
        else:
            self._answering = asyncio.get_running_loop().create_task(self._pace(answers))

    def _later(self, delay_s: float, data: bytes) -> None:
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._transport.write, data)
        else:
            self._transport.write(data)

    async def _pace(self, answers: Answers) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + answers.behaviour.ttft_s
        await asyncio.sleep(answers.behaviour.ttft_s)
        self._transport.write(answers.start)
        for delta in answers.deltas:
            self._transport.write(delta)
            due += answers.behaviour.gap_s  # by the clock: sleeps that are a little late do not add up
            await asyncio.sleep(due - loop.time())
        self._transport.write(answers.end)


async def _serve(port: int, behaviour: Behaviour) -> None:
    async with await Upstream(behaviour).listen(port) as server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description=__doc__.partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--events", type=int, default=60, help="text deltas (60)")
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds before the first byte (0)")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between two deltas (0: all at once)")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.port, Behaviour(given.events, given.ttft, given.gap)))


if __name__ == "__main__":
    main()
