"""Signed thinking, to the client and back: Claude wants its blocks returned unchanged and in their places.

Clients that know OpenRouter's `reasoning_details` or LiteLLM's `thinking_blocks` return them; for those that do not,
the gateway remembers whole answers (memory.py).

https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.translate.facts import family_of
from app.translate.native import THINKING, is_well_formed

Block = dict[str, Any]
FORMAT = "anthropic-claude-v1"
BINDING_BETA = "thinking-binding-controls-2026-08-01"

Placed = tuple[int | None, Block]
"""A thinking block and its index among the blocks of its message, where the client says so."""


def is_thinking(block: Mapping[str, Any]) -> bool:
    return block["type"] in THINKING


def without_thinking(blocks: Sequence[Block]) -> list[Block]:
    return [block for block in blocks if not is_thinking(block)]


def to_reasoning_detail(block: Block, *, index: int, block_index: int, message_id: str, model: str) -> dict[str, Any]:
    """`index` counts thinking blocks, `block_index` all blocks of the message: so the order can be restored."""
    if block["type"] == "thinking":
        own = {
            "type": "reasoning.text",
            "text": block.get("thinking") or "",
            "signature": block.get("signature") or "",
        }
    else:
        own = {"type": "reasoning.encrypted", "data": block.get("data") or ""}
    place = {"format": FORMAT, "index": index, "block_index": block_index, "model": model}
    return {**own, "id": f"{message_id}_{block_index}", **place}


def returned_thinking(message: Mapping[str, Any], family: str) -> list[Placed]:
    """The signed blocks that an assistant message brings back. What is not signed, or another model's, is left out."""
    blocks = message.get("thinking_blocks")
    if blocks is not None:
        return [(None, block) for entry in _objects(blocks) if (block := _native(entry))]
    details = message.get("reasoning_details")
    if details is None:
        return []
    entries = _joined(_objects(details))
    return [(_index_of(entry), block) for entry in entries if (block := _of_detail(entry, family))]


def _objects(value: Any) -> list[Any]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _native(entry: Mapping[str, Any]) -> Block | None:
    match entry.get("type"):
        case "thinking" if is_well_formed(entry):
            return {"type": "thinking", "thinking": entry["thinking"], "signature": entry["signature"]}
        case "redacted_thinking" if is_well_formed(entry):
            return {"type": "redacted_thinking", "data": entry["data"]}
    return None


def _of_detail(entry: Mapping[str, Any], family: str) -> Block | None:
    model = entry.get("model")
    if entry.get("format", FORMAT) != FORMAT or (isinstance(model, str) and family_of(model) != family):
        return None
    match entry.get("type"):
        case "reasoning.text" if isinstance(entry.get("signature"), str) and entry["signature"]:
            return {"type": "thinking", "thinking": _text_of(entry), "signature": entry["signature"]}
        case "reasoning.encrypted" if isinstance(entry.get("data"), str) and entry["data"]:
            return {"type": "redacted_thinking", "data": entry["data"]}
    return None


def _index_of(entry: Mapping[str, Any]) -> int | None:
    index = entry.get("block_index")
    return index if type(index) is int and index >= 0 else None


def _joined(entries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Other gateways stream a block as several entries of one index, which some clients keep apart."""
    joined: list[dict[str, Any]] = []
    pieces: list[str] = []
    for entry in entries:
        last = joined[-1] if joined else {}
        is_piece = (
            entry.get("type") == last.get("type") == "reasoning.text"
            and type(entry.get("index")) is int
            and entry.get("index") == last.get("index")
            and not last.get("signature")
        )
        if is_piece:
            pieces.append(_text_of(entry))
            last["signature"] = entry.get("signature")
            continue
        _close(joined, pieces)
        pieces = [_text_of(entry)]
        joined.append(dict(entry))
    _close(joined, pieces)
    return joined


def _close(joined: list[dict[str, Any]], pieces: list[str]) -> None:
    if len(pieces) > 1:
        joined[-1]["text"] = "".join(pieces)


def _text_of(entry: Mapping[str, Any]) -> str:
    text = entry.get("text")
    return text if isinstance(text, str) else ""


def interleaved(thinking: list[Placed], others: list[Block]) -> list[Block]:
    """One list with each thinking block at its index; blocks without one stand first."""
    blocks = [block for index, block in thinking if index is None]
    waiting = iter(others)
    for index, block in sorted(((i, b) for i, b in thinking if i is not None), key=lambda placed: placed[0]):
        while len(blocks) < index and (other := next(waiting, None)) is not None:
            blocks.append(other)
        blocks.append(block)
    return [*blocks, *waiting]


def stands_surely(thinking: list[Placed], details: Any, others: int) -> bool:
    """Whether the client brings back all thinking blocks and says where they stood. Some keep only the last entry of
    a stream, or not our indexes; and where Claude searched the web, more blocks stood there than a client has."""
    places = [place for place, _ in thinking]
    if places == [None]:
        return True  # the only one stands first
    if not thinking or None in places or not isinstance(details, list):
        return False
    numbers = [entry.get("index") for entry in details if isinstance(entry, dict)]
    known = len(thinking) + others
    return numbers == list(range(len(thinking))) and all(place is not None and place < known for place in places)
