"""Anthropic's token counts, of a stream as it comes and of several messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def merge_usage(usage: dict[str, Any], update: Mapping[str, Any] | None) -> None:
    """Counts of message_delta are cumulative: each that is not null replaces the one before."""
    for name, value in (update or {}).items():
        if value is not None:
            usage[name] = value


def summed(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of several messages added up; what is no count is the first one's."""
    if len(usages) == 1:
        return dict(usages[0])
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            known = total.get(name)
            if isinstance(value, dict):
                total[name] = summed([known or {}, value])
            elif type(value) is int and type(known) is int:
                total[name] = known + value
            elif known is None:
                total[name] = value
    return total
