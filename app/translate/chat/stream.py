"""The events of streamed messages into OpenAI's chat completion chunks.

https://docs.anthropic.com/en/docs/build-with-claude/streaming,
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.translate import exact_json
from app.translate.accumulate import LATE_WARNINGS, MessageAccumulator, shown_content
from app.translate.argument_names import ArgumentNames
from app.translate.chat.annotations import to_annotations
from app.translate.chat.finish_reason import choice_extras
from app.translate.chat.response import emulated_call_id, finish_reason_of, text_filters, unhonoured
from app.translate.chat.usage import to_completion_usage, to_service_tier
from app.translate.content import is_blank
from app.translate.stop_reason import FAILED_SEARCH, checked_stop_reason, has_failed_search, late_warnings, refusal_text
from app.translate.thinking import to_reasoning_detail
from app.translate.translation import ReplyContext
from app.translate.usage import merge_usage, summed

Chunk = dict[str, Any]


class StreamTranslator:
    """Feed it events, send what it gives. `is_complete` says whether all messages came to their ends; a stream that
    stops before is broken, whatever was sent. Each of several `choices` has a message of its own."""

    def __init__(self, context: ReplyContext, *, created: int, choices: int = 1) -> None:
        self.is_complete = False
        self._context = context
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}
        self._choices = [_Choice(context, self._head, index) for index in range(choices)]
        self._only = self._choices[0] if choices == 1 else None

    def feed(self, event: Mapping[str, Any], choice: int = 0) -> list[Chunk]:
        translator = self._only or self._choices[choice]
        chunks = translator.feed(event)
        if translator.is_complete and not self.is_complete and all(c.is_complete for c in self._choices):
            self.is_complete = True
            self._end(chunks)
        return chunks

    @property
    def usage(self) -> dict[str, Any]:
        """Anthropic's counts of all choices."""
        return summed([choice.usage for choice in self._choices])

    def _end(self, chunks: list[Chunk]) -> None:
        if self._context.include_usage:
            chunks.append({**self._head, "choices": [], "usage": to_completion_usage(self.usage)})
        elif self._context.always_usage:
            chunks[-1]["usage"] = to_completion_usage(self.usage)


@dataclass
class _OpenCall:
    """A tool_use block between its start and its stop."""

    index: int
    initial_input: Any
    names: ArgumentNames | None = None
    """Where the tool's parameters had to be renamed."""
    has_arguments: bool = False

    def shown(self, arguments: str) -> str:
        return arguments if self.names is None else self.names.feed(arguments)


@dataclass
class _OpenThinking:
    """A thinking block between its start and its stop: it goes out once more as a whole, with its signature."""

    block: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)


@dataclass
class _OpenText:
    """A text block between its start and its stop; `start` is where it begins in the answer."""

    start: int
    citations: list[Any]


class _Choice:
    def __init__(self, context: ReplyContext, head: dict[str, Any], index: int) -> None:
        self.is_complete = False
        self.usage: dict[str, Any] = {}
        self._context = context
        self._head = head
        self._index = index
        self._message_id = ""
        self._model = ""
        self._filters = text_filters(context)
        self._calls: dict[int, _OpenCall] = {}
        self._call_count = 0
        self._answer_calls: dict[int, bool] = {}
        """Open blocks whose arguments are the answer's text, and whether there was any of it."""
        self._thinking: dict[int, _OpenThinking] = {}
        self._thinking_count = 0
        self._texts: dict[int, _OpenText] = {}
        self._annotation_count = 0
        self._shown_chars = 0
        self._has_shown_words = False
        self._delta_count = 0
        self._prose: list[str] = []
        """Text that is not the answer if a call with the answer follows."""
        self._has_answered = False
        self._text_call: _OpenCall | None = None
        """The call that the text stands for, and its arguments."""
        self._arguments: list[str] = []
        self._has_reasoning = False
        self._reasoning_ended = False
        self._ending: dict[str, Any] = {}
        self._late: dict[str, None] = {}
        self._whole = MessageAccumulator() if context.shows_anthropic_content else None

    def feed(self, event: Mapping[str, Any]) -> list[Chunk]:
        if self.is_complete:
            return []  # a stop string was met, whatever follows
        if self._whole is not None:
            self._whole.feed(event)
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
                self._late.update(dict.fromkeys(event.get(LATE_WARNINGS, ())))
                merge_usage(self.usage, event.get("usage"))
                return []
            case "message_stop":
                self.is_complete = True
                return self._finish()
            case _:
                return []  # what Anthropic adds later

    def _message_start(self, message: Mapping[str, Any]) -> list[Chunk]:
        self._message_id, self._model = message["id"], message["model"]
        merge_usage(self.usage, message.get("usage"))
        if not self._head["id"]:
            self._head.update(id=message["id"], model=message["model"])
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
        index, block = event["index"], event["content_block"]
        match block["type"]:
            case "text":
                self._texts[index] = _OpenText(self._shown_chars, list(block.get("citations") or ()))
                return self._text(block["text"]) if block.get("text") else []
            case "thinking":
                self._thinking[index] = _OpenThinking(dict(block), [block.get("thinking") or ""])
                return self._reasoning(block.get("thinking") or "")
            case "redacted_thinking":
                self._thinking[index] = _OpenThinking(dict(block))
                return []
            case "tool_use" if block["name"] == self._context.call_is_text_of:
                self._has_answered = True
                self._prose.clear()
                self._answer_calls[index] = bool(block.get("input"))
                return self._filtered(exact_json.dumps(block["input"]).decode()) if block.get("input") else []
            case "tool_use":
                return self._call_start(index, block)
            case _:
                if has_failed_search(block):
                    self._late[FAILED_SEARCH] = None
                return []

    def _block_delta(self, event: Mapping[str, Any]) -> list[Chunk]:
        delta = event["delta"]
        match delta.get("type"):
            case "text_delta":
                return self._text(delta["text"]) if event["index"] in self._texts else []
            case "input_json_delta":
                if event["index"] in self._answer_calls:
                    self._answer_calls[event["index"]] |= bool(delta["partial_json"])
                    return self._filtered(delta["partial_json"])
                return self._call_arguments(event["index"], delta["partial_json"])
            case "thinking_delta":
                open_thinking = self._thinking.get(event["index"])
                if open_thinking is None:
                    return []
                open_thinking.texts.append(delta["thinking"])
                return self._reasoning(delta["thinking"])
            case "signature_delta":
                if event["index"] in self._thinking:
                    self._thinking[event["index"]].signature.append(delta["signature"])
                return []
            case "citations_delta":
                if event["index"] in self._texts:
                    self._texts[event["index"]].citations.append(delta["citation"])
                return []
            case _:
                return []

    def _block_stop(self, event: Mapping[str, Any]) -> list[Chunk]:
        index = event["index"]
        call = self._calls.pop(index, None)
        if call is not None:
            arguments = "" if call.has_arguments else call.shown(exact_json.dumps(call.initial_input or {}).decode())
            arguments += call.names.release() if call.names is not None else ""
            return self._call_chunk({"index": call.index, "function": {"arguments": arguments}}) if arguments else []
        if self._answer_calls.pop(index, True) is False:
            return self._filtered("{}")
        thinking = self._thinking.pop(index, None)
        if thinking is not None:
            return self._thinking_end(index, thinking)
        text = self._texts.pop(index, None)
        return self._annotations(text) if text is not None and text.citations else []

    def _text(self, text: str) -> list[Chunk]:
        if self._context.call_is_text_of is not None:
            if not self._has_answered:
                self._prose.append(text)
            return []
        return self._filtered(text)

    def _filtered(self, text: str) -> list[Chunk]:
        self._delta_count += 1
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
        self._shown_chars += len(text)
        self._has_shown_words = self._has_shown_words or not is_blank(text)
        return [self._chunk({"content": text})]

    def _text_as_arguments(self, text: str) -> list[Chunk]:
        if self._text_call is not None:
            self._arguments.append(text)
            arguments = self._text_call.shown(text)
            return self._call_chunk({"index": 0, "function": {"arguments": arguments}}) if arguments else []
        text = text.lstrip()
        if not text:
            return []
        self._call_count = 1
        name = str(self._context.text_is_call_of)
        self._text_call = _OpenCall(0, None, self._argument_names(name), has_arguments=True)
        opening = self._call_opening(0, emulated_call_id(self._message_id), name)
        return [*self._call_chunk(opening), *self._text_as_arguments(text)]

    def _reasoning(self, text: str) -> list[Chunk]:
        if not text or not self._context.exposes_reasoning:
            return []
        if self._reasoning_ended:
            text = "\n\n" + text
            self._reasoning_ended = False
        self._has_reasoning = True
        return [self._chunk({"reasoning_content": text})]

    def _thinking_end(self, index: int, thinking: _OpenThinking) -> list[Chunk]:
        self._reasoning_ended = self._has_reasoning
        if not self._context.exposes_reasoning:
            return []
        block = {**thinking.block, "thinking": "".join(thinking.texts)}
        if thinking.signature:
            block["signature"] = (block.get("signature") or "") + "".join(thinking.signature)
        detail = to_reasoning_detail(
            block, index=self._thinking_count, block_index=index, message_id=self._message_id, model=self._model
        )
        self._thinking_count += 1
        return [self._chunk({"reasoning_details": [detail]})]

    def _annotations(self, text: _OpenText) -> list[Chunk]:
        if not self._context.annotates:
            return []
        annotations = to_annotations(
            text.citations, text.start, self._shown_chars, of_documents=self._context.cites_documents
        )
        if not annotations:
            return []
        numbered = [{"index": self._annotation_count + n, **entry} for n, entry in enumerate(annotations)]
        self._annotation_count += len(numbered)
        return [self._chunk({"annotations": numbered})]

    def _call_start(self, upstream_index: int, block: Mapping[str, Any]) -> list[Chunk]:
        chunks = self._release_held_text()
        call = _OpenCall(self._call_count, block.get("input"), self._argument_names(block["name"]))
        self._calls[upstream_index] = call
        self._call_count += 1
        return [*chunks, *self._call_chunk(self._call_opening(call.index, block["id"], block["name"]))]

    def _call_opening(self, index: int, id: str, upstream_name: str) -> dict[str, Any]:
        name = (self._context.tool_names or {}).get(upstream_name, upstream_name)
        return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}

    def _call_arguments(self, upstream_index: int, partial_json: str) -> list[Chunk]:
        call = self._calls.get(upstream_index)
        if call is None or not partial_json:
            return []
        call.has_arguments = True
        arguments = call.shown(partial_json)
        return self._call_chunk({"index": call.index, "function": {"arguments": arguments}}) if arguments else []

    def _argument_names(self, tool: str) -> ArgumentNames | None:
        renamed = (self._context.parameter_names or {}).get(tool)
        return ArgumentNames(renamed) if renamed else None

    def _call_chunk(self, call: dict[str, Any]) -> list[Chunk]:
        """Of calls in the older form there is only one."""
        if not self._context.calls_functions:
            return [self._chunk({"tool_calls": [call]})]
        return [self._chunk({"function_call": call["function"]})] if call["index"] == 0 else []

    def _release_held_text(self, *, at_end: bool = False) -> list[Chunk]:
        chunks = []
        if at_end and self._prose:
            prose = "".join(self._prose)
            self._prose.clear()
            self._delta_count += 1
            if self._filters.are_used:
                prose = self._filters.feed(prose)
                if self._filters.met is not None:
                    self._note_stop()
            chunks = self._shown(prose)
        held = self._filters.release(at_end=at_end) if self._filters.are_used else ""
        return chunks + self._shown(held)

    def _stop_early(self, text: str) -> list[Chunk]:
        self._note_stop()
        self.is_complete = True
        return self._shown(text) + self._finish()

    def _note_stop(self) -> None:
        """Anthropic counts tokens at the end only, which will not be read: one for each piece is near it."""
        self._ending = {"stop_reason": "stop_sequence", "stop_sequence": self._filters.met}
        self.usage["output_tokens"] = max(self.usage.get("output_tokens") or 0, self._delta_count)
        self._late["usage_estimated"] = None

    def _finish(self) -> list[Chunk]:
        chunks = self._release_held_text(at_end=True)
        for index in [*self._thinking, *self._texts, *self._calls]:
            chunks += self._block_stop({"index": index})
        if self._text_call is not None and self._text_call.names is not None:
            held = self._text_call.names.release()
            chunks += self._call_chunk({"index": 0, "function": {"arguments": held}}) if held else []
        stop_reason = checked_stop_reason(self._ending.get("stop_reason"))
        stop_details = self._ending.get("stop_details")
        if stop_reason == "refusal":
            refusal = refusal_text(stop_details)
            if self._context.refusal_text == "content" and not (self._has_shown_words or self._call_count):
                chunks.append(self._chunk({"content": refusal}))
            chunks.append(self._chunk({"refusal": refusal}))
        if self._whole is not None:
            content = shown_content(self._whole.message.get("content") or ())
            chunks.append(self._chunk({"provider_specific_fields": {"anthropic_content": content}}))
        finish = self._chunk({}, finish_reason_of(stop_reason, bool(self._call_count), self._context))
        finish["choices"][0].update(choice_extras(stop_reason, self._ending.get("stop_sequence"), stop_details))
        if self._arguments and stop_reason != "refusal":
            self._late.update(dict.fromkeys(unhonoured("".join(self._arguments), stop_reason)))
        late = dict.fromkeys([*self._late, *late_warnings(stop_reason, ())])
        if late:
            finish["gateway"] = {"warnings": list(late)}
        return [*chunks, finish]

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> Chunk:
        chunk = {
            **self._head,
            "choices": [{"index": self._index, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }
        if self._context.include_usage:
            chunk["usage"] = None
        return chunk
