"""What a connection has shown of itself lately, and whether a request should go there now. Pure: the time comes in.

A 429 says for how long a model's limit is used up; then the connection is as good as ever. It may also mean one request
that is too large for what a minute admits: a much smaller one may try at once if there is nothing else, and if it is
answered, requests of that size are known to be refused for themselves. Other failures count once
they come in a row, a refused key or an empty account at once: when their pause is over, one request tries the
connection while the others still go elsewhere, and if that one is answered, the connection is back. A long wait is
tried now and then, too, if there is nothing else.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from app.errors import UpstreamError

Reason = Literal["cooling_down", "failing", "key_refused", "out_of_funds"]

FAILURES_IN_A_ROW = 3
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
ADMIN_PAUSE_S = 60.0
"""Of what only an admin can mend; a mended key or account is found by itself then."""
COOL_DOWN_S = 5.0
"""Of a 429 that does not say how long it holds."""
LONGEST_COOL_DOWN_S = 3600.0
TRIAL_S = 15.0
"""A trial that has shown nothing by then, as when its client left, is followed by another."""
LARGE_BYTES = 100_000
"""Of a request that may be too large for what a minute admits."""
MUCH_SMALLER = 2
TOO_LARGE_FOR_S = 600.0
"""How long it is known of a size that it is refused for itself."""
_MOST_MODELS = 200
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)

OF_THE_ACCOUNT: dict[str, Reason] = {
    "upstream_authentication_failed": "key_refused",
    "insufficient_quota": "out_of_funds",
}
_OF_THE_MODEL = frozenset({"rate_limit_exceeded", "overloaded"})
"""Anthropic keeps its limits, and runs out of capacity, for each model apart."""


def may_succeed_elsewhere(error: UpstreamError) -> bool:
    """Whether it was this connection's key, limit or network, and not the request."""
    if error.status == 429 or error.code in OF_THE_ACCOUNT:
        return True
    told = error.headers.get("x-should-retry")
    return told == "true" if told in ("true", "false") else error.status >= 500


@dataclass(frozen=True)
class Out:
    """Why requests go elsewhere, and until when (monotonic seconds)."""

    reason: Reason
    until: float
    error: UpstreamError
    """A copy: the one that was raised holds on to all that the request was."""
    on_trial: bool = False
    may_be_tried_at: float = math.inf
    """Of a cool-down: when a request may go there if there is nothing else."""
    size: int = 0
    """Bytes of the request that met it."""

    def is_much_larger_than(self, size: int) -> bool:
        return self.size >= LARGE_BYTES and 0 < size * MUCH_SMALLER <= self.size

    def may_be_tried(self, size: int, now: float) -> bool:
        return now >= self.may_be_tried_at or (not self.on_trial and self.is_much_larger_than(size))


@dataclass
class _Standing:
    failures: int = 0
    """In a row: an answer that is complete ends the row, one that has only begun does not."""
    pause_s: float = FIRST_PAUSE_S
    """How long the next failure takes it out."""
    out: Out | None = None
    too_large: int = 0
    """Bytes of a request that was refused for itself, until `too_large_until`; 0: none is known."""
    too_large_until: float = 0.0

    def is_out(self, now: float) -> bool:
        return self.out is not None and now < self.out.until

    def fail(self, error: UpstreamError, now: float, size: int) -> None:
        if error.code in OF_THE_ACCOUNT:
            self.out = Out(OF_THE_ACCOUNT[error.code], now + ADMIN_PAUSE_S, bare(error))
        elif error.status == 429:
            if error.upstream_status == 429 and not _names_a_limit(error):  # it is about that request
                return
            if self.too_large and size >= self.too_large and now < self.too_large_until:
                return
            until = now + _cool_down_s(error)
            if self.out is not None and self.out.reason == "cooling_down" and not self.out.on_trial:
                until = max(until, self.out.until)
            self.out = Out("cooling_down", until, bare(error), may_be_tried_at=now + TRIAL_S, size=size)
        else:
            self.failures += 1
            knew = self.is_out(now) and not (self.out is not None and self.out.on_trial)
            if self.failures >= FAILURES_IN_A_ROW and not knew:
                self.out = Out("failing", now + self.pause_s, bare(error))
                self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)

    def begin(self, now: float, size: int) -> None:
        if self.out is None:
            return
        if self.out.reason == "cooling_down":
            if not self.is_out(now):
                self.out = None
            elif self.out.may_be_tried(size, now):
                self.out = replace(self.out, on_trial=True, may_be_tried_at=now + TRIAL_S)
        elif not self.is_out(now):
            self.out = replace(self.out, until=now + TRIAL_S, on_trial=True)

    def began(self, now: float, size: int) -> None:
        if self.out is not None and self.out.on_trial and self.out.is_much_larger_than(size):
            self.too_large, self.too_large_until = self.out.size, now + TOO_LARGE_FOR_S
        if self.out is not None and (self.out.on_trial or self.out.reason != "cooling_down"):
            self.out = None

    def completed(self) -> None:
        self.failures = 0
        self.pause_s = FIRST_PAUSE_S


@dataclass
class Health:
    """Of one connection: as a whole, and of its models apart, by the names they have there."""

    _whole: _Standing = field(default_factory=_Standing)
    _models: dict[str, _Standing] = field(default_factory=dict)

    def out(self, model: str, now: float) -> Out | None:
        """Why no request for the model should go there now; None if it may."""
        found = [standing.out for standing in self._of(model) if standing.out is not None and standing.is_out(now)]
        return max(found, key=lambda out: out.until, default=None)

    def outs(self, now: float) -> list[tuple[str | None, Out]]:
        """All there is to tell: (model, or None for the whole connection; why it is out)."""
        standings: list[tuple[str | None, _Standing]] = [(None, self._whole), *self._models.items()]
        return [(name, s.out) for name, s in standings if s.out is not None and s.is_out(now)]

    def begin(self, model: str, now: float, size: int = 0) -> None:
        """A request goes there; where a pause is over, it is the trial."""
        for standing in self._of(model):
            standing.begin(now, size)

    def began(self, model: str, now: float = 0.0, size: int = 0) -> None:
        """A request is being answered: its first event is there."""
        for standing in self._of(model):
            standing.began(now, size)

    def completed(self, model: str) -> None:
        """An answer has come to its proper end."""
        for standing in self._of(model):
            standing.completed()

    def failed(self, model: str, error: UpstreamError, now: float, size: int = 0) -> None:
        """A request of `size` bytes, or an answer that had begun, failed for a reason that is not the request's own."""
        if error.code in _OF_THE_MODEL:
            if model not in self._models and len(self._models) >= _MOST_MODELS:  # clients may invent names
                self._models = {name: s for name, s in self._models.items() if s.is_out(now)}
                while len(self._models) >= _MOST_MODELS:
                    del self._models[next(iter(self._models))]
            self._models.setdefault(model, _Standing()).fail(error, now, size)
        else:
            self._whole.fail(error, now, size)

    def _of(self, model: str) -> list[_Standing]:
        own = self._models.get(model)
        return [self._whole] if own is None else [self._whole, own]


def bare(error: UpstreamError) -> UpstreamError:
    """What it says, and nothing of the request that met it."""
    return UpstreamError(
        error.message,
        status=error.status,
        type=error.type,
        code=error.code,
        upstream={**error.upstream, "request_id": None} if error.upstream else None,
        upstream_status=error.upstream_status,
    )


def _names_a_limit(error: UpstreamError) -> bool:
    return any(name == "retry-after" or name.startswith("anthropic-ratelimit-") for name in error.headers)


def _cool_down_s(error: UpstreamError) -> float:
    told = error.headers.get("retry-after", "")
    return min(float(told), LONGEST_COOL_DOWN_S) if _SECONDS.fullmatch(told) else COOL_DOWN_S
