"""What the simulator was asked and how each request ended: what tests look at through `/_sim/`."""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app.simulator.http import Request

KEPT_REQUESTS = 200
KEPT_BODY_BYTES = 1024 * 1024
KEPT_RAW_BYTES = 64 * 1024 * 1024
"""How many bytes of bodies are kept in all, so that two of the largest are; the oldest go first."""
FINISHED, ABORTED, ERROR = "finished", "aborted by client", "error"


@dataclass(slots=True)
class Entry:
    """One request that is no control; `ended` is None while it runs."""

    number: int
    request: Request
    key: str
    started_s: float
    body_bytes: int
    body_sha256: str
    raw_body: bytes | None
    """The bytes that came, before any decoding; None once they were let go."""
    body: Any = None
    status: int | None = None
    ended: str | None = None
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "method": self.request.method,
            "target": self.request.target,
            "path": self.request.path,
            "query": self.request.query,
            "headers": self.request.headers,
            "raw_headers": self.request.raw_headers,
            "body": self.body,
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256,
            "key": self.key,
            "time": self.started_s,
            "status": self.status,
            "ended": self.ended,
            "seconds": self.seconds,
        }


@dataclass
class Journal:
    """The last requests and the counters over all of them."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    requests: int = 0
    live: int = 0
    peak: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {FINISHED: 0, ABORTED: 0, ERROR: 0})
    aborts: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))

    def open(self, request: Request, key: str, now_s: float) -> Entry:
        self.requests += 1
        raw = request.body
        entry = Entry(self.requests, request, key, now_s, len(raw), hashlib.sha256(raw).hexdigest(), raw)
        self.entries.append(entry)
        self._let_go()
        self.live += 1
        self.peak = max(self.peak, self.live)
        return entry

    def _let_go(self) -> None:
        kept = 0
        for entry in reversed(self.entries):
            kept += len(entry.raw_body or b"")
            if kept > KEPT_RAW_BYTES:
                entry.raw_body = None

    def raw_body(self, number: str) -> bytes | None:
        """The bytes of one request's body, by its number or "last"; None when they are not there any more."""
        if number == "last":
            return self.entries[-1].raw_body if self.entries else None
        return next((entry.raw_body for entry in self.entries if str(entry.number) == number), None)

    def close(self, entry: Entry, ended: str, now_s: float) -> None:
        entry.ended = ended
        entry.seconds = round(now_s - entry.started_s, 4)
        entry.request.body = b""
        if entry.body_bytes > KEPT_BODY_BYTES:
            entry.body = None
        self.live -= 1
        self.ended[ended] += 1
        if ended == ABORTED:
            self.aborts.append(now_s)

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "live": self.live,
            "peak": self.peak,
            "finished": self.ended[FINISHED],
            "aborted_by_client": self.ended[ABORTED],
            "errors": self.ended[ERROR],
            "last_aborts": list(self.aborts),
        }
