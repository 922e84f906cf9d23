"""`?explain=1`: what would be sent, and what became of each field; equal to what is then really sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from app.translate.chat.fields import FIELDS
from tests.conftest import CLIENT, Gateway, wait_for

SCHEMA = Path(__file__).resolve().parents[3] / "shared" / "openai-schema" / "CreateChatCompletionRequest.json"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
SECRET = "a-secret-of-the-connection"
KEY = "sk-ant-key-of-the-explain-tests"

TWENTY: dict[str, Any] = {
    "model": "anthropic/claude-sonnet-5.5",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is the weather in Paris?"},
                {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call.1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call.1", "content": "18 degrees"},
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": ""},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
                "strict": True,
            },
        },
        {"type": "custom", "custom": {"name": "shell"}},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "max_tokens": 500_000,
    "temperature": 0.7,
    "top_p": 0.9,
    "n": 1,
    "stop": ["END", "\n\n"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "high",
    "verbosity": "low",
    "service_tier": "flex",
    "user": "ann@example.com",
    "metadata": {"team": "blue"},
    "seed": 7,
    "store": False,
    "logit_bias": {},
    "prompt_cache_key": "k",
    "web_search_options": {"search_context_size": "low"},
    "response_format": {"type": "text"},
    "anthropic_beta": ["context-1m-2025-08-07"],
    "mirostat": 2,
    "prediction": None,
}


@pytest.fixture(scope="module")
def running(module_gateway: Any, simulator: str) -> Gateway:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS=KEY,
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_CONFIGS=f'{{"0": {{"name": "main", "headers": {{"x-tenant": "{SECRET}"}}}}}}',
        GATEWAY_API_KEYS="client-key-of-the-tests",
    )
    return started


def ask(running: Gateway, body: dict[str, Any], *, explain: bool, **headers: str) -> requests.Response:
    path = "/v1/chat/completions" + ("?explain=1" if explain else "")
    return running.post(path, body, headers={**CLIENT, **headers})


def explained(running: Gateway, body: dict[str, Any]) -> dict[str, Any]:
    answer = ask(running, body, explain=True)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def fields(explanation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["field"]: entry for entry in explanation["fields"]}


def received(simulator: str) -> list[dict[str, Any]]:
    entries = requests.get(f"{simulator}/_sim/requests", timeout=5).json()["requests"]
    return [entry for entry in entries if entry["path"] == "/v1/messages" and entry["key"] == KEY]


def test_what_is_explained_is_what_is_then_sent(running: Gateway, simulator: str) -> None:
    before = len(received(simulator))
    explanation = explained(running, TWENTY)
    assert len(received(simulator)) == before  # nothing went upstream for it
    answer = ask(running, TWENTY, explain=False)
    assert answer.status_code == 200, answer.text
    sent = wait_for(lambda: received(simulator)[before:], what="the request")[0]
    would_be = explanation["request"]
    assert sent["body"] == would_be["body"]
    assert (sent["method"], f"{simulator}{sent['path']}") == (would_be["method"], would_be["url"])
    for name, value in would_be["headers"].items():
        assert sent["headers"][name] == value or value == "…", name
    told = answer.headers["x-gateway-warnings"].split(",")
    assert list(dict.fromkeys(warning["code"] for warning in explanation["warnings"])) == told


def test_each_field_and_message_is_accounted_for(running: Gateway) -> None:
    explanation = explained(running, TWENTY)
    found = fields(explanation)
    assert len(TWENTY) > 20
    assert list(found) == [
        *("model", "messages", *(f"messages[{i}]" for i in range(len(TWENTY["messages"])))),
        *(name for name in TWENTY if name not in ("model", "messages")),
    ]
    assert {entry["became"] for entry in found.values()} == {"sent", "mapped", "ignored"}
    assert all(entry["reason"] for entry in found.values())
    assert (found["stream"]["became"], found["stream"]["upstream"]) == ("sent", ["stream"])
    assert (found["temperature"]["became"], found["temperature"]["warnings"]) == ("ignored", ["sampling_ignored"])
    assert (found["max_tokens"]["became"], found["max_tokens"]["warnings"]) == ("mapped", ["max_tokens_clamped"])
    assert found["messages[0]"]["upstream"] == ["system[0]"]
    assert found["messages[4]"]["upstream"] == ["messages[3]"]
    assert (found["messages[5]"]["became"], found["messages[5]"]["upstream"]) == ("ignored", [])
    assert found["messages[1]"]["warnings"] == ["image_detail_ignored"]
    assert found["reasoning_effort"]["upstream"] == ["thinking", "output_config.effort"]
    assert found["mirostat"]["warnings"] == ["unknown_field"]
    assert (found["response_format"]["became"], found["response_format"]["upstream"]) == ("ignored", [])
    assert found["n"]["became"] == "ignored"
    assert explanation["connection"]["name"] == "main"
    assert explanation["refused"] is None


def test_no_secret_is_shown(running: Gateway) -> None:
    text = ask(running, TWENTY, explain=True).text
    assert KEY not in text
    assert SECRET not in text
    assert "x-tenant" in text
    assert "client-key-of-the-tests" not in text


@pytest.mark.parametrize(
    ("wrong", "field", "param"),
    [
        ({"logprobs": True}, "logprobs", "logprobs"),
        ({"temperature": 5}, "temperature", "temperature"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
            "messages",
            "messages[0].content[0].type",
        ),
        ({"extra_body": 5}, "extra_body", "extra_body"),
        ({"extra_body": {"n": 99}}, "n", "n"),
    ],
)
def test_a_request_that_would_be_refused_says_which_field_is_at_fault(
    running: Gateway, wrong: dict[str, Any], field: str, param: str
) -> None:
    body = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "hi"}], **wrong}
    explanation = explained(running, body)
    assert explanation["request"] is None
    assert explanation["refused"]["param"] == param
    became = {name: entry["became"] for name, entry in fields(explanation).items()}
    assert became.pop(field) == "rejected"
    assert set(became.values()) <= {"unchecked"}
    refused = ask(running, body, explain=False)
    assert refused.status_code == explanation["refused"].pop("status")
    assert refused.json()["error"] == explanation["refused"]


def test_what_is_explained_is_for_clients_only(running: Gateway) -> None:
    answer = running.post("/v1/chat/completions?explain=1", TWENTY, headers={})
    assert answer.status_code == 401


@pytest.mark.skipif(not SCHEMA.exists(), reason=f"{SCHEMA} is not there")
def test_every_field_of_openais_request_has_its_disposition() -> None:
    names = set(properties(orjson.loads(SCHEMA.read_bytes())))
    assert len(names) > 30
    assert names - FIELDS.keys() == set()


def properties(schema: dict[str, Any]) -> Iterator[str]:
    """Those of an object schema, wherever allOf and references put them."""
    todo = [schema]
    while todo:
        node = todo.pop()
        yield from node.get("properties", ())
        todo += node.get("allOf", [])
        if "$ref" in node:
            target = schema
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            todo.append(target)
