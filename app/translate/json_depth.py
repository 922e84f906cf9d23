"""How deep JSON is nested: what walks it by recursion, ours or a library's, gives up somewhere."""

from __future__ import annotations

from typing import Any

from app.translate.pause import Pause, no_pause

_LOOKED_AT_ONCE = 5000


def is_deeper_than(value: Any, limit: int, pause: Pause = no_pause) -> bool:
    """Whether arrays and objects are nested more than `limit` deep. Does not recurse."""
    level = [value]
    for _ in range(limit + 1):
        inner: list[Any] = []
        for at, node in enumerate(level, 1):
            if not at % _LOOKED_AT_ONCE:
                pause()
            if type(node) is dict:
                inner += [v for v in node.values() if type(v) is dict or type(v) is list]
            elif type(node) is list:
                inner += [v for v in node if type(v) is dict or type(v) is list]
        if not inner:
            return False
        level = inner
    return True
