"""What of an answer the gateway remembers, for clients that return no more than its text and calls.

An answer is found again by a name: the ids of its tool calls, or its text and the user's text before it. It is used
only where what the client returns is what the client was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from app.translate import exact_json
from app.translate.accumulate import PARTIAL_JSON
from app.translate.native import IN_ASSISTANT
from app.translate.thinking import is_thinking, returned_thinking, stands_surely

Block = dict[str, Any]
MOST_NAMES = 200
"""The latest turns are looked for; thinking that is older matters least."""


def remembered_names(messages: Any, family: str) -> dict[int, str]:
    """The names of the assistant messages whose exact blocks the client did not return, by index."""
    if not isinstance(messages, list):
        return {}
    names: dict[int, str] = {}
    asked = _Asked()
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        if message.get("role") != "assistant":
            asked.add(message)
            continue
        name = _name(call_ids(message.get("tool_calls")), visible_text(message.get("content")), asked.digest())
        if name is not None and not _brings_all(message, f"messages[{i}]", family):
            names[i] = name
        asked = _Asked()
    return dict(list(names.items())[-MOST_NAMES:])


def asked_digest(messages: Sequence[Any]) -> str | None:
    """What the answer to these messages will be found by if it calls no tool; None where it continues a message."""
    asked = _Asked()
    for message in reversed(messages):
        if not isinstance(message, dict):
            return None
        if message.get("role") == "assistant":
            break
        asked.add_before(message)
    return asked.digest() if asked.texts else None


def to_memory(content: Sequence[Block], asked: str | None) -> tuple[str, list[Block]] | None:
    """(name, blocks) of an answer that the client cannot return whole by itself; None where it can, or where there is
    nothing to find it by."""
    blocks = [{key: value for key, value in block.items() if key != PARTIAL_JSON} for block in content]
    if _is_plain(blocks) or not all(_can_be_sent_again(block) for block in blocks):
        return None
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    name = _name(calls, _text_of(blocks), asked)
    return None if name is None else (name, blocks)


def matches(blocks: Sequence[Block], text: str, calls: Mapping[str, tuple[str, Any]]) -> bool:
    """Whether the remembered blocks show this text and these calls: {id: (upstream name, input)}."""
    own = {block["id"]: (block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"}
    return _text_of(blocks) == text.strip() and own == calls


def visible_text(content: Any) -> str:
    """The text of a message's content, in whichever form."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict))
    return "".join(text for text in texts if isinstance(text, str))


def call_ids(tool_calls: Any) -> list[str]:
    calls = tool_calls if isinstance(tool_calls, list) else []
    return [call["id"] for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str)]


class _Asked:
    """The texts between two assistant messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, message: Mapping[str, Any]) -> None:
        self.texts.append(visible_text(message.get("content")))

    def add_before(self, message: Mapping[str, Any]) -> None:
        self.texts.insert(0, visible_text(message.get("content")))

    def digest(self) -> str:
        return hashlib.sha256("\0".join(self.texts).encode("utf-8", "surrogatepass")).hexdigest()


def _name(calls: list[str], text: str, asked: str | None) -> str | None:
    if calls:
        return f"call {min(calls)}"
    text = text.strip()
    if not text or asked is None:
        return None
    digest = hashlib.sha256(f"{asked}\0{text}".encode("utf-8", "surrogatepass"))
    return f"text {digest.hexdigest()}"


def _brings_all(message: Mapping[str, Any], path: str, family: str) -> bool:
    content = message.get("content")
    if isinstance(content, list) and any(isinstance(p, dict) and p.get("type") in IN_ASSISTANT for p in content):
        return True
    thinking = returned_thinking(message, path, family)
    others = bool(visible_text(content).strip()) + len(call_ids(message.get("tool_calls")))
    return stands_surely(thinking, message.get("reasoning_details"), others)


def _text_of(blocks: Sequence[Block]) -> str:
    return "".join(block.get("text") or "" for block in blocks if block["type"] == "text").strip()


def _can_be_sent_again(block: Mapping[str, Any]) -> bool:
    """Not an input that was cut short, and not a kind that the API may not take back."""
    if "input" in block and not isinstance(block["input"], dict):
        return False
    return block["type"] == "text" or block["type"] in IN_ASSISTANT


def _is_plain(blocks: Sequence[Block]) -> bool:
    """Text, then calls: what a client returns is translated to the same."""
    if any(is_thinking(b) or b["type"] not in ("text", "tool_use") or b.get("citations") for b in blocks):
        return False
    kinds = [b["type"] for b in blocks]
    return kinds == sorted(kinds) and kinds.count("text") <= 1


def dumps(blocks: Sequence[Block]) -> bytes:
    return exact_json.dumps(blocks)


def loads(value: bytes) -> list[Block]:
    blocks: list[Block] = exact_json.loads(value.decode())
    return blocks
