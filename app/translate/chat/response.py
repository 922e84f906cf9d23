"""A whole message of Claude's into OpenAI's chat completion.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.translate import exact_json
from app.translate.accumulate import LATE_WARNINGS, PARTIAL_JSON, shown_content
from app.translate.argument_names import with_argument_names
from app.translate.chat.annotations import to_annotations
from app.translate.chat.finish_reason import choice_extras, finish_reason
from app.translate.chat.usage import to_completion_usage, to_service_tier
from app.translate.content import is_blank
from app.translate.stop_reason import checked_stop_reason, late_warnings, refusal_text
from app.translate.text_filters import TextFilters
from app.translate.thinking import is_thinking, to_reasoning_detail
from app.translate.translation import ReplyContext
from app.translate.usage import summed


def to_chat_completion(messages: Sequence[Mapping[str, Any]], context: ReplyContext, *, created: int) -> dict[str, Any]:
    """Each of `messages`, Anthropic's JSON answers or what a MessageAccumulator made of their streams, is a choice;
    `created` in Unix seconds."""
    first = messages[0]
    choices, warnings = [], {}
    for index, message in enumerate(messages):
        choice, late = _to_choice(message, context, index)
        choices.append(choice)
        warnings.update(dict.fromkeys(late))
    usage = summed([message.get("usage") or {} for message in messages])
    completion: dict[str, Any] = {
        "id": first.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": first.get("model"),
        "choices": choices,
        "usage": to_completion_usage(usage),
        "provider": "anthropic",
    }
    tier = to_service_tier(usage)
    if tier is not None:
        completion["service_tier"] = tier
    if context.metadata is not None:
        completion["metadata"] = context.metadata
    if warnings:
        completion["gateway"] = {"warnings": list(warnings)}
    return completion


def _to_choice(message: Mapping[str, Any], context: ReplyContext, index: int) -> tuple[dict[str, Any], list[str]]:
    """(the choice, warnings that arose with the answer)."""
    stop_reason = checked_stop_reason(message.get("stop_reason"))
    stop_sequence = message.get("stop_sequence")
    content = message.get("content") or []
    seen = _seen(content, context)
    text, calls = seen.text, seen.calls
    late = [*message.get(LATE_WARNINGS, ())]
    if seen.stopped_at is not None:  # what follows was not asked for
        content = content[: seen.block_count]
        stop_reason, stop_sequence = "stop_sequence", seen.stopped_at
    if context.text_is_call_of is not None and stop_reason != "refusal":
        arguments, text = text.lstrip(), ""
        if arguments:
            calls = [call_of_text(arguments, str(message.get("id")), context)]
            late += unhonoured(arguments, stop_reason)
    answer: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if context.exposes_reasoning:
        answer.update(_reasoning(content, message))
    if seen.annotations and context.annotates:
        answer["annotations"] = seen.annotations
    if calls:
        answer["content"] = text or None
        if context.calls_functions:
            answer["function_call"] = calls[0]["function"]
        else:
            answer["tool_calls"] = calls
    if stop_reason == "refusal":
        answer["refusal"] = refusal_text(message.get("stop_details"))
        answer["content"] = _content_of_refusal(text, bool(calls), answer["refusal"], context)
    if context.shows_anthropic_content:
        answer["provider_specific_fields"] = {"anthropic_content": shown_content(content)}
    choice = {
        "index": index,
        "message": answer,
        "logprobs": None,
        "finish_reason": finish_reason_of(stop_reason, bool(calls), context),
        **choice_extras(stop_reason, stop_sequence, message.get("stop_details")),
    }
    return choice, [*late, *late_warnings(stop_reason, content)]


def _content_of_refusal(text: str, has_calls: bool, refusal: str, context: ReplyContext) -> str | None:
    """What was written before, as one who streams has it; nothing where it is to be discarded."""
    if context.refusal_text == "refusal":
        return None
    if context.text_is_call_of is not None:
        text = ""  # arguments that were cut short are no text
    return text or None if has_calls or not is_blank(text) else text + refusal


def _reasoning(content: Sequence[dict[str, Any]], message: Mapping[str, Any]) -> dict[str, Any]:
    shown = "\n\n".join(b["thinking"] for b in content if b["type"] == "thinking" and b.get("thinking"))
    thought = [(place, block) for place, block in enumerate(content) if is_thinking(block)]
    details = [
        to_reasoning_detail(
            block, index=n, block_index=place, message_id=str(message.get("id")), model=str(message.get("model"))
        )
        for n, (place, block) in enumerate(thought)
    ]
    return {**({"reasoning_content": shown} if shown else {}), **({"reasoning_details": details} if details else {})}


@dataclass
class _Seen:
    """What the client sees of the first `block_count` blocks; `stopped_at` is the stop string met in the last of
    them."""

    block_count: int = 0
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    stopped_at: str | None = None


def _seen(content: Sequence[Mapping[str, Any]], context: ReplyContext) -> _Seen:
    filters = text_filters(context)
    seen = _Seen()
    texts: list[str] = []
    end = 0
    has_answer_call = any(_is_answer_call(block, context) for block in content)
    for block in content:
        seen.block_count += 1
        start = end
        if _is_answer_call(block, context):
            texts.append(filters.feed(_arguments(block)))
            end += len(texts[-1])
        elif block["type"] == "text" and not has_answer_call:
            texts.append(filters.feed(block.get("text") or ""))
            end += len(texts[-1])
            seen.annotations += to_annotations(block.get("citations"), start, end, of_documents=context.cites_documents)
        elif block["type"] == "tool_use":
            texts.append(filters.release())
            end += len(texts[-1])
            seen.calls.append(_to_tool_call(block, context))
        if filters.met is not None:
            break
    texts.append(filters.release(at_end=True))
    seen.text = "".join(texts)
    seen.stopped_at = filters.met
    return seen


def _is_answer_call(block: Mapping[str, Any], context: ReplyContext) -> bool:
    return block["type"] == "tool_use" and bool(block["name"] == context.call_is_text_of)


def call_of_text(text: str, message_id: str, context: ReplyContext) -> dict[str, Any]:
    """The tool call that a text stands for where the model could not be forced to call."""
    block: dict[str, Any] = {
        "id": emulated_call_id(message_id),
        "name": str(context.text_is_call_of),
        PARTIAL_JSON: text,
    }
    with contextlib.suppress(ValueError):  # cut short: then the text is all there is
        block["input"] = exact_json.loads(text)
    return _to_tool_call(block, context)


def unhonoured(arguments: str, stop_reason: str) -> list[str]:
    """The warning for a text that was to be arguments and is not, though it was not cut short."""
    try:
        is_object = isinstance(exact_json.loads(arguments), dict)
    except ValueError:
        is_object = False
    return [] if is_object or finish_reason(stop_reason) == "length" else ["forced_tool_not_honoured"]


def emulated_call_id(message_id: str) -> str:
    return f"toolu_gw_{message_id.removeprefix('msg_')}"


def finish_reason_of(stop_reason: str, has_calls: bool, context: ReplyContext) -> str:
    reason = finish_reason(stop_reason)
    if reason == "content_filter":
        return context.refusal_finish
    if context.text_is_call_of is not None and has_calls and reason == "stop":
        reason = "tool_calls"
    if context.call_is_text_of is not None and not has_calls and reason == "tool_calls":
        reason = "stop"
    if stop_reason == "pause_turn" and has_calls:
        reason = "tool_calls"
    return "function_call" if reason == "tool_calls" and context.calls_functions else reason


def text_filters(context: ReplyContext) -> TextFilters:
    return TextFilters(stops=context.stops, strip_json=context.strips_json, unwrap_json=context.unwraps_json)


def _to_tool_call(block: Mapping[str, Any], context: ReplyContext) -> dict[str, Any]:
    upstream_name = block["name"]
    name = (context.tool_names or {}).get(upstream_name, upstream_name)
    if upstream_name in context.custom_tools and isinstance(block.get("input"), dict):
        text = block["input"].get("input")
        custom = {"name": name, "input": text if isinstance(text, str) else _arguments(block)}
        return {"id": block["id"], "type": "custom", "custom": custom}
    arguments = with_argument_names(_arguments(block), (context.parameter_names or {}).get(upstream_name))
    return {"id": block["id"], "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(block: Mapping[str, Any]) -> str:
    """As the model wrote them, so that numbers and the order of keys survive; even when they were cut short."""
    written = block.get(PARTIAL_JSON)
    return written if written else exact_json.dumps(block.get("input") or {}).decode()
