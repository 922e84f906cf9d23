"""Upstreams that are not quite Anthropic: whatever they answer, the client gets a clear error, and no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from tests.conftest import CLIENT, AppMaker

SECRET = "plainsecretkey-ABCDEFGHIJ"
START = {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {}}}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "model": "m",
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + (e if isinstance(e, bytes) else orjson.dumps(e)) + b"\n\n" for e in events)


def calling(arguments: str) -> bytes:
    call = b'{"type":"tool_use","id":"t","name":"f","input":' + arguments.encode() + b"}"
    return orjson.dumps({**MESSAGE, "stop_reason": "tool_use", "content": [0]}).replace(b"[0]", b"[" + call + b"]")


# model: (status, body); the body of a model that is streamed is what its stream holds.
ANSWERS: dict[str, tuple[int, bytes]] = {
    "ok": (200, orjson.dumps(MESSAGE)),
    "echo-key": (401, orjson.dumps({"error": {"type": "x", "message": f"Received API Key = {SECRET}"}})),
    "echo-header": (400, orjson.dumps({"error": {"type": "x", "message": "You sent X-Team: team-secret-1"}})),
    "odd-request-id": (500, orjson.dumps({"error": {"message": "no"}, "request_id": "a\r\nb: ф"})),
    "openai": (200, orjson.dumps({"choices": []})),
    "no-content-type": (200, orjson.dumps({**MESSAGE, "content": [{"text": "x"}]})),
    "content-number": (200, orjson.dumps({**MESSAGE, "content": 5})),
    "usage-list": (200, orjson.dumps({**MESSAGE, "usage": [1]})),
    "big-number": (200, calling('{"account":12345678901234567890123}')),
    "stop-only": (200, sse({"type": "message_stop"})),
    "start-without-message": (200, sse({"type": "message_start"})),
    "delta-without-index": (200, sse(START, {"type": "content_block_delta", "delta": {"type": "input_json_delta"}})),
    "error-echo": (200, sse(START, {"type": "error", "error": {"type": "api_error", "message": f"key {SECRET}"}})),
}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded, come back later"}}
WHOLE = (
    START,
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
)
ANSWERS |= {
    "error-within-200": (200, orjson.dumps(OVERLOADED)),
    "openai-error-within-200": (200, orjson.dumps({"error": {"message": "The relay is full", "type": "relay"}})),
    "done-line": (200, sse(*WHOLE, b"[DONE]")),
    "garbage-behind-the-end": (200, sse(*WHOLE, b"{never")),
    "blank-data": (200, sse(WHOLE[0], b"", *WHOLE[1:3], b" ", *WHOLE[3:])),
    "byte-order-mark": (200, b"\xef\xbb\xbf" + sse(*WHOLE)),
}
ANSWERS |= {
    "enormous": (200, sse(*WHOLE)),
    "nested": (200, calling('{"a":' * 990 + "1" + "}" * 990)),
    "nested-too-deep": (200, calling('{"a":' * 100_000 + "1" + "}" * 100_000)),
    "invented-error": (418, orjson.dumps({"error": {"type": "of-my-own-1", "message": "no"}})),
    "another-invented-error": (418, orjson.dumps({"error": {"type": "of-my-own-2", "message": "no"}})),
    "long-answer": (200, orjson.dumps({**MESSAGE, "padding": "x" * 200_000})),
    "long-stream": (200, sse(*WHOLE[:2], *WHOLE[2:3] * 2000, *WHOLE[3:])),
    "long-error": (400, orjson.dumps({"error": {"type": "x", "message": "Too hot. " + "x" * 200_000}})),
}
MODELS: Any = [
    {"id": "enormous", "max_tokens": 10**30, "max_input_tokens": -1},
    {"id": "ok", "capabilities": ["vision"], "created_at": 1_700_000_000, "max_tokens": "many", "display_name": 5},
    {"id": "odder", "capabilities": {"thinking": [], "effort": True}, "created_at": "soon"},
    "no object",
]
COOKIES: list[str | None] = []


class Odd(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        is_stream = body.removeprefix(b"\xef\xbb\xbf").startswith(b"data:")
        self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"data": MODELS, "has_more": True}).encode())

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer(*ANSWERS[body["model"]])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def odd_upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def client(make_app: AppMaker, odd_upstream: str) -> FlaskClient:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": SECRET,
            "ANTHROPIC_API_BASE_URLS": odd_upstream,
            "ANTHROPIC_API_CONFIGS": '{"0": {"headers": {"x-team": "team-secret-1"}}}',
        }
    )
    return app.test_client()


def ask(client: FlaskClient, model: str, *, stream: bool = False, **fields: Any) -> Any:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 9,
        "stream": stream,
        **fields,
    }
    return client.post("/v1/chat/completions", json=asked, headers=CLIENT)


@pytest.mark.parametrize(
    ("model", "stream", "status", "code"),
    [
        ("echo-key", False, 503, "upstream_authentication_failed"),
        ("echo-header", False, 400, None),
        ("odd-request-id", False, 500, "internal_error"),
        ("openai", False, 502, "upstream_invalid_response"),
        ("no-content-type", False, 502, "upstream_invalid_response"),
        ("content-number", False, 502, "upstream_invalid_response"),
        ("usage-list", False, 502, "upstream_invalid_response"),
        ("stop-only", True, 502, "upstream_invalid_response"),
        ("start-without-message", True, 502, "upstream_invalid_response"),
        ("delta-without-index", True, 502, "upstream_invalid_response"),
        ("error-echo", True, 500, "internal_error"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_without_secrets(
    client: FlaskClient, model: str, stream: bool, status: int, code: str | None
) -> None:
    answer = ask(client, model, stream=stream)
    text = answer.text
    answer.close()
    error = answer.json["error"] if answer.is_json else orjson.loads(text.strip().rsplit("data: ", 1)[1])["error"]
    assert error["code"] == code
    assert answer.status_code in (status, 200 if stream else status)
    assert "[DONE]" not in text
    for secret in (SECRET, "team-secret-1"):
        assert secret not in text
        assert secret not in str(answer.headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "code", "words"),
    [("error-within-200", "overloaded", "come back later"), ("openai-error-within-200", "relay", "The relay is full")],
)
def test_an_error_within_a_200_keeps_its_words(
    client: FlaskClient, model: str, stream: bool, code: str, words: str
) -> None:
    answer = ask(client, model, stream=stream)
    assert answer.status_code >= 500
    assert answer.json["error"]["code"] == code
    assert words in answer.json["error"]["upstream"]["message"]


@pytest.mark.parametrize("model", ["done-line", "garbage-behind-the-end", "blank-data", "byte-order-mark"])
def test_a_stream_is_read_as_the_standard_has_it(client: FlaskClient, model: str) -> None:
    """Blank data is no event, nor is [DONE]; what stands behind the end of the message is not read."""
    answer = ask(client, model, stream=True)
    text = answer.text
    answer.close()
    assert '"content":"Hello"' in text
    assert '"finish_reason":"stop"' in text
    assert text.endswith("data: [DONE]\n\n")
    assert "error" not in text


def test_models_described_oddly_are_listed_and_used_all_the_same(client: FlaskClient) -> None:
    listed = client.get("/v1/models", headers=CLIENT).json
    assert listed is not None
    assert {m["id"] for m in listed["data"]} == {"ok", "odder", "enormous"}
    assert {m["created"] for m in listed["data"]} == {0}
    assert ask(client, "ok").json["choices"][0]["message"]["content"] == "ok"


def test_numbers_of_any_size_survive_in_arguments_both_ways(client: FlaskClient) -> None:
    call = ask(client, "big-number").json["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"account":12345678901234567890123}'
    history: list[Any] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": "y"},
    ]
    asked = {"model": "ok", "messages": history, "max_tokens": 9}
    assert client.post("/v1/chat/completions", json=asked, headers=CLIENT).status_code == 200


def test_a_model_name_of_any_length_is_not_taken(client: FlaskClient) -> None:
    answer = ask(client, "x" * 300)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "model")
    assert len(answer.data) < 400


def test_a_model_that_claims_to_write_without_end_is_one_of_which_nothing_is_known(client: FlaskClient) -> None:
    listed = client.get("/v1/models", headers=CLIENT).json
    assert listed is not None
    assert str(10**30)[:6] not in json.dumps(listed)
    assert ask(client, "enormous", max_tokens=None).status_code == 200


@pytest.mark.parametrize("model", ["nested", "nested-too-deep"])
def test_an_answer_that_is_nested_too_deep_says_so(client: FlaskClient, model: str) -> None:
    answer = ask(client, model)
    assert (answer.status_code, answer.json["error"]["code"]) == (502, "upstream_invalid_response")


def test_errors_of_an_upstreams_own_invention_are_counted_together(client: FlaskClient) -> None:
    for model in ("invented-error", "another-invented-error"):
        assert ask(client, model).status_code >= 400
    metrics = client.get("/metrics").text
    assert "dragoman_attempts_total" in metrics
    assert "of-my-own" not in metrics


class TestAnAnswerWithoutEnd:
    @pytest.fixture(autouse=True)
    def bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.upstream.transport._MOST_OF_AN_ANSWER", 100_000)
        monkeypatch.setattr("app.upstream.transport._MOST_OF_AN_ERROR", 10_000)

    def test_a_whole_one_is_given_up(self, client: FlaskClient) -> None:
        answer = ask(client, "long-answer")
        assert answer.status_code == 502, answer.text

    def test_a_stream_ends_with_an_error(self, client: FlaskClient) -> None:
        answer = ask(client, "long-stream", stream=True)
        text = answer.text
        answer.close()
        assert '"content":"Hello"' in text
        assert orjson.loads(text.strip().rsplit("data: ", 1)[1])["error"]["code"] == "upstream_disconnected"
        assert "[DONE]" not in text

    def test_of_an_error_the_beginning_is_read(self, client: FlaskClient) -> None:
        answer = ask(client, "long-error")
        assert answer.status_code == 400
        assert len(answer.data) < 12_000
