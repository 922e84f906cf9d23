"""The events of a streamed message, their bytes, and the message they add up to.

Order and shape follow recorded streams. An event is a plain dict; a scenario yields them, `accumulate` folds them for
clients that did not ask for a stream.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

Event = dict[str, Any]
Block = dict[str, Any]

PING: Event = {"type": "ping"}
JSON_PIECE = 12


def frame(event: Event) -> bytes:
    """The event as server-sent bytes; `_raw` in place of an event holds bytes to be sent as they are."""
    if "_raw" in event:
        raw: bytes = event["_raw"]
        return raw
    name: str = event["type"]
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(event))


def message_start(message_id: str, model: str, usage: dict[str, Any]) -> Event:
    message: dict[str, Any] = {
        "model": model,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": usage,
    }
    return {"type": "message_start", "message": message}


def message_end(
    stop_reason: str | None,
    usage: dict[str, Any],
    stop_sequence: str | None = None,
    stop_details: dict[str, Any] | None = None,
) -> Iterator[Event]:
    delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence, "stop_details": stop_details}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


def block_start(index: int, block: Block) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index: int, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def block_stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def block_events(index: int, block: Block, text_pieces: Iterable[str] | None = None) -> Iterator[Event]:
    """A complete content block as start, deltas and stop. `text_pieces` cut its text as the caller wants it."""
    kind = block["type"]
    pieces = list(text_pieces) if text_pieces is not None else None
    if kind == "text":
        yield from _text_events(index, block, pieces or words(block["text"]))
    elif kind == "thinking":
        yield from _thinking_events(index, block, pieces or words(block["thinking"]))
    elif kind in ("tool_use", "server_tool_use"):
        yield from _tool_events(index, block)
    else:  # results, redacted thinking and what else may come arrive whole
        yield block_start(index, block)
        yield block_stop(index)


def _text_events(index: int, block: Block, pieces: list[str]) -> Iterator[Event]:
    citations = block.get("citations")
    yield block_start(
        index, {"citations": [], "type": "text", "text": ""} if citations else {"type": "text", "text": ""}
    )
    for citation in citations or ():
        yield block_delta(index, {"type": "citations_delta", "citation": citation})
    for piece in pieces:
        yield block_delta(index, {"type": "text_delta", "text": piece})
    yield block_stop(index)


def _thinking_events(index: int, block: Block, pieces: list[str]) -> Iterator[Event]:
    yield block_start(index, {"type": "thinking", "thinking": "", "signature": ""})
    for piece in pieces:
        yield block_delta(index, {"type": "thinking_delta", "thinking": piece})
    yield block_delta(index, {"type": "signature_delta", "signature": block["signature"]})
    yield block_stop(index)


def _tool_events(index: int, block: Block) -> Iterator[Event]:
    yield block_start(index, {**block, "input": {}})
    yield block_delta(index, {"type": "input_json_delta", "partial_json": ""})
    text = orjson.dumps(block["input"]).decode() if block["input"] else ""
    for at in range(0, len(text), JSON_PIECE):
        yield block_delta(index, {"type": "input_json_delta", "partial_json": text[at : at + JSON_PIECE]})
    yield block_stop(index)


def words(text: str) -> list[str]:
    """`text` cut before each space, as tokens are: nothing is lost when the pieces are joined."""
    if not text:
        return []
    head, *rest = text.split(" ")
    pieces = [" " + word for word in rest]
    return [head, *pieces] if head else pieces


def accumulate(events: Iterable[Event]) -> dict[str, Any]:
    """The message that the events add up to, as the API gives it without streaming."""
    message: dict[str, Any] = {}
    partial_json: dict[int, str] = {}
    for event in events:
        match event.get("type"):
            case "message_start":
                message = {**event["message"], "content": []}
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                _add_delta(message["content"][event["index"]], event["delta"], partial_json, event["index"])
            case "message_delta":
                message.update(event["delta"])
                if "context_management" in event:
                    message["context_management"] = event["context_management"]
                message["usage"] = {**message["usage"], **event["usage"]}
    for index, text in partial_json.items():
        message["content"][index]["input"] = _parsed(text)
    return message


def _add_delta(block: Block, delta: dict[str, Any], partial_json: dict[int, str], index: int) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        case "input_json_delta" if delta["partial_json"]:
            partial_json[index] = partial_json.get(index, "") + delta["partial_json"]


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}  # cut by max_tokens: the real API has no way to give half an object either
