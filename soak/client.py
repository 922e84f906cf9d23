"""One client of the gateway: what it asks, and all that it saw of the answer, oddities too.

tests/traffic.py asks in the same manner; a soak needs more of it: several choices, tools and thinking, connections
that are kept alive, clients that leave at a chosen point or read slowly, and every sign of a second end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

_LARGEST = 1 << 24
_LARGEST_SLOW = 16 * 1024
_IDLE_KEPT_S = 3.0
"""gunicorn closes idle connections after five."""
_LAST_BYTES_S = 2.0


@dataclass(frozen=True)
class Manners:
    """How a client behaves. It leaves, at most once: while it sends, after a time, or after some pieces of text."""

    keeps_alive: bool = False
    reads_bytes_per_s: int | None = None
    leaves_after_share_of_body: float | None = None
    leaves_after_s: float | None = None
    leaves_after_pieces: int | None = None
    leaves_with_reset: bool = False

    @property
    def leaves(self) -> bool:
        return (self.leaves_after_share_of_body, self.leaves_after_s, self.leaves_after_pieces) != (None, None, None)


@dataclass
class Choice:
    """What arrived of one choice."""

    text: str = ""
    reasoning: str = ""
    details: list[Any] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish: str | None = None


@dataclass
class Seen:
    """`status` is None where no head came. `is_whole`: the transfer came to its proper end. Times are monotonic."""

    began: float
    stream: bool
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    choices: dict[int, Choice] = field(default_factory=dict)
    error: Any = None
    ends: int = 0
    """How often [DONE] came."""
    pieces: int = 0
    oddities: list[str] = field(default_factory=list)
    is_whole: bool = False
    left: bool = False
    is_late: bool = False
    """It had not ended when the client's patience did."""
    broke: str = ""
    resent: int = 0
    """A connection that was kept alive turned out to be closed before anything was answered on it."""
    first_text_at: float | None = None
    ended: float = 0.0

    def __post_init__(self) -> None:
        self._is_over = False

    def frame(self, frame: bytes) -> None:
        """One server-sent event."""
        if frame.startswith(b":"):
            return
        if self._is_over:
            self.oddities.append(f"after the end came {frame[:80]!r}")
        if frame == b"data: [DONE]":
            self.ends += 1
            self._is_over = True
            return
        if not frame.startswith(b"data: "):
            self.oddities.append(f"a frame that is none: {frame[:80]!r}")
            return
        chunk = orjson.loads(frame[6:])
        if "error" in chunk:
            self.error = chunk["error"]
            self._is_over = True
            return
        for told in chunk["choices"]:
            self._delta(told)

    def _delta(self, told: Mapping[str, Any]) -> None:
        choice = self.choices.setdefault(told["index"], Choice())
        delta = told["delta"]
        if choice.finish is not None and any(delta.get(name) for name in ("content", "tool_calls", "refusal")):
            self.oddities.append(f"choice {told['index']} goes on after its finish_reason")
        if content := delta.get("content"):
            choice.text += content
            self.pieces += 1
            self.first_text_at = self.first_text_at or time.monotonic()
        choice.reasoning += delta.get("reasoning_content") or ""
        choice.details += delta.get("reasoning_details") or ()
        for call in delta.get("tool_calls") or ():
            kept = choice.calls.setdefault(call["index"], {"id": call.get("id"), "name": "", "arguments": ""})
            for name in ("name", "arguments"):
                kept[name] += call["function"].get(name) or ""
        if finish := told.get("finish_reason"):
            if choice.finish is not None:
                self.oddities.append(f"choice {told['index']} has a second finish_reason")
            choice.finish = finish

    def whole(self, body: bytes) -> None:
        """The body of an answer that is not streamed."""
        answer = orjson.loads(body)
        self.error = answer.get("error")
        for told in answer.get("choices", ()):
            message = told["message"]
            calls = [
                {"id": call["id"], **{name: call["function"][name] for name in ("name", "arguments")}}
                for call in message.get("tool_calls") or ()
            ]
            self.choices[told["index"]] = Choice(
                message.get("content") or "",
                message.get("reasoning_content") or "",
                message.get("reasoning_details") or [],
                dict(enumerate(calls)),
                told["finish_reason"],
            )


class Client:
    """Asks one question after the other. Close it."""

    def __init__(self, url: str, headers: Mapping[str, str], patience_s: float) -> None:
        self._place = urlsplit(url)
        self._headers = headers
        self._patience_s = patience_s
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter, float] | None = None

    async def ask(self, body: Mapping[str, Any], manners: Manners) -> Seen:
        """What became of it; raises nothing that the gateway could bring about."""
        seen = Seen(time.monotonic(), stream=bool(body.get("stream")))
        data = orjson.dumps(body)
        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    async with asyncio.timeout(manners.leaves_after_s):
                        await self._talk(data, manners, seen)
                except TimeoutError:
                    seen.left = True
        except TimeoutError:
            seen.is_late = True
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.broke = repr(error)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            seen.oddities.append(f"an answer that cannot be read: {error!r}")
        seen.ended = time.monotonic()
        return seen

    def close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    async def _talk(self, data: bytes, manners: Manners, seen: Seen) -> None:
        reader, writer, is_used = await self._connect(manners)
        try:
            try:
                is_sent = await self._send(writer, data, manners, seen)
                if is_sent:
                    await _read_head(reader, seen)
            except (OSError, asyncio.IncompleteReadError):
                if not is_used or seen.status is not None:
                    raise
                writer.close()
                seen.resent += 1  # as every HTTP client does, since the server may close an idle connection any time
                reader, writer, _ = await self._connect(manners)
                is_sent = await self._send(writer, data, manners, seen)
                if is_sent:
                    await _read_head(reader, seen)
            if is_sent and not await self._read_body(reader, manners, seen):
                seen.left = True
            if not seen.left:
                await self._end(reader, writer, manners, seen)
        finally:
            if self._kept is None or self._kept[1] is not writer:
                if manners.leaves_with_reset and not seen.is_whole:
                    writer.transport.abort()
                writer.close()

    async def _connect(self, manners: Manners) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        """A connection, and whether it was used before."""
        kept, self._kept = self._kept, None
        if kept is not None:
            reader, writer, since = kept
            if manners.keeps_alive and not reader.at_eof() and time.monotonic() - since < _IDLE_KEPT_S:
                return reader, writer, True
            writer.close()
        if manners.reads_bytes_per_s is None:
            return *await asyncio.open_connection(self._place.hostname, self._place.port, limit=_LARGEST), False
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGEST_SLOW)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (self._place.hostname, self._place.port))
        return *await asyncio.open_connection(sock=plain, limit=_LARGEST_SLOW), False

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, manners: Manners, seen: Seen) -> bool:
        """Whether the client is still there after it."""
        lines = [f"{name}: {value}" for name, value in {**self._headers, "content-type": "application/json"}.items()]
        head = ["POST /v1/chat/completions HTTP/1.1", f"host: {self._place.netloc}"]
        head += ["connection: keep-alive" if manners.keeps_alive else "connection: close", *lines]
        sent = data
        if manners.leaves_after_share_of_body is not None:
            sent = data[: int(len(data) * manners.leaves_after_share_of_body)]
        writer.write("\r\n".join([*head, f"content-length: {len(data)}", "", ""]).encode() + sent)
        await writer.drain()
        seen.left = len(sent) < len(data)
        return not seen.left

    async def _read_body(self, reader: asyncio.StreamReader, manners: Manners, seen: Seen) -> bool:
        """Whether the client is still there after it."""
        if "chunked" not in seen.headers.get("transfer-encoding", ""):
            seen.whole(await reader.readexactly(int(seen.headers["content-length"])))
            return True
        rest = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            piece = (await reader.readexactly(size + 2))[:-2]
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                seen.frame(frame)
            if manners.leaves_after_pieces is not None and seen.pieces >= manners.leaves_after_pieces:
                return False
            if manners.reads_bytes_per_s is not None:
                await asyncio.sleep(size / manners.reads_bytes_per_s)  # slowness is a matter of time
        await reader.readexactly(2)
        if rest:
            seen.oddities.append(f"a frame without an end: {rest[:80]!r}")
        return True

    async def _end(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, manners: Manners, seen: Seen
    ) -> None:
        """The answer is all there; nothing may follow it on the connection."""
        seen.is_whole = True
        if manners.keeps_alive and seen.headers.get("connection", "").lower() != "close":
            self._kept = (reader, writer, time.monotonic())
            return
        try:
            async with asyncio.timeout(_LAST_BYTES_S):
                if more := await reader.read(200):
                    seen.oddities.append(f"after the answer came {more!r}")
        except TimeoutError:
            seen.oddities.append("the connection was not closed after the answer")
        except OSError:
            pass


async def _read_head(reader: asyncio.StreamReader, seen: Seen) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    seen.status = int(first.split()[1])
    seen.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
