"""Signed thinking for clients that keep role, content and tool calls alone: from turn to turn, on another worker, over
a restart, on SQLite and PostgreSQL; and no error when nothing is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import requests
from sqlalchemy import create_engine, text

from tests.conftest import CLIENT, Gateway, GatewayMaker

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
KEY = "sk-ant-of-the-thinking-tests"
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


@pytest.fixture
def start(gateway: GatewayMaker, simulator: str, either_database: dict[str, str]) -> Callable[..., Gateway]:
    """Each call is another process on the same database."""

    def make(**variables: str) -> Gateway:
        return gateway(
            ENABLE_ANTHROPIC_API="true",
            ANTHROPIC_API_KEYS=KEY,
            ANTHROPIC_API_BASE_URLS=simulator,
            GATEWAY_API_KEYS=f"{CLIENT['authorization'].removeprefix('Bearer ')},another-client-key",
            **{name.upper(): value for name, value in either_database.items()},
            **variables,
        )

    return make


def ask(gateway: Gateway, messages: list[Any], *, stream: bool, headers: dict[str, str] = CLIENT, **fields: Any) -> Any:
    """The assistant message as a client that knows no reasoning keeps it."""
    body = {"model": "claude-opus-5-5", "tools": [WEATHER], "messages": messages, "stream": stream, **fields}
    answer = gateway.post("/v1/chat/completions", body, headers=headers)
    assert answer.status_code == 200, answer.text
    if not stream:
        message = answer.json()["choices"][0]["message"]
        return {name: message[name] for name in ("role", "content", "tool_calls") if name in message}
    content, calls = "", {}
    for line in answer.text.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in orjson.loads(line[6:])["choices"]:
            content += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                if "id" in call:
                    calls[call["index"]] = {"id": call["id"], "type": "function", "function": {**call["function"]}}
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return {"role": "assistant", "content": content, **({"tool_calls": [*calls.values()]} if calls else {})}


def rows_of(gateway: Gateway, either_database: dict[str, str], statement: str) -> int:
    """How many rows a statement deleted, or what it counted."""
    url = either_database.get("database_url", f"sqlite:///{gateway.instance / 'dragoman.db'}")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return int(result.scalar_one() if result.returns_rows else result.rowcount)
    finally:
        engine.dispose()


def with_results(message: Any) -> list[Any]:
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "18 degrees"} for c in message["tool_calls"]]
    return [QUESTION, message, *results]


def last_turn_of_claude(simulator: str) -> list[dict[str, Any]]:
    """The blocks of the last assistant turn in the last request that the simulator got with our key."""
    entries = requests.get(f"{simulator}/_sim/requests", timeout=5).json()["requests"]
    body = next(e["body"] for e in reversed(entries) if e["key"] == KEY and e["path"] == "/v1/messages")
    blocks: list[dict[str, Any]] = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "assistant")
    return blocks


@pytest.mark.parametrize(
    ("stream", "fields"),
    [(True, {}), (False, {"model": "claude-haiku-4-5", "reasoning_effort": "low"})],
    ids=["bound", "manual"],
)
def test_the_blocks_come_back_byte_for_byte_on_another_worker_and_after_a_restart(
    start: Callable[..., Gateway], simulator: str, stream: bool, fields: dict[str, Any]
) -> None:
    first = start()
    shown = first.post(
        "/v1/chat/completions",
        {"model": "claude-opus-5-5", "tools": [WEATHER], "messages": [QUESTION], **fields},
        headers=CLIENT,
    ).json()["choices"][0]["message"]
    asked = with_results({name: shown.get(name) for name in ("role", "content", "tool_calls")})
    detail = shown["reasoning_details"][0]
    thought = {"type": "thinking", "thinking": detail["text"], "signature": detail["signature"]}
    assert thought["signature"]
    seen = []
    ask(first, asked, stream=stream, **fields)
    seen.append(last_turn_of_claude(simulator))
    other = start()
    ask(other, asked, stream=stream, **fields)
    seen.append(last_turn_of_claude(simulator))
    first.stop()
    other.stop()
    ask(start(), asked, stream=stream, **fields)
    seen.append(last_turn_of_claude(simulator))
    assert [blocks[0] for blocks in seen] == [thought] * 3
    assert [[block["type"] for block in blocks] for blocks in seen] == [["thinking", "tool_use"]] * 3
    assert orjson.dumps(seen[0]) == orjson.dumps(seen[1]) == orjson.dumps(seen[2])


def test_with_nothing_remembered_the_request_is_answered_all_the_same(
    start: Callable[..., Gateway], simulator: str, either_database: dict[str, str]
) -> None:
    gateway = start()
    message = ask(gateway, [QUESTION], stream=True)
    assert rows_of(gateway, either_database, "DELETE FROM remembered_answers") == 1
    answer = ask(start(), with_results(message), stream=False)
    assert "18 degrees" in answer["content"]
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["tool_use"]


def test_another_client_key_is_not_given_the_thinking(start: Callable[..., Gateway], simulator: str) -> None:
    gateway = start()
    message = ask(gateway, [QUESTION], stream=False)
    ask(gateway, with_results(message), stream=False, headers={"authorization": "Bearer another-client-key"})
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["tool_use"]
    ask(gateway, with_results(message), stream=False)
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["thinking", "tool_use"]


def test_a_history_that_the_client_changed_is_sent_as_the_client_has_it(
    start: Callable[..., Gateway], simulator: str
) -> None:
    gateway = start()
    message = ask(gateway, [QUESTION], stream=False)
    message["tool_calls"][0]["function"]["arguments"] = '{"city":"Rome"}'
    ask(gateway, with_results(message), stream=False)
    blocks = last_turn_of_claude(simulator)
    assert [(block["type"], block["input"]) for block in blocks] == [("tool_use", {"city": "Rome"})]


def test_an_answer_without_calls_is_known_by_its_text_and_the_conversation_before_it(
    start: Callable[..., Gateway], simulator: str
) -> None:
    gateway = start()
    hello = {"role": "user", "content": "Hello!"}
    message = ask(gateway, [hello], stream=True, tools=None)
    again = [hello, {**message, "content": message["content"] + "\n"}, {"role": "user", "content": "Go on."}]
    ask(gateway, again, stream=False, tools=None)
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["thinking", "text"]
    other = [{"role": "user", "content": "Goodbye!"}, *again[1:]]
    ask(gateway, other, stream=False, tools=None)
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["text"]


def test_a_conversation_that_ends_in_the_same_words_is_another_one(
    start: Callable[..., Gateway], simulator: str
) -> None:
    """One key may serve many people, whose thoughts are not each other's."""
    gateway = start()
    secret = [{"role": "user", "content": "My password is hunter2."}, {"role": "assistant", "content": "Ok."}]
    yes = {"role": "user", "content": "Yes."}
    message = ask(gateway, [*secret, yes], stream=False, tools=None)
    on = {"role": "user", "content": "Repeat your thinking."}
    ask(gateway, [yes, message, on], stream=False, tools=None)
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["text"]
    ask(gateway, [*secret, yes, message, on], stream=False, tools=None, user="somebody else")
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["text"]
    ask(gateway, [*secret, yes, message, on], stream=False, tools=None)
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["thinking", "text"]


def test_a_gateway_that_is_to_remember_nothing_keeps_nothing(
    start: Callable[..., Gateway], simulator: str, either_database: dict[str, str]
) -> None:
    gateway = start(REMEMBER_ANSWERS="false")
    message = ask(gateway, [QUESTION], stream=True)
    answer = ask(gateway, with_results(message), stream=False)
    assert "18 degrees" in answer["content"]
    assert [block["type"] for block in last_turn_of_claude(simulator)] == ["tool_use"]
    assert rows_of(gateway, either_database, "SELECT count(*) FROM remembered_answers") == 0
