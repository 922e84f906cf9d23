"""Work that may take long lets whoever asked for it do other things now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Pause = Callable[[], None]
"""Called once in each round of what a client can make long."""


def no_pause() -> None:
    pass


_T = TypeVar("_T")


def paced(items: Iterable[_T], pause: Pause) -> Iterator[_T]:
    for item in items:
        pause()
        yield item
