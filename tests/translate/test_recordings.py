"""Real answers of Claude's, translated: valid by OpenAI's own schemas, and the same streamed as whole."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from app.translate.accumulate import MessageAccumulator
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.translation import ReplyContext
from app.upstream.events import EventParser

SHARED = Path(__file__).resolve().parents[3] / "shared"
RECORDINGS, SCHEMAS = SHARED / "recordings", SHARED / "openai-schema"

pytestmark = pytest.mark.skipif(not RECORDINGS.exists() or not SCHEMAS.exists(), reason=f"nothing in {SHARED}")


def answers(streamed: bool) -> list[tuple[str, Any]]:
    """(name, body of the answer) of each recorded Messages answer."""
    found = []
    for file in sorted(RECORDINGS.glob("*.json")):
        recording = orjson.loads(file.read_bytes())
        response = recording["response"]
        is_stream = "text/event-stream" in str(response["headers"].get("content-type", ""))
        path = (recording["request"] or {}).get("path", "/v1/messages")
        if response["status"] != 200 or is_stream is not streamed or not path.startswith("/v1/messages"):
            continue
        body = response.get("sse") if streamed else response.get("body")
        if streamed or (isinstance(body, dict) and body.get("type") == "message"):
            found.append((file.stem, body))
    return found


def events_of(body: Any) -> list[dict[str, Any]]:
    text = body if isinstance(body, str) else "".join(body)
    return EventParser().feed(text.encode() + b"\n\n")


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(orjson.loads((SCHEMAS / f"{name}.json").read_bytes()))


def problems(name: str, value: Any) -> list[str]:
    return [f"{list(e.absolute_path)}: {e.message[:200]}" for e in validator(name).iter_errors(value)]


def aggregated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client that knows only chunks makes of them."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": "", "tool_calls": {}}
    finish = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            for name in ("content", "reasoning_content", "refusal"):
                message[name] += choice["delta"].get(name) or ""
            for call in choice["delta"].get("tool_calls", ()):
                entry = message["tool_calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                entry["id"] += call.get("id", "")
                for name, piece in call["function"].items():
                    entry[name] += piece
            finish = choice["finish_reason"] or finish
    return {
        **message,
        "tool_calls": [message["tool_calls"][i] for i in sorted(message["tool_calls"])],
        "finish": finish,
    }


def of_whole(completion: dict[str, Any]) -> dict[str, Any]:
    choice = completion["choices"][0]
    message = choice["message"]
    return {
        "content": message["content"] or "",
        "reasoning_content": message.get("reasoning_content", ""),
        "refusal": message["refusal"] or "",
        "tool_calls": [{"id": c["id"], **c["function"]} for c in message.get("tool_calls", ())],
        "finish": choice["finish_reason"],
    }


def test_every_recorded_stream_gives_valid_chunks_and_the_answer_it_would_have_given_whole() -> None:
    recorded = answers(streamed=True)
    assert len(recorded) > 100
    for name, body in recorded:
        translator = StreamTranslator(ReplyContext(include_usage=True), created=1)
        accumulator = MessageAccumulator()
        chunks = []
        for event in events_of(body):
            chunks += translator.feed(event)
            accumulator.feed(event)
        assert translator.is_complete is accumulator.is_complete, name
        if not translator.is_complete:
            assert not any(c["finish_reason"] for chunk in chunks for c in chunk["choices"]), name
            continue
        for chunk in chunks:
            assert not problems("CreateChatCompletionStreamResponse", chunk), (name, chunk)
        whole = to_chat_completion([accumulator.message], ReplyContext(), created=1)
        assert not problems("CreateChatCompletionResponse", whole), name
        assert aggregated(chunks) == of_whole(whole), name
        assert chunks[-1]["usage"] == whole["usage"], name


def test_every_recorded_json_answer_gives_a_valid_completion() -> None:
    recorded = answers(streamed=False)
    assert len(recorded) > 100
    for name, message in recorded:
        completion = to_chat_completion([message], ReplyContext(), created=1)
        assert not problems("CreateChatCompletionResponse", completion), name
        texts = [b["text"] for b in message["content"] if b["type"] == "text"]
        answer = completion["choices"][0]["message"]
        assert (answer["content"] or "") == ("".join(texts) or answer["refusal"] or ""), name
        usage = message["usage"]
        assert completion["usage"]["completion_tokens"] == usage["output_tokens"], name
