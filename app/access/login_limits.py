"""How often somebody may fail to sign in."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Literal

from app.errors import TooManyRequests

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

log = logging.getLogger(__name__)

FAILED_LOGINS_PER_ADDRESS = "20 per 5 minutes"
FAILED_LOGINS_PER_USERNAME = "10 per 5 minutes"
Name = tuple[str, str]


class LoginLimits:
    """Failed sign-ins, per address and per user name; in Redis where several processes must agree. While Redis is away
    each process counts for itself."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._limiters: tuple[RateLimiter, ...] = ()
        self._limits: list[RateLimitItem] = []
        self._turn = threading.Lock()

    def count(self, address: str, username: str, browser: str | None = None) -> None:
        """An attempt, failed until it is taken back. A `browser` that has signed in before has a budget of its own, so
        that nobody else can lock its admin out. Raises TooManyRequests."""
        for limit, name in self._names(address, username, browser):
            if not self._ask("hit", limit, name):
                wait_s = max(1, round(self._ask("get_window_stats", limit, name).reset_time - _now()))
                raise TooManyRequests(
                    f"Too many failed sign-ins. Try again in {wait_s} seconds.", headers={"retry-after": str(wait_s)}
                )

    def take_back(self, address: str, username: str, browser: str | None = None) -> None:
        for limit, name in self._names(address, username, browser):
            self._ask("hit", limit, name, cost=-1)

    def forget(self, username: str) -> None:
        limit, name = self._names("", username, None)[1]
        self._ask("clear", limit, name)

    def _names(self, address: str, username: str, browser: str | None) -> list[tuple[RateLimitItem, Name]]:
        self._prepare()
        by_address, by_username = self._limits
        if browser is not None:
            return [(by_username, ("login-browser", browser))]
        return [(by_address, ("login-address", address)), (by_username, ("login-username", username.strip()[:100]))]

    def _ask(
        self, what: Literal["hit", "clear", "get_window_stats"], limit: RateLimitItem, name: Name, **options: int
    ) -> Any:
        from limits.errors import StorageError

        shared, own = self._limiters
        try:
            return getattr(shared, what)(limit, *name, **options)
        except StorageError as error:
            log.warning("REDIS_URL: failed sign-ins are counted by this process alone: %s", error.storage_error)
            return getattr(own, what)(limit, *name, **options)

    def _prepare(self) -> None:
        if self._limiters:
            return
        from limits import parse
        from limits.storage import storage_from_string
        from limits.strategies import FixedWindowRateLimiter

        with self._turn:
            if not self._limiters:  # those who come at once count in the same place
                self._limits = [parse(FAILED_LOGINS_PER_ADDRESS), parse(FAILED_LOGINS_PER_USERNAME)]
                self._limiters = tuple(
                    FixedWindowRateLimiter(storage_from_string(url, wrap_exceptions=True))
                    for url in (self._redis_url or "memory://", "memory://")
                )


def _now() -> float:
    import time

    return time.time()
