"""Many chat requests at once, as clients make them: what each of them got, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from tests.conftest import CLIENT

_LARGEST = 1 << 24
T = TypeVar("T")


@dataclass
class Outcome:
    """`status` is None where no head came. `is_whole`: the transfer came to its proper end; times are monotonic."""

    model: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    finish: str | None = None
    error: dict[str, Any] | None = None
    is_done: bool = False
    is_whole: bool = False
    left: bool = False
    began: float = 0.0
    chunks: list[float] = field(default_factory=list)
    """When each piece of text came."""
    ended: float = 0.0

    @property
    def was_answered(self) -> bool:
        return self.status == 200 and self.is_whole and self.error is None and self.finish is not None

    @property
    def was_refused(self) -> bool:
        """With an error that says so, in the head or within the stream, and no sign of a proper end."""
        return self.error is not None and bool(self.error.get("message")) and self.is_whole and not self.is_done

    @property
    def was_cut_silently(self) -> bool:
        return not (self.left or self.was_answered or self.was_refused)


def run(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run() in a thread of its own: Playwright leaves a running loop in the tests' own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def numbered(tokens: int) -> str:
    """What `sim-text:tokens=N` says."""
    return " ".join(f"w{number}" for number in range(tokens))


async def ask(
    url: str,
    model: str,
    *,
    stream: bool = True,
    leave_after_s: float | None = None,
    headers: Mapping[str, str] = CLIENT,
    began: asyncio.Event | None = None,
    **more: Any,
) -> Outcome:
    """One request on a connection of its own. With `leave_after_s` the client closes it then, whatever has come."""
    outcome = Outcome(model, began=time.monotonic())
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
    talk = _talk(url, orjson.dumps(asked), headers, outcome, began)
    try:
        if leave_after_s is None:
            await talk
        else:
            await asyncio.wait_for(talk, leave_after_s)
    except TimeoutError:
        outcome.left = True
    except (OSError, asyncio.IncompleteReadError):
        pass  # broken off: the outcome says so
    outcome.ended = time.monotonic()
    return outcome


async def _talk(
    url: str, body: bytes, headers: Mapping[str, str], outcome: Outcome, began: asyncio.Event | None
) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=_LARGEST)
    try:
        lines = [f"{name}: {value}" for name, value in {**headers, "content-type": "application/json"}.items()]
        head = [f"POST {place.path or '/v1/chat/completions'} HTTP/1.1", f"host: {place.netloc}", "connection: close"]
        writer.write("\r\n".join([*head, *lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        await writer.drain()
        await _read_head(reader, outcome)
        if "chunked" in outcome.headers.get("transfer-encoding", ""):
            await _read_stream(reader, outcome, began)
        else:
            _take_answer(await reader.readexactly(int(outcome.headers["content-length"])), outcome)
        outcome.is_whole = True
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader, outcome: Outcome) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    outcome.status = int(first.split()[1])
    outcome.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}


async def _read_stream(reader: asyncio.StreamReader, outcome: Outcome, began: asyncio.Event | None) -> None:
    rest = b""
    while size := int(await reader.readline(), 16):
        piece = (await reader.readexactly(size + 2))[:-2]
        *frames, rest = (rest + piece).split(b"\n\n")
        for frame in frames:
            _take_frame(frame, outcome)
        if outcome.chunks and began is not None:
            began.set()
    await reader.readline()


def _take_frame(frame: bytes, outcome: Outcome) -> None:
    if not frame.startswith(b"data: "):
        return
    if frame == b"data: [DONE]":
        outcome.is_done = True
        return
    chunk = orjson.loads(frame[6:])
    if "error" in chunk:
        outcome.error = chunk["error"]
        return
    for choice in chunk["choices"]:
        if content := choice["delta"].get("content"):
            outcome.text += content
            outcome.chunks.append(time.monotonic())
        outcome.finish = choice.get("finish_reason") or outcome.finish


def _take_answer(body: bytes, outcome: Outcome) -> None:
    answer = orjson.loads(body)
    outcome.error = answer.get("error")
    if outcome.error is None:
        choice = answer["choices"][0]
        outcome.text = choice["message"]["content"] or ""
        outcome.finish = choice["finish_reason"]


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
