"""Anthropic's `usage` as the classes of tokens that have prices. As in charges.py, nothing is changed once it is made.

https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

MOST = 10**12
"""What claims to be more is no count."""
_BYTES_PER_TOKEN = (3.5, 2.7)
_FINER_FROM = (4, 7)
"""From this version on a tokenizer counts about 30 % more."""
_VERSION = re.compile(r"^claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?!\d)")
_THINKING_PER_S = 25


@dataclass
class Tokens:
    """`thinking` is part of `output`."""

    input: int = 0
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0
    output: int = 0
    thinking: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.write_5m + self.write_1h + self.read

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.write_5m + other.write_5m,
            self.write_1h + other.write_1h,
            self.read + other.read,
            self.output + other.output,
            self.thinking + other.thinking,
        )


@dataclass
class Counted:
    tokens: Tokens
    searches: int = 0
    is_exact: bool = True


def counted(usage: Mapping[str, Any] | None, *, only_1h: bool = False) -> Counted | None:
    """None where nothing is known: there is no usage, or what it says is no count. With `only_1h` the request asked for
    no other cache, which decides where the usage does not say."""
    if not isinstance(usage, Mapping):
        return None
    try:
        written = _count(usage, "cache_creation_input_tokens")
        short, long, is_exact = _written(usage.get("cache_creation"), written, only_1h)
        tokens = Tokens(
            _count(usage, "input_tokens"),
            short,
            long,
            _count(usage, "cache_read_input_tokens"),
            _count(usage, "output_tokens"),
            _count(usage.get("output_tokens_details") or {}, "thinking_tokens"),
        )
        searches = _count(usage.get("server_tool_use") or {}, "web_search_requests")
    except (ValueError, AttributeError):
        return None
    return Counted(tokens, searches, is_exact)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{name} is no count")
    return value


def _written(breakdown: Any, written: int, only_1h: bool) -> tuple[int, int, bool]:
    """(for 5 minutes, for an hour, whether that is certain): the breakdown where it fits, else the sum wins."""
    short = long = 0
    if isinstance(breakdown, Mapping):
        short, long = _count(breakdown, "ephemeral_5m_input_tokens"), _count(breakdown, "ephemeral_1h_input_tokens")
    if short + long == written:
        return short, long, True
    long = written if only_1h else min(long, written)
    return written - long, long, False


def larger(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(*(max(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)))


def total(tokens: Iterable[Tokens]) -> Tokens:
    first, *others = [*tokens] or [Tokens()]
    return sum(others, first)


def with_estimated_output(tokens: Tokens, model: str, received: int, thought_s: float = 0.0) -> Tokens:
    """Of an answer that was cut: what came of it, in bytes, and how long the model thought without showing it. Never
    less than Anthropic had counted by then."""
    written = math.ceil(received / bytes_per_token(model)) + math.ceil(thought_s * _THINKING_PER_S)
    return replace(tokens, output=max(tokens.output, written))


def bytes_per_token(model: str) -> float:
    found = _VERSION.match(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (99, 0)
    return _BYTES_PER_TOKEN[version >= _FINER_FROM]
