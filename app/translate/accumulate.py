"""The events of a streamed message into the message that `stream: false` would have given.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.translate import exact_json
from app.translate.usage import merge_usage

PARTIAL_JSON = "partial_json"
"""Extra key of an accumulated tool_use block: its arguments as the model wrote them, perhaps cut short."""
LATE_WARNINGS = "gateway_warnings"
"""Extra key of a message, or of a message_delta event: what the gateway has to tell of an answer's end."""

_DELTA_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": PARTIAL_JSON,
}


class MessageAccumulator:
    """Feed it events; `message` is whole once `is_complete`."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.is_complete = False
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, dict[str, list[str]]] = {}
        """By block and field, what its deltas brought: joined once, since texts can be long."""

    def feed(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "content_block_delta":
                self._delta(event["index"], event["delta"])
            case "content_block_start":
                block = dict(event["content_block"])
                if block.get("citations"):
                    block["citations"] = list(block["citations"])  # those of its deltas go to it
                self._blocks[event["index"]] = block
                self._pieces[event["index"]] = {}
                self.message["content"].append(block)
            case "content_block_stop":
                self._stop(event["index"])
            case "message_start":
                self.message = dict(event["message"])
                self.message["content"] = list(self.message.get("content") or [])
                self.message["usage"] = dict(self.message.get("usage") or {})
            case "message_delta":
                self.message.update({k: v for k, v in event["delta"].items() if v is not None})
                merge_usage(self.message["usage"], event.get("usage"))
            case "message_stop":
                for index in list(self._pieces):
                    self._stop(index)
                self.is_complete = True

    def _delta(self, index: int, delta: Mapping[str, Any]) -> None:
        pieces = self._pieces.get(index)
        if pieces is None:
            return
        kind = delta.get("type")
        if kind in _DELTA_FIELDS:
            field = _DELTA_FIELDS[kind]
            pieces.setdefault(field, []).append(delta[field])
        elif kind == "citations_delta":
            block = self._blocks[index]
            if not block.get("citations"):
                block["citations"] = []
            block["citations"].append(delta["citation"])

    def _stop(self, index: int) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        for field, pieces in self._pieces.pop(index, {}).items():
            block[field] = (block.get(field) or "") + "".join(pieces)
        if block.get(PARTIAL_JSON):
            try:
                block["input"] = exact_json.loads(block[PARTIAL_JSON])
            except ValueError:  # cut by max_tokens: then the text is all there is
                block["input"] = None
        else:
            block.pop(PARTIAL_JSON, None)

    def received(self) -> int:
        """Bytes of the text, thinking, arguments and citations that have come so far."""
        texts: list[str] = []
        for index, block in self._blocks.items():
            texts += [value for name in ("text", "thinking", PARTIAL_JSON) if isinstance(value := block.get(name), str)]
            citations = [citation for citation in block.get("citations") or () if isinstance(citation, dict)]
            texts += [str(citation.get("cited_text", "")) for citation in citations]
            for field in ("text", "thinking", PARTIAL_JSON):
                texts += self._pieces.get(index, {}).get(field, [])
        return sum(len(str(text).encode("utf-8", "surrogatepass")) for text in texts)

    @property
    def block_count(self) -> int:
        return len(self.message.get("content") or ())


def shown_content(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claude's own blocks, without what the gateway keeps beside them."""
    return [{name: value for name, value in block.items() if name != PARTIAL_JSON} for block in content]
