"""Load on a chat endpoint, every answer of which is checked: text whole and in order, finish_reason, [DONE].

Run: python -m bench.load URL [-c CONNECTIONS] [-n REQUESTS] …; prints JSON, and ends with 1 if a request failed.
With --anthropic it speaks to bench/upstream.py itself: what comes out is what the machine and this program take by
themselves.

The answers must be bench/upstream.py's, whose words say of themselves which they are and how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson

from bench.upstream import MODEL, word


@dataclass(frozen=True)
class Load:
    """What is asked, how often, and by how many at once."""

    url: str
    connections: int = 1
    requests: int | None = None
    """How many in all; None: as many as fit into `seconds`."""
    seconds: float | None = None
    """No request is begun later than this."""
    stream: bool = True
    anthropic: bool = False
    key: str = "sk-bench"
    headers: tuple[str, ...] = ()
    """More headers, as "name: value"."""
    ramp_s: float = 0.0
    """The connections begin one after the other, over this long."""
    timeout_s: float = 120.0
    """For one answer."""

    def request(self) -> bytes:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 1024, "stream": self.stream}
        system = "You are a helpful assistant."
        messages = [
            {"role": "user", "content": "Why is the sky blue? " * 8},
            {"role": "assistant", "content": "Because of Rayleigh scattering. " * 20},
            {"role": "user", "content": "Go on."},
        ]
        if self.anthropic:
            asked |= {"system": system, "messages": messages}
            keys = [f"x-api-key: {self.key}", "anthropic-version: 2023-06-01"]
        else:
            asked["messages"] = [{"role": "system", "content": system}, *messages]
            keys = [f"authorization: Bearer {self.key}"]
        body = orjson.dumps(asked)
        url = urllib.parse.urlsplit(self.url)
        lines = [
            f"POST {url.path} HTTP/1.1",
            f"host: {url.netloc}",
            "content-type: application/json",
            *keys,
            *self.headers,
        ]
        return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


# -- what an answer says


class Said(NamedTuple):
    """What one frame says."""

    text: str = ""
    finished: bool = False
    """Why the answer ends is told."""
    last: bool = False
    """Nothing comes after this."""
    error: str = ""


def _openai_frame(data: bytes) -> Said:
    if data == b"[DONE]":
        return Said(last=True)
    frame = orjson.loads(data)
    if "error" in frame:
        return Said(error=str(frame["error"]))
    if not frame["choices"]:  # usage
        return Said()
    choice = frame["choices"][0]
    return Said(choice["delta"].get("content") or "", bool(choice.get("finish_reason")))


def _anthropic_frame(data: bytes) -> Said:
    frame = orjson.loads(data)
    match frame["type"]:
        case "content_block_delta":
            return Said(frame["delta"]["text"])
        case "message_delta":
            return Said(finished=bool(frame["delta"]["stop_reason"]))
        case "message_stop":
            return Said(last=True)
        case "error":
            return Said(error=str(frame["error"]))
    return Said()


def _openai_whole(data: bytes) -> Said:
    choice = orjson.loads(data)["choices"][0]
    return Said(choice["message"]["content"], bool(choice["finish_reason"]))


def _anthropic_whole(data: bytes) -> Said:
    message = orjson.loads(data)
    return Said("".join(block["text"] for block in message["content"]), bool(message["stop_reason"]))


def fault_of(text: str) -> str | None:
    """What is wrong with the numbered words, if anything."""
    words = text.split()
    of = words[0].partition("/")[2] if words else ""
    if not of.isdigit():
        return "no numbered words in the text"
    expected = [word(number, int(of)).rstrip() for number in range(int(of))]
    if words == expected:
        return None
    return "text out of order" if sorted(words) == sorted(expected) else "text not whole"


class Answer(Protocol):
    """One answer while it arrives."""

    texts_at: list[float]
    """When each piece of text came."""

    def feed(self, data: bytes, now: float) -> None: ...

    def fault(self) -> str | None:
        """What was wrong with it, when all has arrived."""


class StreamAnswer:
    def __init__(self, anthropic: bool) -> None:
        self.texts_at: list[float] = []
        self._read = _anthropic_frame if anthropic else _openai_frame
        self._end = "message_stop" if anthropic else "[DONE]"
        self._rest = b""
        self._text = ""
        self._finished = self._ended = False
        self._error = ""

    def feed(self, data: bytes, now: float) -> None:
        *frames, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            for line in frame.split(b"\n"):
                if line.startswith(b"data:"):
                    self._take(self._read(line[5:].strip()), now)

    def _take(self, said: Said, now: float) -> None:
        if self._ended:
            self._error = self._error or f"something after {self._end}"
        if said.text:
            self._text += said.text
            self.texts_at.append(now)
        self._finished |= said.finished
        self._ended |= said.last
        self._error = self._error or (said.error and "error in the stream")

    def fault(self) -> str | None:
        if self._error:
            return self._error
        if not self._ended:
            return f"no {self._end}"
        return fault_of(self._text) or (None if self._finished else "no finish_reason")


class WholeAnswer:
    def __init__(self, anthropic: bool) -> None:
        self.texts_at: list[float] = []
        self._read = _anthropic_whole if anthropic else _openai_whole
        self._body = b""

    def feed(self, data: bytes, now: float) -> None:
        self._body += data

    def fault(self) -> str | None:
        said = self._read(self._body)
        return fault_of(said.text) or (None if said.finished else "no finish_reason")


# -- HTTP


class Failed(Exception):
    """Why an answer does not count."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Cheaper than asyncio's streams or an HTTP library: it shares the machine with what it measures.
    """

    def __init__(self) -> None:
        self.reusable = False
        self._waiting: asyncio.Future[None] | None = None
        self._status = self._left = 0
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, request: bytes, answer: Answer) -> None:
        """Returns when the answer has been fed whole; raises Failed when it does not come or is an error."""
        self._answer, self._received = answer, bytearray()
        self._status, self._left = 0, 0
        self._chunked = self.reusable = False
        self._refusal = b""
        if self._transport.is_closing():
            raise Failed("cut short")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._waiting
        if self._status != 200:
            raise Failed(f"http {self._status} {self._refusal[:120].decode(errors='replace')}")

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._status and not self._chunked and self._left < 0:
            self._done()  # neither length nor chunks: the end of the connection is the answer's
        else:
            self._done(Failed("cut short"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        try:
            if self._status or self._read_head():
                self._read_body(now)
        except (ValueError, LookupError, TypeError) as error:
            self._done(Failed(f"not understood: {error!r}"))

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = bytes(self._received[:end]).split(b"\r\n")
        del self._received[: end + 4]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._status = int(first.split()[1])
        self._chunked = headers.get(b"transfer-encoding") == b"chunked"
        self._left = int(headers.get(b"content-length", -1))
        self.reusable = (self._chunked or self._left >= 0) and headers.get(b"connection", b"").lower() != b"close"
        return True

    def _read_body(self, now: float) -> None:
        if self._chunked:
            self._read_chunks(now)
            return
        data = bytes(self._received)
        self._received.clear()
        self._feed(data, now)
        if self._left >= 0:
            self._left -= len(data)
            if not self._left:
                self._done()

    def _read_chunks(self, now: float) -> None:
        received, at = self._received, 0
        body: list[bytes] = []
        while (line := received.find(b"\r\n", at)) >= 0:
            size = int(received[at:line].partition(b";")[0], 16)
            end = line + 2 + size
            if len(received) < end + 2:
                break
            if not size:
                self._feed(b"".join(body), now)
                self._done()
                return
            body.append(bytes(received[line + 2 : end]))
            at = end + 2
        del received[:at]
        self._feed(b"".join(body), now)

    def _feed(self, data: bytes, now: float) -> None:
        if self._status == 200:
            self._answer.feed(data, now)
        else:
            self._refusal += data

    def _done(self, failed: Failed | None = None) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if failed is None:
            self._waiting.set_result(None)
        else:
            self._waiting.set_exception(failed)


# -- the load


@dataclass
class Result:
    """What came of a load. Times are of complete answers alone."""

    ttft_s: list[float] = field(default_factory=list)
    """Until the first text; empty for JSON."""
    total_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    """Between two pieces of text; 0 for those that came in one read."""
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def complete(self) -> int:
        return len(self.total_s)

    @property
    def failed(self) -> int:
        return self.failures.total()

    def summary(self) -> dict[str, Any]:
        return {
            "complete": self.complete,
            "failed": self.failed,
            "failures": dict(self.failures),
            "seconds": round(self.seconds, 2),
            "requests_per_s": round(self.complete / self.seconds, 1) if self.seconds else None,
            "ttft_ms": _percentiles_ms(self.ttft_s),
            "gap_ms": _percentiles_ms(self.gap_s),
            "total_ms": _percentiles_ms(self.total_s),
        }


def percentile_ms(times_s: Sequence[float], percent: float) -> float | None:
    ordered = sorted(times_s)
    return round(ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))] * 1000, 3) if ordered else None


def _percentiles_ms(times_s: Sequence[float]) -> dict[str, float | None]:
    return {f"p{percent}": percentile_ms(times_s, percent) for percent in (50, 95, 99, 100)}


class Run:
    """One load while it runs."""

    def __init__(self, load: Load) -> None:
        self.result = Result()
        self.open = 0
        """Requests without their whole answer at this moment."""
        self._load = load
        self._left = load.requests
        self._request = load.request()
        url = urllib.parse.urlsplit(load.url)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 80

    async def finish(self) -> Result:
        self._began = time.perf_counter()
        await asyncio.gather(*(self._client(number) for number in range(self._load.connections)))
        self.result.seconds = time.perf_counter() - self._began
        return self.result

    def _next(self) -> bool:
        if self._load.seconds is not None and time.perf_counter() - self._began > self._load.seconds:
            return False
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    async def _client(self, number: int) -> None:
        if self._load.ramp_s:
            await asyncio.sleep(self._load.ramp_s * number / self._load.connections)
        connection: Connection | None = None
        while self._next():
            self.open += 1
            try:
                async with asyncio.timeout(self._load.timeout_s):
                    if connection is None:
                        connection = await self._connect()
                    await self._one(connection)
            except Failed as failed:
                self.result.failures[str(failed)] += 1
            except TimeoutError:
                self.result.failures["timed out"] += 1
            except OSError as error:
                self.result.failures[type(error).__name__] += 1
                await asyncio.sleep(0.1)  # nobody listens: not thousands of failures a second
            else:
                if connection.reusable:
                    continue
            finally:
                self.open -= 1
            if connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    async def _one(self, connection: Connection) -> None:
        answer: Answer = (StreamAnswer if self._load.stream else WholeAnswer)(self._load.anthropic)
        began = time.perf_counter()
        await connection.ask(self._request, answer)
        ended = time.perf_counter()
        try:
            fault = answer.fault()
        except (ValueError, LookupError, TypeError) as error:
            fault = f"not understood: {error!r}"
        if fault:
            raise Failed(fault)
        self.result.total_s.append(ended - began)
        times = answer.texts_at
        if times:
            self.result.ttft_s.append(times[0] - began)
            self.result.gap_s += [later - earlier for earlier, later in itertools.pairwise(times)]


async def run(load: Load) -> Result:
    return await Run(load).finish()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the endpoint, such as http://127.0.0.1:4117/v1/chat/completions")
    parser.add_argument("-c", "--connections", type=int, default=10)
    parser.add_argument("-n", "--requests", type=int, default=200, help="in all")
    parser.add_argument("--json", action="store_true", help="JSON answers instead of streams")
    parser.add_argument("--anthropic", action="store_true", help="Anthropic's format: straight on the upstream")
    parser.add_argument("--key", default="sk-bench")
    parser.add_argument("-H", "--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds over which the connections begin")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one answer")
    given = parser.parse_args()
    load = Load(
        given.url,
        connections=given.connections,
        requests=given.requests,
        stream=not given.json,
        anthropic=given.anthropic,
        key=given.key,
        headers=tuple(given.header),
        ramp_s=given.ramp,
        timeout_s=given.timeout,
    )
    result = asyncio.run(run(load))
    print(orjson.dumps(result.summary(), option=orjson.OPT_INDENT_2).decode())
    raise SystemExit(1 if result.failed else 0)


if __name__ == "__main__":
    main()
