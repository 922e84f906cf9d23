"""The events of a streamed message into the message that `stream: false` would have given.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from app.translate.usage import merge_usage

PARTIAL_JSON = "partial_json"
"""Extra key of an accumulated tool_use block: its arguments as the model wrote them, perhaps cut short."""

_DELTA_FIELDS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MessageAccumulator:
    """Feed it events; `message` is whole once `is_complete`."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.is_complete = False
        self._blocks: dict[int, dict[str, Any]] = {}

    def feed(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "message_start":
                self.message = dict(event["message"])
                self.message["content"] = list(self.message.get("content") or [])
                self.message["usage"] = dict(self.message.get("usage") or {})
            case "content_block_start":
                block = dict(event["content_block"])
                self._blocks[event["index"]] = block
                self.message["content"].append(block)
            case "content_block_delta":
                self._delta(event["index"], event["delta"])
            case "content_block_stop":
                self._stop(event["index"])
            case "message_delta":
                self.message.update({k: v for k, v in event["delta"].items() if v is not None})
                merge_usage(self.message["usage"], event.get("usage"))
            case "message_stop":
                self.is_complete = True

    def _delta(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        kind = delta.get("type")
        if kind in _DELTA_FIELDS:
            field = _DELTA_FIELDS[kind]
            block[field] = (block.get(field) or "") + delta[field]
        elif kind == "input_json_delta":
            block[PARTIAL_JSON] = block.get(PARTIAL_JSON, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]

    def _stop(self, index: int) -> None:
        block = self._blocks.get(index)
        if block is None or not block.get(PARTIAL_JSON):
            return
        with contextlib.suppress(ValueError):  # cut by max_tokens: then the text is all there is
            block["input"] = orjson.loads(block[PARTIAL_JSON])
