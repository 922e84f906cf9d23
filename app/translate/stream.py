"""The events of a streamed message into OpenAI's chat completion chunks.

https://docs.anthropic.com/en/docs/build-with-claude/streaming,
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.translate.request import ReplyContext
from app.translate.response import call_of_text, finish_reason_of, text_filters
from app.translate.stop_reason import choice_extras, refusal_text
from app.translate.usage import merge_usage, to_completion_usage, to_service_tier

Chunk = dict[str, Any]


@dataclass
class _OpenCall:
    """A tool_use block between its start and its stop."""

    index: int
    initial_input: Any
    has_arguments: bool = False


class StreamTranslator:
    """Feed it events, send what it gives. `is_complete` says whether the message came to its end; a stream that
    stops before is broken, whatever was sent. `stopped_early`: a stop string was met, nothing more is needed."""

    def __init__(self, context: ReplyContext, *, created: int) -> None:
        self.is_complete = False
        self.stopped_early = False
        self.usage: dict[str, Any] = {}
        self._context = context
        self._filters = text_filters(context)
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}
        self._calls: dict[int, _OpenCall] = {}
        self._call_count = 0
        self._has_reasoning = False
        self._reasoning_ended = False
        self._ending: dict[str, Any] = {}

    def feed(self, event: Mapping[str, Any]) -> list[Chunk]:
        if self.stopped_early:
            return []
        match event.get("type"):
            case "content_block_delta":
                return self._block_delta(event)
            case "content_block_start":
                return self._block_start(event)
            case "content_block_stop":
                return self._block_stop(event)
            case "message_start":
                return self._message_start(event["message"])
            case "message_delta":
                self._ending.update({k: v for k, v in event["delta"].items() if v is not None})
                merge_usage(self.usage, event.get("usage"))
                return []
            case "message_stop":
                self.is_complete = True
                return self._finish()
            case _:
                return []  # what Anthropic adds later

    def _message_start(self, message: Mapping[str, Any]) -> list[Chunk]:
        self._head["id"] = message["id"]
        self._head["model"] = message["model"]
        merge_usage(self.usage, message.get("usage"))
        tier = to_service_tier(self.usage)
        if tier is not None:
            self._head["service_tier"] = tier
        if message.get("stop_reason"):
            self._ending = {k: message.get(k) for k in ("stop_reason", "stop_sequence", "stop_details")}
        chunks = [self._chunk({"role": "assistant", "content": "", "refusal": None})]
        for index, block in enumerate(message.get("content") or []):
            # A message may come whole in its first event (programmatic tool calling).
            chunks += self._block_start({"index": index, "content_block": block})
            chunks += self._block_stop({"index": index})
        return chunks

    def _block_start(self, event: Mapping[str, Any]) -> list[Chunk]:
        block = event["content_block"]
        match block["type"]:
            case "text":
                return self._text(block.get("text") or "")
            case "thinking":
                return self._thinking(block.get("thinking") or "")
            case "tool_use":
                return self._call_start(event["index"], block)
            case _:
                return []

    def _block_delta(self, event: Mapping[str, Any]) -> list[Chunk]:
        delta = event["delta"]
        match delta.get("type"):
            case "text_delta":
                return self._text(delta["text"])
            case "input_json_delta":
                return self._call_arguments(event["index"], delta["partial_json"])
            case "thinking_delta":
                return self._thinking(delta["thinking"])
            case _:
                return []

    def _block_stop(self, event: Mapping[str, Any]) -> list[Chunk]:
        call = self._calls.pop(event["index"], None)
        if call is not None:
            if call.has_arguments:
                return []
            arguments = orjson.dumps(call.initial_input or {}).decode()
            return self._call_chunk({"index": call.index, "function": {"arguments": arguments}})
        self._reasoning_ended = self._has_reasoning
        return []

    def _text(self, text: str) -> list[Chunk]:
        if self._filters.are_used:
            text = self._filters.feed(text)
            if self._filters.met is not None:
                return self._stop_early(text)
        return self._shown(text)

    def _shown(self, text: str) -> list[Chunk]:
        if not text:
            return []
        if self._context.text_is_call_of is not None:
            return self._text_as_arguments(text)
        return [self._chunk({"content": text})]

    def _text_as_arguments(self, text: str) -> list[Chunk]:
        if self._call_count:
            return self._call_chunk({"index": 0, "function": {"arguments": text}})
        self._call_count = 1
        call = call_of_text("", self._head["id"], self._context)
        return [*self._call_chunk({"index": 0, **call}), *self._text_as_arguments(text)]

    def _thinking(self, text: str) -> list[Chunk]:
        if not text or not self._context.exposes_reasoning:
            return []
        if self._reasoning_ended:
            text = "\n\n" + text
            self._reasoning_ended = False
        self._has_reasoning = True
        return [self._chunk({"reasoning_content": text})]

    def _call_start(self, upstream_index: int, block: Mapping[str, Any]) -> list[Chunk]:
        chunks = self._release_held_text()
        call = _OpenCall(self._call_count, block.get("input"))
        self._calls[upstream_index] = call
        self._call_count += 1
        name = (self._context.tool_names or {}).get(block["name"], block["name"])
        opening = {
            "index": call.index,
            "id": block["id"],
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        return [*chunks, *self._call_chunk(opening)]

    def _call_arguments(self, upstream_index: int, partial_json: str) -> list[Chunk]:
        call = self._calls.get(upstream_index)
        if call is None or not partial_json:
            return []
        call.has_arguments = True
        return self._call_chunk({"index": call.index, "function": {"arguments": partial_json}})

    def _call_chunk(self, call: dict[str, Any]) -> list[Chunk]:
        """Of calls in the older form there is only one."""
        if not self._context.calls_functions:
            return [self._chunk({"tool_calls": [call]})]
        return [self._chunk({"function_call": call["function"]})] if call["index"] == 0 else []

    def _release_held_text(self, *, at_end: bool = False) -> list[Chunk]:
        held = self._filters.release(at_end=at_end) if self._filters.are_used else ""
        return self._shown(held)

    def _stop_early(self, text: str) -> list[Chunk]:
        self._ending = {"stop_reason": "stop_sequence", "stop_sequence": self._filters.met}
        chunks = self._shown(text)
        self.is_complete = self.stopped_early = True
        return chunks + self._finish()

    def _finish(self) -> list[Chunk]:
        chunks = self._release_held_text(at_end=True)
        stop_reason = self._ending.get("stop_reason") or ""
        stop_details = self._ending.get("stop_details")
        if stop_reason == "refusal":
            chunks.append(self._chunk({"refusal": refusal_text(stop_details)}))
        finish = self._chunk({}, finish_reason_of(stop_reason, bool(self._call_count), self._context))
        finish["choices"][0].update(choice_extras(stop_reason, self._ending.get("stop_sequence"), stop_details))
        chunks.append(finish)
        if self._context.include_usage:
            chunks.append({**self._head, "choices": [], "usage": to_completion_usage(self.usage)})
        return chunks

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> Chunk:
        chunk = {
            **self._head,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }
        if self._context.include_usage:
            chunk["usage"] = None
        return chunk
