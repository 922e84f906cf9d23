"""Work that may take long lets whoever asked for it do other things now and then."""

from __future__ import annotations

from collections.abc import Callable

Pause = Callable[[], None]
"""Called once in each round of what a client can make long."""


def no_pause() -> None:
    pass
