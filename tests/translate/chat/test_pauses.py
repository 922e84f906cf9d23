"""However long one message is, others have their turns while it is translated."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from app.translate.chat.request import Options, to_message_params
from app.translate.facts import ModelFacts

Parts = list[dict[str, Any]]


def texts(n: int) -> Parts:
    return [{"type": "text", "text": f"part {i}"} for i in range(n)]


def thoughts(n: int) -> Parts:
    return [{"type": "thinking", "thinking": f"thought {i}", "signature": "c2lnbmVk"} for i in range(n)]


def calls(n: int) -> Parts:
    return [{"id": f"call_{i}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for i in range(n)]


def longest_stretch(messages: list[dict[str, Any]]) -> int:
    """The most lines of Python that run between two pauses."""
    stretches = [0]

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        stretches[-1] += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        to_message_params(
            {"model": "claude", "messages": messages}, ModelFacts("m"), Options(), pause=lambda: stretches.append(0)
        )
    finally:
        sys.settrace(before)
    return max(stretches)


@pytest.mark.parametrize(
    "message",
    [
        lambda n: [{"role": "user", "content": texts(n)}],
        lambda n: [{"role": "system", "content": texts(n)}, {"role": "user", "content": "go"}],
        lambda n: [{"role": "user", "content": "go"}, {"role": "assistant", "content": texts(n)}],
        lambda n: [{"role": "user", "content": "go"}, {"role": "assistant", "content": thoughts(n)}],
        lambda n: [
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": calls(n)},
            *({"role": "tool", "tool_call_id": f"call_{i}", "content": "done"} for i in range(n)),
        ],
        lambda n: [
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": calls(1)},
            {"role": "tool", "tool_call_id": "call_0", "content": texts(n)},
        ],
    ],
    ids=["user", "system", "assistant", "thinking", "calls", "result"],
)
def test_between_two_turns_little_is_done_for_each_part_of_a_message(message: Any) -> None:
    """Of a hundred thousand parts, which is what may be sent, this many lines take some ten milliseconds."""
    messages = message(400)
    contents = [each.get("tool_calls") or each["content"] for each in messages]
    parts = sum(len(content) if isinstance(content, list) else 1 for content in contents)
    assert longest_stretch(messages) < 9 * parts
