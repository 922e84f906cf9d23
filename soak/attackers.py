"""A process of its own, which attacks the gateway by turns: python -m soak.attackers GATEWAY SEED [NAME]

Or one of them, by its name, once. It tells each attack when it is over, as a line of JSON, and ends with its standard
input. An attack ends by itself: after ATTACK_S no connection begins and nothing endless goes on, whoever asked waits
for an answer no longer than ANSWER_WITHIN_S, and all its connections together send MOST_BYTES at most. It attacks
nothing but loopback.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import itertools
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from soak.attack_books import OUTCOMES, Attack
from soak.innocents import tell, until_stdin_ends
from soak.stage import ATTACKERS, CLIENT_KEY

ATTACK_S = 3.0
ANSWER_WITHIN_S = 20.0
MOST_BYTES = 160 * 1024 * 1024
QUIET_S = 2.0
"""Between two attacks: what comes then is compared with."""
FIRST_QUIET_S = 5.0
_LIMIT = 32 * 1024 * 1024
"""The gateway's MAX_BODY_BYTES."""
_PIECE = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LONGEST_STATUS = len(b"HTTP/1.1 200")
_AUTH = f"authorization: Bearer {CLIENT_KEY}\r\n"
_CHAT = "/chat/completions"  # counted apart from the clients' /v1/chat/completions
_EXPLAIN = f"{_CHAT}?explain=1"
_MODEL = f"{ATTACKERS}.sim-text:tokens=2"
_LOGIN = "/admin/login"
_FORM = "content-type: application/x-www-form-urlencoded\r\n"


@dataclass(frozen=True)
class Plan:
    """`pieces` are what one connection sends. Those of an endless plan do not end before the attack does."""

    name: str
    pieces: Callable[[], Iterator[bytes]]
    is_endless: bool = False
    connections: int = 2
    """At once."""


# -------------------------------------------------------------------------------------------------------- what is sent


def _pipelined(path: str, headers: str = "") -> Callable[[], Iterator[bytes]]:
    one = f"GET {path} HTTP/1.1\r\nhost: gateway\r\n{headers}\r\n".encode()
    return lambda: itertools.repeat(one * 200)


def _crumbs(path: str, headers: str) -> Callable[[], Iterator[bytes]]:
    """A chunked body in chunks of one byte."""
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode()
    return lambda: itertools.chain([head], itertools.repeat(b"1\r\nx\r\n" * 10_000))


def _unfinished() -> Callable[[], Iterator[bytes]]:
    """A request line, headers or a body, and no more of it."""
    begun = f"POST {_CHAT} HTTP/1.1\r\nhost: gateway\r\n"
    beginnings = itertools.cycle(
        (
            "POST /chat/comp",
            begun + _AUTH,
            begun + _AUTH + 'content-length: 1000000\r\n\r\n{"model": "',
            begun + _AUTH + "transfer-encoding: chunked\r\n\r\nffff\r\n{",
            begun + "content-length: 1000\r\n\r\n",
            f"POST {_LOGIN} HTTP/1.1\r\nhost: gateway\r\n{_FORM}content-length: 100000\r\n\r\nusername=ann",
        )
    )
    return lambda: iter([next(beginnings).encode()])


def _post(path: str, headers: str, make: Callable[[], bytes]) -> Callable[[], Iterator[bytes]]:
    """The body is made when it is needed first, and kept for the next time."""
    made: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        if not made:
            made.append(make())
        (body,) = made
        head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}"
        yield f"{head}content-length: {len(body)}\r\n\r\n".encode()
        for at in range(0, len(body), _PIECE):
            yield body[at : at + _PIECE]

    return pieces


def _chunked_upload() -> Iterator[bytes]:
    head = f"POST {_CHAT} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{_AUTH}"
    yield f"{head}transfer-encoding: chunked\r\n\r\n".encode()
    for _ in range(_LIMIT // _PIECE + 1):
        yield b"%x\r\n%b\r\n" % (_PIECE, b"x" * _PIECE)
    yield b"0\r\n\r\n"


def _chat(make: Callable[[], dict[str, Any]], path: str = _CHAT) -> Callable[[], Iterator[bytes]]:
    """A request with a valid key, of which `make` gives what is not as with anybody."""
    usual = {"model": _MODEL, "max_tokens": 5, "messages": [_HELLO]}
    return _post(path, _AUTH + "content-type: application/json\r\n", lambda: orjson.dumps({**usual, **make()}))


_HELLO: dict[str, Any] = {"role": "user", "content": "Hello"}


def _orphans() -> dict[str, Any]:
    return {"messages": [_HELLO, *({"role": "tool", "tool_call_id": f"c{i}", "content": "x"} for i in range(8_000))]}


def _two_required() -> dict[str, Any]:
    schema = {"allOf": [{"required": [f"{letter}{i}" for i in range(80_000)]} for letter in "ab"]}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _thinking_and_blanks() -> dict[str, Any]:
    thinking = {"type": "thinking", "thinking": "a", "signature": "s"}
    blank = {"type": "text", "text": " ", "cache_control": {"type": "ephemeral"}}
    return {
        "messages": [_HELLO, {"role": "assistant", "content": [thinking] * 20_000 + [blank] * 20_000}, _HELLO],
    }


def _all_tools_allowed() -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": f"t{i}"}} for i in range(8_000)]
    allowed = {"mode": "auto", "tools": tools}
    return {"tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}


def _many_lists() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"enum": [[]] * 200_000}}}
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def _blank_systems() -> dict[str, Any]:
    pair = [{"role": "assistant", "content": "a"}, {"role": "system", "content": " "}]
    return {"messages": [_HELLO, *pair * 20_000, _HELLO]}


def _conversation() -> dict[str, Any]:
    """30 MB that a client could really send: it calls tools, and is shown a hundred pictures."""
    chance = random.Random("pictures")
    messages: list[dict[str, Any]] = []
    for turn in range(400):
        parts: list[dict[str, Any]] = [{"type": "text", "text": f"Question {turn}: " + "word " * 300}]
        if turn % 4 == 0:
            picture = base64.b64encode(_PNG + chance.randbytes(200_000)).decode()
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}})
        functions = [{"name": f"tool_{i}", "arguments": f'{{"path": "src/{turn}.py", "line": {i}}}'} for i in (1, 2)]
        calls = [{"id": f"call_{turn}_{f['name']}", "type": "function", "function": f} for f in functions]
        messages += [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "I look it up.", "tool_calls": calls},
            *({"role": "tool", "tool_call_id": call["id"], "content": "a line of it\n" * 120} for call in calls),
            {"role": "assistant", "content": "word " * 300},
        ]
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}},
        "required": ["path"],
    }
    tools = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": schema}} for i in range(8)]
    return {"messages": [*messages, _HELLO], "tools": tools}


_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A pixel; what stands behind it no reader looks at."""


def _backslashes() -> dict[str, Any]:
    """With as many commas in a text as make the gateway look where texts end."""
    return {"messages": [{**_HELLO, "content": "\\" * 4_000_000 + "," * 600_000}]}


def _nothing_in_zstd() -> bytes:
    """A frame of blocks that each stand for no byte at all."""
    return bytes.fromhex("28b52ffd0058") + bytes.fromhex("02000041") * 2_000_000 + bytes.fromhex("010000")


PLANS = (
    Plan("pipelined /healthz", _pipelined("/healthz"), is_endless=True),
    Plan("pipelined 404", _pipelined("/nope"), is_endless=True),
    Plan("pipelined 401", _pipelined("/v1/models"), is_endless=True),
    Plan("crumbs, bad key", _crumbs(_CHAT, "authorization: Bearer nope\r\n"), is_endless=True),
    Plan("crumbs, 404", _crumbs("/nope", ""), is_endless=True),
    Plan("crumbs, login", _crumbs(_LOGIN, _FORM), is_endless=True),
    Plan("form of 8 MB", _post(_LOGIN, _FORM, lambda: b"username=ann&password=" + b"&a=b" * 2_000_000)),
    Plan("unfinished requests", _unfinished(), is_endless=True, connections=60),
    Plan("unknown fields, explained", _chat(lambda: {f"f{i}": 1 for i in range(30_000)}, _EXPLAIN)),
    Plan("orphaned tool results, explained", _chat(_orphans, _EXPLAIN)),
    Plan("allOf of two required", _chat(_two_required)),
    Plan("40,000 messages", _chat(lambda: {"messages": [_HELLO] * 40_000})),
    Plan("blank system messages between", _chat(_blank_systems)),
    Plan("490,000 values", _chat(lambda: {"x": [1] * 490_000})),
    Plan("a million values", _chat(lambda: {"x": [[]] * 500_000})),
    Plan("a message of 8 MB", _chat(lambda: {"messages": [{**_HELLO, "content": "word " * 1_600_000}]})),
    Plan("thinking, then blanks", _chat(_thinking_and_blanks)),
    Plan("all of 8,000 tools allowed", _chat(_all_tools_allowed)),
    Plan("ten of 200,000 lists at once", _chat(_many_lists), connections=10),
    Plan("a text of backslashes", _chat(_backslashes)),
    Plan("nearly 8 million backslashes", _chat(lambda: {"messages": [{**_HELLO, "content": '"' * 7_990_000}]})),
    Plan("empty blocks of zstd", _post(_CHAT, _AUTH + "content-encoding: zstd\r\n", _nothing_in_zstd)),
    Plan("upload above the limit", _post(_CHAT, _AUTH, lambda: b"x" * (_LIMIT + 1))),
    Plan("upload above the limit, chunked", _chunked_upload),
)
LARGE = (
    Plan("99,000 messages", _chat(lambda: {"messages": [_HELLO] * 99_000})),
    Plan("900,000 messages", _chat(lambda: {"messages": [{"role": "user", "content": "a"}] * 900_000})),
    Plan("twenty of 20,001 messages at once", _chat(lambda: {"messages": [_HELLO] * 20_001}), connections=20),
    Plan("a conversation of 30 MB", _chat(_conversation)),
    Plan("10 million lists", _chat(lambda: {"x": [[]] * 10_000_000})),
    Plan("a message of 30 MB", _chat(lambda: {"messages": [{**_HELLO, "content": "word " * 6_000_000}]})),
)
"""As large as the gateway takes: each alone, since beside 60 clients two cores do nothing else for most of a minute."""


# ------------------------------------------------------------------------------------------------------ how it is sent


class Running:
    """One attack."""

    def __init__(self, plan: Plan, url: str, seconds: float = ATTACK_S, most_bytes: int = MOST_BYTES) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port
        if not ipaddress.ip_address(self._host).is_loopback:
            raise ValueError(f"{url} is not on this machine")
        self._plan = plan
        self._seconds = seconds
        self._left_bytes = self._most_bytes = most_bytes
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        for _ in plan.pieces():  # makes the body, which takes time that is nobody's attack
            break
        self._began = time.monotonic()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.connections):
                group.create_task(self._connections(self._began + self._seconds))

    def so_far(self) -> Attack:
        sent = self._most_bytes - self._left_bytes
        return Attack(self._plan.name, self._began, time.monotonic(), sent, **self._outcomes)

    async def _connections(self, until: float) -> None:
        """One after the other."""
        while time.monotonic() < until and self._left_bytes > 0:
            began = time.monotonic()
            await self._connection(until if self._plan.is_endless else until + ANSWER_WITHIN_S)
            await asyncio.sleep(max(0.0, 0.02 - (time.monotonic() - began)))

    async def _connection(self, until: float) -> None:
        statuses: list[int] = []
        is_left = True
        writer = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + until - time.monotonic()):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send(writer))
                    await self._read(reader, statuses)
            is_left = self._left_bytes <= 0
        except TimeoutError:
            pass
        except OSError:
            is_left = False
        finally:
            if writer is not None:
                writer.transport.abort()
            for status in statuses:
                self._outcomes["answered" if status < 400 else "refused"] += 1
            if not statuses:
                self._outcomes["left" if is_left else "cut"] += 1

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        """Also after an answer: it may be one that takes the rest for granted."""
        with contextlib.suppress(OSError):
            for piece in self._plan.pieces():
                if len(piece) > self._left_bytes:
                    self._left_bytes = 0
                    writer.transport.abort()
                    return
                self._left_bytes -= len(piece)
                writer.write(piece)
                await writer.drain()

    async def _read(self, reader: asyncio.StreamReader, statuses: list[int]) -> None:
        """To the end of the connection."""
        tail = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                tail += data
                end = 0
                for match in _STATUS.finditer(tail):
                    statuses.append(int(match[1]))
                    end = match.end()
                tail = tail[max(end, len(tail) - _LONGEST_STATUS) :]


async def attack_by_turns(url: str, seed: str) -> None:
    """Each once, in an order by chance, and again."""
    chance = random.Random(f"attacks {seed}")
    await asyncio.sleep(FIRST_QUIET_S)
    while True:
        for plan in chance.sample(PLANS, len(PLANS)):
            await attack(url, plan)
            await asyncio.sleep(QUIET_S)


async def attack(url: str, plan: Plan) -> None:
    running = Running(plan, url)
    try:
        await running.run()
    finally:
        tell(asdict(running.so_far()))


async def main(url: str, seed: str, name: str = "") -> None:
    os.nice(5)  # attackers have machines of their own; here they would take the CPU from whom they are to hold up
    named = [attack(url, plan) for plan in (*PLANS, *LARGE) if plan.name == name]
    await until_stdin_ends(asyncio.ensure_future(named[0] if name else attack_by_turns(url, seed)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
