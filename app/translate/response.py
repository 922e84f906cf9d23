"""A whole message of Claude's into OpenAI's chat completion.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.translate.accumulate import PARTIAL_JSON
from app.translate.request import ReplyContext
from app.translate.stop_reason import choice_extras, finish_reason, refusal_text
from app.translate.usage import to_completion_usage, to_service_tier


def to_chat_completion(message: Mapping[str, Any], context: ReplyContext, *, created: int) -> dict[str, Any]:
    """`message` is Anthropic's JSON answer, or what a MessageAccumulator made of its stream; `created` in Unix
    seconds.
    """
    stop_reason = message.get("stop_reason") or ""
    content = message.get("content") or []
    text, stopped_at = cut_at_stop("".join(b.get("text") or "" for b in content if b["type"] == "text"), context.stops)
    calls = [] if stopped_at is not None else [_to_tool_call(b, context) for b in content if b["type"] == "tool_use"]
    answer: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    reasoning = "\n\n".join(b["thinking"] for b in content if b["type"] == "thinking" and b.get("thinking"))
    if reasoning and context.exposes_reasoning:
        answer["reasoning_content"] = reasoning
    if calls:
        answer["content"] = text or None
        answer["tool_calls"] = calls
    if stop_reason == "refusal":
        answer["content"] = None
        answer["refusal"] = refusal_text(message.get("stop_details"))
    choice: dict[str, Any] = {
        "index": 0,
        "message": answer,
        "logprobs": None,
        "finish_reason": finish_reason(stop_reason) if stopped_at is None else "stop",
        **choice_extras(
            stop_reason if stopped_at is None else "stop_sequence",
            message.get("stop_sequence") if stopped_at is None else stopped_at,
            message.get("stop_details"),
        ),
    }
    usage = message.get("usage") or {}
    completion: dict[str, Any] = {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": message.get("model"),
        "choices": [choice],
        "usage": to_completion_usage(usage),
        "provider": "anthropic",
    }
    tier = to_service_tier(usage)
    if tier is not None:
        completion["service_tier"] = tier
    if context.metadata is not None:
        completion["metadata"] = context.metadata
    return completion


def _to_tool_call(block: Mapping[str, Any], context: ReplyContext) -> dict[str, Any]:
    name = block["name"]
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": (context.tool_names or {}).get(name, name), "arguments": _arguments(block)},
    }


def _arguments(block: Mapping[str, Any]) -> str:
    """As the model wrote them, so that numbers and the order of keys survive; even when they were cut short."""
    written = block.get(PARTIAL_JSON)
    return written if written else orjson.dumps(block.get("input") or {}).decode()


def cut_at_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """The text up to the first of `stops`, and which one it was."""
    found = [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop
