"""Chat completions over real sockets: gunicorn, the simulator, and OpenAI's SDK as the client."""

from __future__ import annotations

import base64
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import orjson
import pydantic
import pytest
import requests
from openai import OpenAI

from tests.conftest import CLIENT, CLIENT_KEY, Gateway, GatewayMaker, wait_for

HI: list[Any] = [{"role": "user", "content": "hi"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def running(module_gateway: Any, simulator: str) -> Gateway:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test-of-the-chat-api",
        ANTHROPIC_API_BASE_URLS=simulator,
        MODEL_ALIASES='{"gpt-4o": "sim-text", "gone": "claude-nope"}',
        WEB_CONCURRENCY="2",
    )
    return started


@pytest.fixture
def client(running: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0) as made:
        yield made


def post(running: Gateway, **fields: Any) -> requests.Response:
    return running.post("/v1/chat/completions", {"model": "sim-text", "messages": HI, **fields}, headers=CLIENT)


def last_request(simulator: str, model: str) -> dict[str, Any]:
    """What the simulator received for `model`, once it is done with it."""

    def found() -> Any:
        journal = requests.get(f"{simulator}/_sim/requests", timeout=5).json()
        entries = journal["requests"] if isinstance(journal, dict) else journal
        return [
            e for e in entries if isinstance(e.get("body"), dict) and e["body"].get("model") == model and e["ended"]
        ]

    return dict(wait_for(found, what=f"a finished request for {model}")[-1])


def test_the_sdk_lists_models(client: OpenAI) -> None:
    models = {m.id: m for m in client.models.list()}
    assert models["claude-opus-5-5"].owned_by == "anthropic"
    assert models["gpt-4o"].to_dict()["alias_of"] == "sim-text"
    assert client.models.retrieve("GPT-4o").id == "gpt-4o"
    assert client.models.retrieve("anthropic/claude-opus-5.5").id == "claude-opus-5-5"
    assert client.models.retrieve("claude-haiku-4-5").id == "claude-haiku-4-5-20251001"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("claude-nope")


def test_anthropics_own_sdk_lists_models_on_the_same_path(running: Gateway) -> None:
    with anthropic.Anthropic(base_url=running.url, api_key=CLIENT_KEY, max_retries=0) as client:
        models = {model.id: model for model in client.models.list(limit=100)}
        assert models["claude-opus-5-5"].display_name == "Claude Opus 5.5"
        assert models["claude-opus-5-5"].max_tokens == 128_000
        assert models["claude-opus-5-5"].capabilities is not None
        found = client.models.retrieve("claude-haiku-4-5")
        assert (found.type, found.id, found.created_at.year) == ("model", "claude-haiku-4-5-20251001", 2025)


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_anthropic_does_not_have_is_told_by_the_name_asked_for_too(running: Gateway, stream: bool) -> None:
    refused = post(running, model="gone", stream=stream)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert "The model `claude-nope`, which `gone` stands for, does not" in refused.json()["error"]["message"]
    refused = post(running, model="claude-nope", stream=stream)
    assert "The model `claude-nope` does not" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("claude-sonet-5-5", "claude-sonnet-5-5"),
        ("Claude Opus 5.5", "claude-opus-5-5"),
        ("something-else", None),
    ],
)
def test_a_client_is_told_the_nearest_name_of_a_model_that_there_is(
    running: Gateway, asked: str, meant: str | None
) -> None:
    found = running.get(f"/v1/models/{asked}", headers=CLIENT)
    for answer in (found, post(running, model=asked), post(running, model=asked, stream=True)):
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        assert message.endswith(f" Did you mean `{meant}`?") if meant else "Did you mean" not in message


@pytest.mark.parametrize("path", ["/v1/models", "/v1//models", "/v1/models/", "/models"])
def test_open_webui_finds_what_it_reads_in_the_list(running: Gateway, path: str) -> None:
    answer = running.get(path, headers=CLIENT, allow_redirects=False)
    assert answer.headers["content-type"] == "application/json"
    entry = next(m for m in answer.json()["data"] if m["id"] == "claude-opus-5-5")
    assert entry["name"] == "Claude Opus 5.5"
    assert entry["info"]["meta"]["capabilities"]["usage"] is True
    assert (entry["context_length"], entry["max_output_tokens"]) == (1_000_000, 128_000)
    assert (entry["tokens_per_message"], entry["tokens_per_request"], entry["max_tokens"]) == (
        1_000_000,
        128_000,
        128_000,
    )


def test_the_sdk_chats(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=3)
    assert answer.choices[0].message.content == "w0 w1 w2"
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == "sim-text"
    assert answer.id.startswith("msg_")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_the_sdk_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim-text:tokens=20,gap_ms=5", messages=HI, stream_options={"include_usage": True}
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta" and event.delta]
        final = stream.get_final_completion()
    assert len(pieces) == 20
    assert "".join(pieces) == final.choices[0].message.content
    assert final.usage is not None
    assert final.usage.completion_tokens == 20


def test_a_streamed_and_a_whole_answer_are_the_same(client: OpenAI) -> None:
    for model in ("sim-thinking", "sim-unicode", "sim-web-search", "sim-unknown-events", "sim-empty"):
        whole = client.chat.completions.create(model=model, messages=HI).choices[0]
        with client.chat.completions.stream(model=model, messages=HI) as stream:
            streamed = stream.get_final_completion().choices[0]
        assert streamed.message.content == whole.message.content
        assert streamed.finish_reason == whole.finish_reason
        assert streamed.message.to_dict().get("reasoning_content") == whole.message.to_dict().get("reasoning_content")


@pytest.mark.parametrize("model", ["sim-tool-use", "claude-opus-5-5", "claude-haiku-4-5"])
def test_the_sdk_runs_a_tool_loop(client: OpenAI, model: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls or []
    assert [c.function.name for c in calls if c.type == "function"] == ["get_weather"]
    messages.append(first.choices[0].message.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": c.id, "content": "18 degrees, sunny"} for c in calls]
    second = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop"
    assert "18 degrees" in (second.choices[0].message.content or "")


def test_the_sdk_reads_an_image(client: OpenAI) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}}
    answer = client.chat.completions.create(model="sim-image", messages=[{"role": "user", "content": [image]}])
    assert "1 image(s)" in (answer.choices[0].message.content or "")
    assert "image/png" in (answer.choices[0].message.content or "")


def test_the_sdk_sends_files(client: OpenAI) -> None:
    pdf: Any = {"type": "file", "file": {"filename": "a.pdf", "file_data": base64.b64encode(b"%PDF-1.7").decode()}}
    answer = client.chat.completions.create(model="sim-image", messages=[{"role": "user", "content": [pdf]}])
    assert "1 document(s)" in (answer.choices[0].message.content or "")


def test_the_flat_route_answers_with_role_and_content_at_the_top_too(running: Gateway) -> None:
    asked = {"model": "sim-text", "messages": HI, "max_tokens": 2}
    answer = running.post("/chat/completions", asked, headers=CLIENT).json()
    assert (answer["role"], answer["content"]) == ("assistant", "w0 w1")
    assert answer["choices"][0]["message"]["content"] == "w0 w1"
    assert "role" not in running.post("/v1/chat/completions", asked, headers=CLIENT).json()


def test_the_key_that_goes_upstream_is_the_connections_and_no_other(running: Gateway, simulator: str) -> None:
    post(running, model="sim-text:tokens=1")
    sent = last_request(simulator, "sim-text:tokens=1")
    assert sent["headers"]["x-api-key"] == "sk-ant-test-of-the-chat-api"
    assert "authorization" not in sent["headers"]
    assert CLIENT_KEY not in str(sent)


def test_a_stream_ends_with_a_finish_chunk_and_done(running: Gateway) -> None:
    answer = post(running, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    lines = [line for line in answer.text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [orjson.loads(line[6:]) for line in lines[:-1] if line.startswith("data:")]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


def test_what_was_ignored_is_told_in_a_header(running: Gateway) -> None:
    assert post(running, seed=5, min_p=0.1).headers["x-gateway-warnings"] == "seed_ignored,unknown_field"
    refused = running.post(
        "/v1/chat/completions",
        {"model": "sim-text", "messages": HI, "seed": 5},
        headers={**CLIENT, "x-gateway-strict": "true"},
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seed")


def test_limits_and_ids_of_the_upstream_are_passed_on(running: Gateway) -> None:
    headers = post(running).headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-gateway-request-id"].startswith("req_gw_")
    assert "x-ratelimit-remaining-requests" in headers
    assert "set-cookie" not in headers


@pytest.mark.parametrize(
    ("model", "status", "code", "retry"),
    [
        ("sim-error-400", 400, None, "false"),
        ("sim-error-401", 503, "upstream_authentication_failed", "false"),
        ("sim-error-402", 429, "insufficient_quota", "false"),
        ("sim-error-403", 503, "upstream_authentication_failed", "false"),
        ("sim-error-404", 404, "model_not_found", "false"),
        ("sim-error-413", 413, "request_too_large", "false"),
        ("sim-error-429", 429, "rate_limit_exceeded", "true"),
        ("sim-error-spend-limit", 429, "insufficient_quota", "false"),
        ("sim-error-low-credit", 429, "insufficient_quota", "false"),
        ("sim-error-500", 500, "internal_error", "false"),
        ("sim-error-504", 504, "timeout", "true"),
        ("sim-error-529", 503, "overloaded", "false"),
        ("sim-error-html-502", 502, "upstream_error", "false"),
        ("sim-reset", 502, "upstream_unreachable", "false"),
        ("sim-garbage-0", 502, "upstream_invalid_response", "false"),
        ("sim-cut-0", 502, "upstream_disconnected", "false"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_answer_has_its_status(
    running: Gateway, model: str, status: int, code: str | None, retry: str | None, stream: bool
) -> None:
    answer = post(running, model=model, stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == retry
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("sim-error-midstream-6:gap_ms=20", "overloaded"),
        ("sim-cut-6:gap_ms=20", "upstream_disconnected"),
        ("sim-eof-6:gap_ms=20", "upstream_disconnected"),
        ("sim-garbage-6:gap_ms=20", "upstream_invalid_response"),
        ("sim-half-close", "upstream_disconnected"),
    ],
)
def test_an_answer_that_breaks_off_is_never_called_finished(
    client: OpenAI, running: Gateway, model: str, code: str
) -> None:
    with pytest.raises(openai.APIError) as caught:
        for _ in client.chat.completions.create(model=model, messages=HI, stream=True):
            pass
    assert caught.value.code == code
    text = post(running, model=model, stream=True).text
    assert "[DONE]" not in text
    assert '"finish_reason":"' not in text
    assert post(running, model=model).status_code >= 500


BAD_BODIES = [
    (b"", 400, None),
    (b"{", 400, None),
    (b"[]", 400, None),
    (b'"x"', 400, None),
    (b"\xff\xfe{}", 400, None),
    (b'{"model": "\\ud800", "messages": []}', 400, "messages"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, None),
    (b'{"model":"m","messages":' + b"[" * 201 + b"]" * 201 + b"}", 400, None),
    (b'{"model":"m","messages":[{"role":"user","content":NaN}]}', 400, None),
    (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
    (b'{"model":"sim-text","messages":[]}', 400, "messages"),
    (b'{"model":"sim-text","messages":[{"role":"robot","content":"x"}]}', 400, "messages[0].role"),
    (b'{"model":"sim-text","messages":[{"role":"user","content":"x"}],"max_tokens":"5"}', 400, "max_tokens"),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
@pytest.mark.parametrize(("raw", "status", "param"), BAD_BODIES)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(
    running: Gateway, path: str, raw: bytes, status: int, param: str | None
) -> None:
    answer = requests.post(running.url + path, data=raw, headers=CLIENT, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)


def test_a_body_of_forty_megabytes_is_a_413(running: Gateway) -> None:
    answer = requests.post(
        f"{running.url}/v1/chat/completions", data=b"x" * (40 * 1024 * 1024), headers=CLIENT, timeout=60
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    chunked = requests.post(
        f"{running.url}/v1/chat/completions", data=(b"x" * 1_000_000 for _ in range(40)), headers=CLIENT, timeout=60
    )
    assert chunked.status_code == 413


def test_nul_is_text_like_any_other(running: Gateway, simulator: str) -> None:
    assert post(running, model="sim-text:tokens=2", messages=[{"role": "user", "content": "a\0b"}]).ok
    assert last_request(simulator, "sim-text:tokens=2")["body"]["messages"][0]["content"][0]["text"] == "a\0b"


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("sim-slow-headers-30", True),
        ("sim-slow-headers-31", False),
        ("sim-stall-0", True),
        ("sim-stall-3", True),
        ("sim-stall-4", False),
        ("sim-stall-pings", True),
        ("sim-text:tokens=2000,gap_ms=50", True),
    ],
)
def test_a_client_that_leaves_ends_the_call_upstream(
    running: Gateway, simulator: str, model: str, stream: bool
) -> None:
    body = orjson.dumps({"model": model, "messages": HI, "stream": stream})
    host, port = running.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\n"
    requests.delete(f"{simulator}/_sim/requests", timeout=5)
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(
            lambda: requests.get(f"{simulator}/_sim/stats", timeout=5).json()["live"] > 0, what="the call upstream"
        )
    left_at = time.monotonic()
    assert last_request(simulator, model)["ended"].startswith("aborted")
    assert time.monotonic() - left_at < 2


def test_workers_go_on_after_clients_have_left(running: Gateway, client: OpenAI) -> None:
    for _ in range(20):
        assert client.chat.completions.create(model="sim-text", messages=HI, max_tokens=1).choices


def test_a_long_silence_is_filled_with_comments_and_still_answered(module_gateway: Any, simulator: str) -> None:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
        IDLE_TIMEOUT_S="12",
    )
    text = post(started, model="sim-stall-pings", stream=True).text
    assert text.count(": keep-alive\n") == 1  # however often the upstream gives a sign of life
    assert ": keep-alive\n\n" not in text
    error = orjson.loads(text.strip().split("data: ")[-1])["error"]
    assert error["code"] == "upstream_timeout"
    assert "[DONE]" not in text


def test_a_disabled_integration_says_how_to_enable_it(module_gateway: Any) -> None:
    started: Gateway = module_gateway()
    for answer in (post(started), started.get("/v1/models", headers=CLIENT), started.get("/models")):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "integration_disabled"
        assert "ENABLE_ANTHROPIC_API" in answer.json()["error"]["message"]
    assert started.post("/config/update", {"ENABLE_ANTHROPIC_API": True}).ok
    assert post(started).json()["error"]["code"] == "no_connection"
    ready = started.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["reasons"] == ["No connection is configured."]


def test_the_next_connection_answers_when_the_first_cannot(module_gateway: Any, simulator: str) -> None:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-invalid-one,sk-ant-broke-two,sk-ant-good-three",
        ANTHROPIC_API_BASE_URLS=f"{simulator},{simulator},{simulator}",
        ANTHROPIC_API_CONFIGS='{"2": {"priority": 5, "name": "third"}}',
    )
    assert post(started, model="sim-text:tokens=4").ok
    assert last_request(simulator, "sim-text:tokens=4")["headers"]["x-api-key"] == "sk-ant-good-three"
    started.post("/config/update", {"ANTHROPIC_API_CONFIGS": {"2": {"enable": False}}})
    refused = post(started)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "all_connections_failed"
    assert refused.headers["x-should-retry"] == "false"
    assert "connection 1: " in refused.json()["error"]["message"]
    assert "sk-ant-invalid" not in refused.text


def test_prefixes_and_lists_of_models_decide_who_serves(module_gateway: Any, simulator: str) -> None:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-first-account,sk-ant-second-account",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_CONFIGS='{"0": {"model_ids": ["sim-text"]}, "1": {"prefix_id": "two", "auth": "bearer"}}',
    )
    assert post(started, model="two.sim-text:tokens=5").ok
    sent = last_request(simulator, "sim-text:tokens=5")["headers"]
    assert (sent["authorization"], sent.get("x-api-key")) == ("Bearer sk-ant-second-account", None)
    assert post(started, model="sim-text").ok
    assert post(started, model="sim-echo").json()["error"]["code"] == "model_not_found"
    ids = [m["id"] for m in started.get("/v1/models", headers=CLIENT).json()["data"]]
    assert "sim-text" in ids
    assert "two.claude-opus-5-5" in ids
    assert "claude-opus-5-5" not in ids


@pytest.mark.parametrize(("setting", "is_content"), [({}, True), ({"REFUSAL_TEXT": "refusal"}, False)])
def test_where_the_text_of_a_refusal_stands_is_a_setting(
    gateway: GatewayMaker, simulator: str, setting: dict[str, str], is_content: bool
) -> None:
    started = gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
        **setting,
    )
    answer = post(started, model="sim-refusal").json()["choices"][0]["message"]
    assert answer["refusal"]
    assert answer["content"] == (answer["refusal"] if is_content else None)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_a_running_stream_is_finished_when_the_service_stops_or_reloads(
    gateway: GatewayMaker, simulator: str, stop: signal.Signals
) -> None:
    started = gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
        GRACEFUL_TIMEOUT="20",
    )
    asked = {"model": "sim-text:tokens=60,gap_ms=40", "messages": HI, "stream": True}
    with started.post("/v1/chat/completions", asked, headers=CLIENT, stream=True) as answer:
        lines = answer.iter_lines()
        assert b"data:" in next(lines)
        started.process.send_signal(stop)
        text = b"\n".join(lines)
    assert text.rstrip().endswith(b"data: [DONE]")
    assert text.count(b'"content":" w') == 59


class Review(pydantic.BaseModel):
    stars: int = pydantic.Field(ge=1, le=5)
    text: str
    tags: list[str] | None = None


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-4-5"])
def test_the_sdk_parses_structured_answers(client: OpenAI, model: str) -> None:
    parsed = client.chat.completions.parse(model=model, messages=HI, response_format=Review)
    assert isinstance(parsed.choices[0].message.parsed, Review)
    with client.chat.completions.stream(model=model, messages=HI, response_format=Review) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Review)


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_tool_is_called_by_every_model(client: OpenAI, model: str, choice: Any) -> None:
    asked: Any = {"model": model, "messages": HI, "tools": [WEATHER], "tool_choice": choice}
    whole = client.chat.completions.create(**asked).choices[0]
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    for answer in (whole, streamed):
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls or []
        assert call.type == "function"
        assert "city" in orjson.loads(call.function.arguments)


def test_a_list_is_given_as_a_list(client: OpenAI) -> None:
    schema: Any = {"name": "numbers", "schema": {"type": "array", "items": {"type": "integer"}}}
    answer = client.chat.completions.create(
        model="claude-opus-5-5", messages=HI, response_format={"type": "json_schema", "json_schema": schema}
    )
    assert isinstance(orjson.loads(answer.choices[0].message.content or ""), list)


PREFILL_REFUSED = (
    "This model does not support assistant message prefill. The conversation must end with a user message."
)


def order_refusal(simulator: str, message: str, times: int = 1) -> None:
    fault = {"status": 400, "message": message}
    requests.post(
        f"{simulator}/_sim/faults", json={"key": LEARNING_KEY, "fault": fault, "times": times}, timeout=5
    ).raise_for_status()


LEARNING_KEY = "sk-ant-of-the-learning-tests"


def test_what_a_refusal_teaches_is_tried_once_and_kept_and_told(module_gateway: Any, simulator: str) -> None:
    gateway: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS=LEARNING_KEY, ANTHROPIC_API_BASE_URLS=simulator
    )
    body = {"model": "claude-opus-4-5", "messages": [*HI, {"role": "assistant", "content": "Well,"}]}

    def sent() -> list[list[dict[str, Any]]]:
        entries = requests.get(f"{simulator}/_sim/requests", timeout=5).json()["requests"]
        return [e["body"]["messages"] for e in entries if e["key"] == LEARNING_KEY and e["path"] == "/v1/messages"]

    order_refusal(simulator, PREFILL_REFUSED)
    answer = gateway.post("/v1/chat/completions", body, headers=CLIENT)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-warnings"] == "prefill_emulated"
    gateway.post("/v1/chat/completions", body, headers=CLIENT)
    assert [messages[-1]["role"] for messages in sent()] == ["assistant", "user", "user"]
    details = gateway.get("/readyz").json()["connections"][0]
    assert details["learned_from_refusals"] == {"claude-opus-4-5": ["prefill"]}
    assert 'lesson="prefill"' in gateway.get("/metrics", headers={}).text

    order_refusal(simulator, "max_tokens: 128000 > 10, which is the maximum allowed number of output tokens", 2)
    refused = gateway.post("/v1/chat/completions", {"model": "sim-text", "messages": HI}, headers=CLIENT)
    assert refused.status_code == 400  # once is all: what is refused again is the client's to know
    assert len(sent()) == 5


@pytest.mark.parametrize(
    "poison",
    [
        {"output_config": {"max_tokens: 2 > 1, which is the maximum": 1}},
        {"output_config": {"temperature": 1}},
        {"output_config": {"effort not support": 1}},
        {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "max_tokens: 2 > 1, which is the maximum"}}]}]},
    ],
)  # fmt: skip
def test_no_client_can_teach_the_gateway_what_is_not_so(running: Gateway, poison: dict[str, Any]) -> None:
    for _ in range(4):
        assert post(running, model="claude-opus-4-6", **poison).status_code == 400
    for _ in range(4):
        answer = post(running, model="claude-opus-4-6", temperature=0.5)
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
        assert "x-gateway-warnings" not in answer.headers
    assert running.get("/readyz").json()["connections"][0]["learned_from_refusals"] == {}


def test_a_fact_is_kept_only_when_the_request_that_it_led_to_was_answered(module_gateway: Any, simulator: str) -> None:
    gateway: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS=LEARNING_KEY, ANTHROPIC_API_BASE_URLS=simulator
    )
    order_refusal(simulator, PREFILL_REFUSED, times=2)
    body = {"model": "claude-opus-4-5", "messages": [*HI, {"role": "assistant", "content": "Well,"}]}
    assert gateway.post("/v1/chat/completions", body, headers=CLIENT).status_code == 400
    assert gateway.get("/readyz").json()["connections"][0]["learned_from_refusals"] == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "additionalProperties": {}}}},
    ],
)
def test_json_that_claude_is_asked_for_in_words_is_json(client: OpenAI, form: Any, stream: bool) -> None:
    asked: dict[str, Any] = {"model": "claude-opus-5-5", "messages": HI, "response_format": form}
    if stream:
        chunks = client.chat.completions.create(stream=True, **asked)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        text = client.chat.completions.create(**asked).choices[0].message.content or ""
    assert isinstance(orjson.loads(text), dict)


@pytest.mark.parametrize("value", ["true", "yes", "1", "True"])
def test_a_dry_run_is_one_however_it_is_written(running: Gateway, value: str) -> None:
    body = {"model": "sim-text", "messages": HI}
    explained = running.post(f"/v1/chat/completions?explain={value}", body, headers=CLIENT)
    assert explained.json()["object"] == "chat.completion.explanation"


def test_a_dry_run_that_is_misspelt_is_not_a_real_one(running: Gateway) -> None:
    refused = running.post("/v1/chat/completions?explain=please", {"model": "sim-text", "messages": HI}, headers=CLIENT)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "explain")
    refused = post_with(running, {"x-gateway-strict": "maybe"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-gateway-strict")
    assert post_with(running, {"x-gateway-strict": "1"}, seed=7).status_code == 400
    assert post_with(running, {"x-gateway-strict": "0"}, seed=7).status_code == 200


def post_with(running: Gateway, headers: dict[str, str], **fields: Any) -> requests.Response:
    body = {"model": "sim-text", "messages": HI, **fields}
    return running.post("/v1/chat/completions", body, headers={**CLIENT, **headers})
