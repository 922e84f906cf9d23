"""A peer of the benchmark: the proxy that one writes in an afternoon, with FastAPI and Anthropic's SDK. Text only."""

# mypy: ignore-errors
# FastAPI is in the peer's environment alone.

import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from anthropic import AsyncAnthropic
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

KEY = f"Bearer {os.environ['PROXY_KEY']}"
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}

app = FastAPI()
claude = AsyncAnthropic()  # ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/v1/chat/completions")
async def chat(body: dict[str, Any], authorization: str = Header("")) -> Any:
    if authorization != KEY:
        raise HTTPException(401)
    system = "\n".join(m["content"] for m in body["messages"] if m["role"] == "system")
    messages = [m for m in body["messages"] if m["role"] != "system"]
    asked = {"model": body["model"], "max_tokens": body["max_tokens"], "system": system, "messages": messages}
    if body.get("stream"):
        return StreamingResponse(chunks(asked), media_type="text/event-stream")
    answer = await claude.messages.create(**asked)
    text = "".join(block.text for block in answer.content if block.type == "text")
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": FINISH.get(answer.stop_reason, "stop")}
    usage = {"prompt_tokens": answer.usage.input_tokens, "completion_tokens": answer.usage.output_tokens}
    head = {"id": answer.id, "object": "chat.completion", "created": int(time.time()), "model": answer.model}
    return {**head, "choices": [choice], "usage": usage}


async def chunks(asked: dict[str, Any]) -> AsyncIterator[str]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": int(time.time()), "model": asked["model"]}
    async for event in await claude.messages.create(**asked, stream=True):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            choice = {"index": 0, "delta": {"content": event.delta.text}, "finish_reason": None}
        elif event.type == "message_delta":
            choice = {"index": 0, "delta": {}, "finish_reason": FINISH.get(event.delta.stop_reason, "stop")}
        else:
            continue
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"
