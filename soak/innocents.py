"""A process of its own, which reads paced streams and does nothing else.

python -m soak.innocents GATEWAY SIMULATOR WORKERS PID-OF-THE-SIMULATOR [PID-OF-A-PROXY]

It tells, a line of JSON each, the longest gap of each stream in each quarter of a second, and what broke off. It ends
with its standard input. Streams through the gateway are spread over its workers; one more comes straight from the
simulator: its gaps are what the machine itself does to such streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from soak.attack_books import Gap
from soak.stage import ADMIN_KEY, CLIENT_KEY, INNOCENTS

GAP_MS = 10
TOKENS = 500
"""Five seconds: a worker that is to stop lets it finish."""
EACH_S = 0.25
_TRIES = 10
_START_WITHIN_S = 30.0


class Gaps:
    """Of one stream: collects until it is time to tell the longest, and the longest without the time that was
    spent waiting for a CPU."""

    def __init__(self, worker: int | None) -> None:
        self._worker = worker
        self._last: tuple[float, tuple[float, ...]] | None = None
        self._gaps: list[Gap] = []
        self._told_at = 0.0

    @property
    def has_begun(self) -> bool:
        return self._last is not None

    def piece(self, now: float, waits_s: tuple[float, ...]) -> list[Gap]:
        """One has come. `waits_s`: how long each of those who take part has waited so far, since it began. What is to
        be told, if it is time. Waits of two may be at the same time, so that the longer one counts."""
        if self._last is None:
            self._told_at = now
        else:
            last, before_s = self._last
            waited_s = max(wait - before for wait, before in zip(waits_s, before_s, strict=True))
            self._gaps.append(Gap(last, now, self._worker, waited_s))
        self._last = (now, waits_s)
        return self.rest(now) if now - self._told_at >= EACH_S else []

    def rest(self, now: float) -> list[Gap]:
        """What was not told yet."""
        gaps, self._gaps = self._gaps, []
        self._told_at = now
        return list({max(gaps, key=lambda gap: gap.ms), max(gaps, key=lambda gap: gap.own_ms)}) if gaps else []


def waits_s(worker: int | None, others: Sequence[int]) -> tuple[float, ...]:
    """For how long the worker, the others that pass the stream on (its simulator, a proxy) and this process could have
    run and no CPU was free."""
    found = []
    for process in (worker, *others, "self"):
        wait_s = 0.0
        with contextlib.suppress(OSError):  # it is gone, or this kernel does not tell
            wait_s = int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
        found.append(wait_s)
    return tuple(found)


class Innocents:
    def __init__(self, gateway: str, simulator: str, workers: int, pids: Sequence[int]) -> None:
        self._gateway = gateway
        self._simulator = simulator
        self._pids = pids
        self._workers = workers
        self._streams = 2 * workers
        self._reading: Counter[int | None] = Counter()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._streams):
                group.create_task(self._read_all(self._gateway))
            group.create_task(self._read_all(self._simulator))

    async def _read_all(self, url: str) -> None:
        """One stream after the other. Before the first piece nothing is innocent yet: a worker that is killed, or the
        one that stops, may refuse the connection."""
        while True:
            try:
                async with asyncio.timeout(_START_WITHIN_S):
                    reader, writer, worker = await self._open(url)
            except (OSError, EOFError, asyncio.LimitOverrunError, ValueError, KeyError, TypeError):
                await asyncio.sleep(0.1)  # no more than ten tries a second
                continue
            self._reading[worker] += 1
            try:
                await self._read(reader, worker)
            finally:
                self._reading[worker] -= 1
                writer.close()
            await asyncio.sleep(0.02)  # a worker that stops ends connections before there is a stream

    async def _open(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int | None]:
        """A connection that was asked for a stream, and the worker that it leads to: rather one that is read less."""
        place = urlsplit(url)
        body = {"model": f"sim-text:tokens={TOKENS},gap_ms={GAP_MS}", "stream": True, "max_tokens": 4000}
        said = {"messages": [{"role": "user", "content": "Tell me something."}]}
        if url == self._simulator:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            headers = f"x-api-key: sk-ant-{INNOCENTS}.straight\r\nanthropic-version: 2023-06-01"
            writer.write(_post("/v1/messages", place.netloc, headers, {**body, **said}))
            return reader, writer, None
        for left in reversed(range(_TRIES)):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                worker = await _worker_of(reader, writer, place.netloc)
            except BaseException:
                writer.close()
                raise
            if not left or self._reading[worker] < self._streams / self._workers:
                break
            writer.close()
        body["model"] = f"{INNOCENTS}.{body['model']}"
        headers = f"authorization: Bearer {CLIENT_KEY}"
        writer.write(_post("/chat/completions", place.netloc, headers, {**body, **said}))
        return reader, writer, worker

    async def _read(self, reader: asyncio.StreamReader, worker: int | None) -> None:
        gaps = Gaps(worker)
        tail = b""
        broke = "no end"
        try:
            while data := await reader.read(65536):
                now = time.monotonic()
                tail += data
                if b'"error"' in tail or (tail.startswith(b"HTTP/1.1 ") and b" 200 OK\r\n" not in tail):
                    broke = tail[-400:].decode(errors="replace")
                    break
                if b"data: {" in data:
                    tell(*map(asdict, gaps.piece(now, waits_s(worker, self._pids))))
                if b"data: [DONE]" in tail or b"message_stop" in tail:
                    broke = ""
                    break
                tail = tail[-30:]
        except OSError as error:
            broke = repr(error)
        except asyncio.CancelledError:
            if gaps.has_begun:  # it may stand still just now
                tell(*map(asdict, gaps.piece(time.monotonic(), waits_s(worker, self._pids))))
            raise
        finally:
            tell(*map(asdict, gaps.rest(time.monotonic())))
        if broke and worker is not None and gaps.has_begun:
            tell({"broke": broke, "worker": worker, "at": time.monotonic()})


async def _worker_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> int:
    """The pid behind this connection, which is kept for more. So does a proxy keep the one to the worker, and
    takes for its next request the one that it used last."""
    writer.write(f"GET /readyz HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(orjson.loads(await reader.readexactly(length))["worker"]["pid"])


def _post(path: str, host: str, headers: str, body: Any) -> bytes:
    data = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def tell(*lines: dict[str, Any]) -> None:
    for line in lines:
        sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.buffer.flush()


async def until_stdin_ends(work: asyncio.Task[None]) -> None:
    """Whoever started this process ends it so, also by being gone."""
    loop = asyncio.get_running_loop()
    loop.add_reader(0, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    loop.remove_reader(0)


async def main(gateway: str, simulator: str, workers: str, *pids: str) -> None:
    run = Innocents(gateway, simulator, int(workers), [*map(int, pids)]).run()
    await until_stdin_ends(asyncio.ensure_future(run))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
