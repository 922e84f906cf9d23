"""A whole message of Claude's into OpenAI's chat completion.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.translate import exact_json
from app.translate.accumulate import PARTIAL_JSON
from app.translate.request import ReplyContext
from app.translate.stop_reason import choice_extras, finish_reason, refusal_text
from app.translate.text_filters import TextFilters
from app.translate.usage import to_completion_usage, to_service_tier


def to_chat_completion(message: Mapping[str, Any], context: ReplyContext, *, created: int) -> dict[str, Any]:
    """`message` is Anthropic's JSON answer, or what a MessageAccumulator made of its stream; `created` in Unix
    seconds.
    """
    stop_reason = message.get("stop_reason") or ""
    content = message.get("content") or []
    text, calls, stopped_at = _text_and_calls(content, context)
    if context.text_is_call_of is not None and text:
        calls = [call_of_text(text, str(message.get("id")), context)]
        text = ""
    answer: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    reasoning = "\n\n".join(b["thinking"] for b in content if b["type"] == "thinking" and b.get("thinking"))
    if reasoning and context.exposes_reasoning:
        answer["reasoning_content"] = reasoning
    if calls:
        answer["content"] = text or None
        if context.calls_functions:
            answer["function_call"] = calls[0]["function"]
        else:
            answer["tool_calls"] = calls
    if stop_reason == "refusal":
        answer["content"] = None
        answer["refusal"] = refusal_text(message.get("stop_details"))
    choice: dict[str, Any] = {
        "index": 0,
        "message": answer,
        "logprobs": None,
        "finish_reason": "stop" if stopped_at is not None else finish_reason_of(stop_reason, bool(calls), context),
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


def _text_and_calls(
    content: list[dict[str, Any]], context: ReplyContext
) -> tuple[str, list[dict[str, Any]], str | None]:
    """(text, tool calls, the stop string that was met) up to where the gateway stops."""
    filters = text_filters(context)
    texts: list[str] = []
    calls = []
    for block in content:
        if block["type"] == "text":
            texts.append(filters.feed(block.get("text") or ""))
            if filters.met is not None:
                break
        elif block["type"] == "tool_use":
            texts.append(filters.release())
            calls.append(_to_tool_call(block, context))
    return "".join(texts) + filters.release(at_end=True), calls, filters.met


def call_of_text(text: str, message_id: str, context: ReplyContext) -> dict[str, Any]:
    """The tool call that a text stands for where the model could not be forced to call."""
    name = str(context.text_is_call_of)
    function = {"name": (context.tool_names or {}).get(name, name), "arguments": text}
    return {"id": f"toolu_gw_{message_id.removeprefix('msg_')}", "type": "function", "function": function}


def finish_reason_of(stop_reason: str, has_calls: bool, context: ReplyContext) -> str:
    reason = finish_reason(stop_reason)
    if context.text_is_call_of is not None and has_calls and reason == "stop":
        reason = "tool_calls"
    return "function_call" if reason == "tool_calls" and context.calls_functions else reason


def text_filters(context: ReplyContext) -> TextFilters:
    return TextFilters(stops=context.stops, strip_json=context.strips_json, unwrap_json=context.unwraps_json)


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
    return written if written else exact_json.dumps(block.get("input") or {}).decode()
