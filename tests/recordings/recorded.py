"""Recorded answers of Claude's, and what the specification makes of them, worked out here without our own code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[3] / "shared"
FOLDER, SCHEMAS = SHARED / "recordings", SHARED / "openai-schema"
MOST_CONTINUATIONS = 5
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "stop",
}


@dataclass(frozen=True)
class Recording:
    """One exchange; `body` is the text of a stream, or JSON."""

    name: str
    status: int
    headers: dict[str, str]
    body: Any
    is_stream: bool

    @property
    def kind(self) -> str:
        return "error" if self.status != 200 else "stream" if self.is_stream else "json"


def recordings() -> tuple[list[Recording], dict[str, str]]:
    """(answers to requests for messages that are real traffic, why each of the others is left out)."""
    found, left_out = [], {}
    for file in sorted(FOLDER.glob("*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        response = document["response"]
        path = (document["request"] or {}).get("path", "/v1/messages")
        if document["provenance"] == "handmade":
            left_out[file.name] = "made by hand, no real traffic"
        elif path.partition("?")[0] != "/v1/messages":
            left_out[file.name] = f"no message: {path}"
        else:
            is_stream = "sse" in response
            body = response["sse"] if is_stream else response["body"]
            headers = {name.lower(): value for name, value in response["headers"].items()}
            found.append(Recording(file.name, response["status"], headers, body, is_stream))
    return found, left_out


def events_of(text: str) -> list[dict[str, Any]]:
    lines = text.replace("\r\n", "\n").split("\n")
    return [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]


@dataclass
class Answer:
    """A message as far as a client of OpenAI's may want to know it."""

    message: dict[str, Any]
    blocks: list[dict[str, Any]]
    ending: dict[str, Any]
    usage: dict[str, Any]
    is_complete: bool = True


def of_json(message: dict[str, Any]) -> Answer:
    ending = {name: message.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
    return Answer(message, message["content"], ending, message["usage"])


def of_stream(text: str) -> Answer:
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    ending: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    is_complete = False
    for event in events_of(text):
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
            usage.update(message["usage"])
            blocks = dict(enumerate(message["content"]))
            ending = {name: message.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
        elif kind == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "pieces": []}
        elif kind == "content_block_delta":
            _add(blocks[event["index"]], event["delta"])
        elif kind == "message_delta":
            ending.update({name: value for name, value in event["delta"].items() if value is not None})
            usage.update({name: value for name, value in event["usage"].items() if value is not None})
        is_complete = is_complete or kind == "message_stop"
    return Answer(message, [blocks[index] for index in sorted(blocks)], ending, usage, is_complete)


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta["type"] == "text_delta":
        block["text"] += delta["text"]
    elif delta["type"] == "thinking_delta":
        block["thinking"] += delta["thinking"]
    elif delta["type"] == "signature_delta":
        block["signature"] = delta["signature"]
    elif delta["type"] == "input_json_delta":
        block["pieces"].append(delta["partial_json"])
    elif delta["type"] == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]


@dataclass
class Seen:
    """What a client sees of an answer. `calls` are (id, name, arguments)."""

    id: str = ""
    model: str = ""
    content: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    reasoning: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    stop: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    late_warnings: list[str] = field(default_factory=list)


def expected(answer: Answer) -> Seen:
    """By translation.md 2.1 to 2.6. A pause is continued until the bound, each time with the same recording."""
    paused = answer.ending["stop_reason"] == "pause_turn" and not any(b["type"] == "tool_use" for b in answer.blocks)
    times = 1 + MOST_CONTINUATIONS if paused else 1
    blocks = answer.blocks * times
    reason = answer.ending["stop_reason"] or ""
    seen = Seen(
        id=answer.message["id"],
        model=answer.message["model"],
        content="".join(block["text"] for block in blocks if block["type"] == "text"),
        calls=[(block["id"], block["name"], _arguments(block)) for block in blocks if block["type"] == "tool_use"],
        reasoning="\n\n".join(b["thinking"] for b in blocks if b["type"] == "thinking" and b["thinking"]),
        finish_reason=FINISH_REASONS.get(reason, "stop"),
        native_finish_reason=reason,
        stop=answer.ending.get("stop_sequence"),
        usage=_usage(answer.usage, times),
        late_warnings=(["pause_turn"] if paused else []) + (["server_tool_failed"] if _has_failed_tool(blocks) else []),
    )
    shown = 0
    for place, block in enumerate(blocks):
        if block["type"] in ("thinking", "redacted_thinking"):
            seen.details.append(_detail(block, len(seen.details), place, answer.message))
        if block["type"] == "text":
            seen.annotations += _annotations(block, shown)
            shown += len(block["text"])
    return seen


def _has_failed_tool(blocks: Iterable[dict[str, Any]]) -> bool:
    """Whether a tool that runs at Anthropic's failed: what came of it is an error."""
    results = [block["content"] for block in blocks if block["type"].endswith("_tool_result")]
    return any(isinstance(result, dict) and result["type"].endswith("_error") for result in results)


def _arguments(block: dict[str, Any]) -> str:
    written = "".join(block.get("pieces", ()))
    return written or json.dumps(block["input"] or {}, ensure_ascii=False, separators=(",", ":"))


def _detail(block: dict[str, Any], index: int, place: int, message: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "thinking":
        own = {"type": "reasoning.text", "text": block["thinking"], "signature": block["signature"]}
    else:
        own = {"type": "reasoning.encrypted", "data": block["data"]}
    where = {"id": f"{message['id']}_{place}", "index": index, "block_index": place, "model": message["model"]}
    return {**own, **where, "format": "anthropic-claude-v1"}


def _annotations(block: dict[str, Any], start: int) -> list[dict[str, Any]]:
    end = start + len(block["text"])
    made: list[dict[str, Any]] = []
    for citation in block.get("citations") or ():
        url = citation.get("url") or citation.get("source")
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            cited = {"start_index": start, "end_index": end, "url": url, "title": citation["title"] or ""}
            annotation = {"type": "url_citation", "url_citation": cited}
        else:
            own = {k: v for k, v in citation.items() if k not in ("type", "file_id") and v is not None}
            cited = {**own, "start_index": start, "end_index": end}
            annotation = {"type": "document_citation", "document_citation": cited}
        same = [a for a in made if a == annotation or _url(a) == _url(annotation) is not None]
        if not same:
            made.append(annotation)
    return made


def _url(annotation: dict[str, Any]) -> str | None:
    url: str | None = annotation.get("url_citation", {}).get("url")
    return url


def _usage(usage: dict[str, Any], times: int) -> dict[str, int]:
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    prompt = usage["input_tokens"] + read + written
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    output = usage["output_tokens"]
    counts = {
        "prompt": prompt,
        "completion": output,
        "total": prompt + output,
        "cached": read,
        "cache_write": written,
        "reasoning": thinking,
    }
    return {name: times * count for name, count in counts.items()}


def usage_seen(usage: dict[str, Any]) -> dict[str, int]:
    details = usage["prompt_tokens_details"]
    return {
        "prompt": usage["prompt_tokens"],
        "completion": usage["completion_tokens"],
        "total": usage["total_tokens"],
        "cached": details["cached_tokens"],
        "cache_write": details["cache_write_tokens"],
        "reasoning": usage["completion_tokens_details"]["reasoning_tokens"],
    }


def in_completion(completion: dict[str, Any]) -> Seen:
    (choice,) = completion["choices"]
    message = choice["message"]
    calls = message.get("tool_calls") or []
    assert message["content"] is not None or calls, "content may be null beside calls only"
    assert message["content"] or not (calls and message["content"] == ""), "content beside calls is text or null"
    return Seen(
        id=completion["id"],
        model=completion["model"],
        content=message["content"] or "",
        calls=[(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls],
        reasoning=message.get("reasoning_content", ""),
        details=message.get("reasoning_details", []),
        annotations=message.get("annotations", []),
        finish_reason=choice["finish_reason"],
        native_finish_reason=choice["native_finish_reason"],
        stop=choice.get("stop_reason"),
        usage=usage_seen(completion["usage"]),
        late_warnings=completion.get("gateway", {}).get("warnings", []),
    )


def in_chunks(chunks: Sequence[dict[str, Any]]) -> Seen:
    """What a client that knows only chunks makes of them. Asserts the order that OpenAI's SDKs rely on."""
    *spoken, last = chunks
    assert last["choices"] == [] and last["usage"], "usage comes last, without choices"
    assert all(chunk["usage"] is None for chunk in spoken)
    (id_,), (model,), (_,) = ({chunk[name] for chunk in chunks} for name in ("id", "model", "created"))
    choices = [chunk["choices"][0] for chunk in spoken]
    deltas = [choice["delta"] for choice in choices]
    assert [at for at, delta in enumerate(deltas) if "role" in delta] == [0]
    assert [at for at, choice in enumerate(choices) if choice["finish_reason"]] == [len(choices) - 1]
    end = choices[-1]
    return Seen(
        id=id_,
        model=model,
        content="".join(delta.get("content") or "" for delta in deltas),
        calls=_calls(deltas),
        reasoning="".join(delta.get("reasoning_content") or "" for delta in deltas),
        details=_entries(deltas, "reasoning_details", keep_index=True),
        annotations=_entries(deltas, "annotations", keep_index=False),
        finish_reason=end["finish_reason"],
        native_finish_reason=end["native_finish_reason"],
        stop=end.get("stop_reason"),
        usage=usage_seen(last["usage"]),
        late_warnings=spoken[-1].get("gateway", {}).get("warnings", []),
    )


def _calls(deltas: Iterable[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    calls: list[tuple[str, str, str]] = []
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            function = call["function"]
            if "id" in call:
                assert call["index"] == len(calls), "calls are numbered from 0"
                calls.append((call["id"], function["name"], function["arguments"]))
            else:
                assert call["index"] == len(calls) - 1
                assert "name" not in function, "the name comes once"
                id_, name, arguments = calls[-1]
                calls[-1] = (id_, name, arguments + function["arguments"])
    return calls


def _entries(deltas: Iterable[dict[str, Any]], name: str, *, keep_index: bool) -> list[dict[str, Any]]:
    entries = [entry for delta in deltas for entry in delta.get(name, ())]
    assert [entry["index"] for entry in entries] == list(range(len(entries))), f"{name} are complete, one per index"
    return [{key: value for key, value in entry.items() if keep_index or key != "index"} for entry in entries]
