"""What the simulator was asked and how each request ended: what tests look at through `/_sim/`."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app.simulator.http import Request

KEPT_REQUESTS = 200
KEPT_BODY_BYTES = 1024 * 1024
FINISHED, ABORTED, ERROR = "finished", "aborted by client", "error"


@dataclass(slots=True)
class Entry:
    """One request to `/v1/…`; `ended` is None while it runs."""

    request: Request
    key: str
    started_s: float
    body: Any = None
    status: int | None = None
    ended: str | None = None
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.request.method,
            "path": self.request.path,
            "query": self.request.query,
            "headers": self.request.headers,
            "body": self.body,
            "body_bytes": len(self.request.body),
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
        entry = Entry(request, key, now_s)
        self.entries.append(entry)
        self.requests += 1
        self.live += 1
        self.peak = max(self.peak, self.live)
        return entry

    def close(self, entry: Entry, ended: str, now_s: float) -> None:
        entry.ended = ended
        entry.seconds = round(now_s - entry.started_s, 4)
        if len(entry.request.body) > KEPT_BODY_BYTES:
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
