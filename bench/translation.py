"""CPU of translating a long conversation: 1 MB of JSON in 500 messages. Run: .venv/bin/python bench/translation.py"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from app.schemas.chat import chat_request
from app.translate.chat.memory import remembered_names
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import facts_for
from app.upstream.names import OVERLAY

MODEL = "claude-opus-5-5"
RUNS = 50


def conversation() -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You are helpful. " * 20}]
    turn = 0
    while len(messages) < 499:
        turn += 1
        messages.append({"role": "user", "content": "Why is the sky blue? " * 91})
        if turn % 3 == 0:
            arguments = orjson.dumps({"query": "x" * 500, "number": turn}).decode()
            call = {"id": f"toolu_{turn}", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
            messages.append({"role": "assistant", "content": "Let me look. " * 40, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": f"toolu_{turn}", "content": "A result. " * 220})
        messages.append({"role": "assistant", "content": "Because of Rayleigh scattering. " * 70})
    messages = [*messages[:499], {"role": "user", "content": "Go on."}]
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": parameters}}]
    return {"model": MODEL, "messages": messages, "tools": tools}


def cpu_ms(function: Callable[[], Any]) -> tuple[float, float]:
    """(least, median) of RUNS."""
    taken = []
    for _ in range(RUNS):
        began = time.process_time()
        function()
        taken.append((time.process_time() - began) * 1000)
    taken.sort()
    return taken[0], taken[len(taken) // 2]


def main() -> None:
    raw = orjson.dumps(conversation())
    asked = chat_request(orjson.loads(raw))
    facts = facts_for(MODEL, OVERLAY)
    print(f"{len(asked['messages'])} messages, {len(raw)} bytes; CPU in ms, least and median of {RUNS}")
    for name, function in (
        ("JSON and schema", lambda: chat_request(orjson.loads(raw))),
        ("names of what is remembered", lambda: remembered_names(asked["messages"], "", facts.family)),
        ("translation", lambda: to_message_params(asked, facts, Options(caching="auto"))),
    ):
        least, median = cpu_ms(function)
        print(f"{name:30} {least:6.2f} {median:6.2f}")


if __name__ == "__main__":
    main()
