"""What of an answer the gateway remembers, for clients that return no more than its text and calls.

An answer is found again by a name: the ids of its tool calls, or its text and the conversation before it. It is used
only where what the client returns is what the client was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from app.translate import exact_json
from app.translate.accumulate import PARTIAL_JSON
from app.translate.json_schema import with_known_names
from app.translate.native import IN_ASSISTANT, is_well_formed
from app.translate.pause import Pause, no_pause, paced
from app.translate.thinking import is_thinking, returned_thinking, stands_surely

Block = dict[str, Any]
_ONLY_CLAUDE_WRITES = tuple(kind for kind in IN_ASSISTANT if kind != "tool_use")
_HASHED_AT_ONCE = 1_000_000
MOST_NAMES = 200
"""The latest turns are looked for; thinking that is older matters least."""


def remembered_names(messages: Any, user: str, family: str, pause: Pause = no_pause) -> dict[int, str]:
    """The names of the assistant messages whose exact blocks the client did not return, by index. `user` is whom the
    client speaks for, if it says so."""
    if not isinstance(messages, list):
        return {}
    names: dict[int, str] = {}
    told = _Told(user, pause)
    for i, message in enumerate(messages):
        pause()
        if not isinstance(message, dict):
            continue
        if message.get("role") == "assistant":
            name = _name(call_ids(message, pause), visible_text(message.get("content"), pause), told.digest())
            if name is not None and not _brings_all(message, family):
                names[i] = name
        told.add(message)
    return dict(list(names.items())[-MOST_NAMES:])


def told_digest(messages: Sequence[Any], user: str, pause: Pause = no_pause) -> str | None:
    """What the answer to these messages will be found by if it calls no tool; None where it continues a message."""
    if not messages or not isinstance(messages[-1], dict) or messages[-1].get("role") == "assistant":
        return None
    told = _Told(user, pause)
    for message in messages:
        pause()
        if isinstance(message, dict):
            told.add(message)
    return told.digest()


def to_memory(content: Sequence[Block], told: str | None) -> tuple[str, list[Block]] | None:
    """(name, blocks) of an answer that the client cannot return whole by itself; None where it can, or where there is
    nothing to find it by."""
    blocks = [{key: value for key, value in block.items() if key != PARTIAL_JSON} for block in content]
    if _is_plain(blocks) or not all(_can_be_sent_again(block) for block in blocks):
        return None
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    name = _name(calls, _text_of(blocks), told)
    return None if name is None else (name, blocks)


def matches(blocks: Sequence[Block], text: str, calls: Mapping[str, tuple[str, Any]]) -> bool:
    """Whether the remembered blocks show this text and these calls: {id: (upstream name, input)}."""
    own = {block["id"]: (block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"}
    if _text_of(blocks) != text.strip() or own.keys() != calls.keys():
        return False
    return own == calls or all(_is_same_call(own[id], calls[id]) for id in own)


def _is_same_call(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Names of parameters that Claude refuses are altered by what tools the request has, which change."""
    return one[0] == other[0] and bool(with_known_names(one[1]) == with_known_names(other[1]))


def visible_text(content: Any, pause: Pause = no_pause) -> str:
    """The text of a message's content, in whichever form. One message may have a hundred thousand parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in paced(content, pause) if isinstance(part, str | dict))
    texts = (part if isinstance(part, str) else part.get("text") for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def call_ids(message: Mapping[str, Any], pause: Pause = no_pause) -> list[str]:
    """Each once, of the calls in its content, as Anthropic has them, and in `tool_calls`."""
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, str) and not calls:
        return []
    parts = paced(_objects(content), pause)
    told = [part for part in parts if part.get("type") == "tool_use"] + _objects(calls)
    return list(dict.fromkeys(call["id"] for call in told if isinstance(call.get("id"), str)))


def _objects(value: Any) -> list[Any]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


class _Told:
    """A conversation so far. All of it counts, so that an answer is never taken for that of another conversation which
    ends in the same words; but for the instructions, which clients fill with the time of day."""

    def __init__(self, user: str, pause: Pause) -> None:
        self._pause = pause
        self._hash = hashlib.sha256(_bytes(user))

    def add(self, message: Mapping[str, Any]) -> None:
        role = message.get("role")
        if role in ("system", "developer"):
            return
        text = visible_text(message.get("content"), self._pause).strip()
        told = (str(role), text, *call_ids(message, self._pause))
        for text in told:
            self._update(text)
            self._hash.update(b"\0")
        self._hash.update(b"\0")

    def _update(self, text: str) -> None:
        if len(text) <= _HASHED_AT_ONCE:
            self._hash.update(_bytes(text))
            return
        for at in range(0, len(text), _HASHED_AT_ONCE):
            self._pause()
            self._hash.update(_bytes(text[at : at + _HASHED_AT_ONCE]))

    def digest(self) -> str:
        return self._hash.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name(calls: list[str], text: str, told: str | None) -> str | None:
    if calls:
        return f"call {min(calls)}"
    text = text.strip()
    if not text or told is None:
        return None
    return f"text {hashlib.sha256(_bytes(f'{told}{text}')).hexdigest()}"


def _brings_all(message: Mapping[str, Any], family: str) -> bool:
    content = message.get("content")
    if any(p.get("type") in _ONLY_CLAUDE_WRITES and is_well_formed(p) for p in _objects(content)):
        return True
    thinking = returned_thinking(message, family)
    others = bool(visible_text(content).strip()) + len(call_ids(message))
    return stands_surely(thinking, message.get("reasoning_details"), others)


def _text_of(blocks: Sequence[Block]) -> str:
    return "".join(block.get("text") or "" for block in blocks if block["type"] == "text").strip()


def _can_be_sent_again(block: Mapping[str, Any]) -> bool:
    """Not an input that was cut short, and not a kind that the API may not take back."""
    if block["type"] == "text":
        return isinstance(block.get("text"), str)
    return block["type"] in IN_ASSISTANT and is_well_formed(block)


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
