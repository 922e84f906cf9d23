"""Anthropic's own API at this gateway: what goes on as it came, where it goes, and what is refused in which words."""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from flask import Flask
from sqlalchemy import text

from app.storage import database
from tests.conftest import CLIENT, CLIENT_KEY, AppMaker
from tests.translate.messages.test_scan import EVENTS, START
from tests.upstream.raw import Asked, RawUpstream, of_events, raw_upstream

HELLO = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "claude-opus-5", "max_tokens": 9, "messages": HELLO}
USAGE = {"input_tokens": 1000, "output_tokens": 100, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
MESSAGE = orjson.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-20260101",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    }
)
KEYS = {"sk-ant-account-a": "a", "sk-ant-account-b": "b"}


def error(kind: str, message: str = "no", **more: Any) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"})


class Two:
    """Two accounts at one upstream, told apart by their keys."""

    def __init__(self, upstream: RawUpstream, app: Flask) -> None:
        self.upstream = upstream
        self.app = app
        self.answers: dict[str, Callable[[Asked], None]] = {}
        upstream.answer = self._answer

    def _answer(self, asked: Asked) -> None:
        if asked.line.startswith("GET"):
            asked.respond(orjson.dumps({"data": [], "has_more": False}))
            return
        self.answers.get(self.account(asked), lambda asked: asked.respond(MESSAGE, request_id="req_1"))(asked)

    @staticmethod
    def account(asked: Asked) -> str:
        return KEYS[asked.named("x-api-key")[0]]

    @property
    def asked(self) -> list[Asked]:
        return [asked for asked in self.upstream.asked if asked.line.startswith("POST")]

    def post(self, body: Any = None, path: str = "/v1/messages", headers: Any = CLIENT, **more: Any) -> Any:
        data = body if isinstance(body, bytes) else orjson.dumps(BODY if body is None else body)
        return self.app.test_client().post(path, data=data, headers=headers, **{"buffered": True, **more})

    def rows(self, columns: str) -> list[Any]:
        self.app.extensions["dragoman"].books.enter_all()
        return database.read(self.app, lambda s: [tuple(r) for r in s.execute(text(f"SELECT {columns} FROM requests"))])


@pytest.fixture
def make_two(make_app: AppMaker) -> Iterator[Callable[..., Two]]:
    with raw_upstream() as upstream:

        def make(**runtime: str) -> Two:
            settings = {
                "ENABLE_ANTHROPIC_API": "true",
                "ANTHROPIC_API_KEYS": ",".join(KEYS),
                "ANTHROPIC_API_BASE_URLS": upstream.url,
                "ANTHROPIC_API_CONFIGS": '{"0": {"name": "a", "priority": 0}, "1": {"name": "b", "priority": 1}}',
                "MODEL_ALIASES": '{"fast": "claude-haiku-4-5"}',
                **runtime,
            }
            return Two(upstream, make_app(runtime=settings, cors_allow_origins=("https://app.example",)))

        yield make


@pytest.fixture
def two(make_two: Callable[..., Two]) -> Two:
    return make_two()


def told(answer: Any) -> tuple[int, str]:
    body = orjson.loads(answer.data)
    assert body["type"] == "error"
    return answer.status_code, body["error"]["type"]


# ----------------------------------------------------------------------------------------------------------- the body


def test_the_body_goes_on_byte_for_byte(two: Two) -> None:
    raw = (
        b' {"x-new":1e3, "one":1.0,"big":123456789012345678901234567890,\t"e":"\\u00e9","twice":{"a":1,"a":2},\n'
        b'"model":"claude-opus-5","stream" :false,"messages":[{"role":"system","content":[]}],"max_tokens":5}\n'
    )
    answer = two.post(raw)
    assert (answer.status_code, answer.data) == (200, MESSAGE)
    assert two.asked[0].body == raw


@pytest.mark.parametrize(
    ("sent", "model"),
    [
        ("fast", "claude-haiku-4-5"),
        ("anthropic/claude-opus-5", "claude-opus-5"),
        ("claude-opus-4.6", "claude-opus-4-6"),
        ("claude-opus-5[1M][1m]", "claude-opus-5"),
        ("fast[1m]", "claude-haiku-4-5"),
        ("claude-new-9", "claude-new-9"),
    ],
)
def test_only_the_models_name_changes(two: Two, sent: str, model: str) -> None:
    raw = b'{"messages":[{"role":"user","content":"\\"model\\":\\"x\\""}],"model" :%b,"tools":[{"model":"x"}]}'
    assert two.post(raw % orjson.dumps(sent)).status_code == 200
    assert two.asked[0].body == raw % orjson.dumps(model)


def test_a_connections_prefix_is_taken_off(make_two: Callable[..., Two]) -> None:
    two = make_two(ANTHROPIC_API_CONFIGS='{"0": {"prefix_id": "west"}, "1": {"prefix_id": "east"}}')
    assert two.post({**BODY, "model": "east.claude-opus-5"}).status_code == 200
    assert (two.account(two.asked[0]), orjson.loads(two.asked[0].body)["model"]) == ("b", "claude-opus-5")


def test_fields_that_nobody_knows_yet_pass_both_ways(two: Two) -> None:
    body = {
        **BODY,
        "safeguards": [{"type": "x"}],
        "tools": [{"name": "f", "defer_loading": True, "eager_input_streaming": True}],
        "messages": [*HELLO, {"role": "system", "content": "now", "output_config": {"effort": "low"}}],
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc", "cache_control": {"ttl": "1h"}}],
    }
    answered = orjson.dumps({**orjson.loads(MESSAGE), "safeguard_results": [{"tool_use_id": "t"}]})
    two.answers["a"] = lambda asked: asked.respond(answered)
    assert two.post(body).data == answered
    assert orjson.loads(two.asked[0].body) == body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_compressed_body_goes_on_as_what_it_holds(two: Two, coding: str) -> None:
    raw = orjson.dumps(BODY)
    if coding == "zstd":
        pytest.importorskip("backports.zstd")
        from backports import zstd

        packed = zstd.compress(raw)
    else:
        packed = gzip.compress(raw) if coding == "gzip" else zlib.compress(raw)
    assert two.post(packed, headers={**CLIENT, "content-encoding": coding}).status_code == 200
    assert two.asked[0].body == raw
    assert two.asked[0].named("content-encoding") == []


# --------------------------------------------------------------------------------------------------------- the headers

PASSED_ON = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,new-2027-01-01",
    "anthropic-foo": "canary-0",
    "user-agent": "claude-cli/2.1.332 (external, sdk-cli)",
    "x-app": "cli",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "1",
    "x-claude-code-session-id": "s",
    "x-claude-code-foo": "f",
    "x-client-request-id": "c",
    "accept": "application/json",
}
KEPT_BACK = (
    *("cookie", "proxy-authorization", "te", "trailer", "upgrade", "forwarded", "x-forwarded-for", "via", "x-real-ip"),
    *("origin", "referer", "sec-fetch-mode", "traceparent", "tracestate", "baggage", "x-gateway-tag", "x-sim-scenario"),
    *("anthropic-workspace-id", "anthropic-organization-id", "anthropic-dangerous-direct-browser-access", "x-unknown"),
)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_clients_say_of_themselves_goes_on_and_nothing_else(two: Two, path: str, stream: bool) -> None:
    canaries = {name: f"canary-{name}" for name in KEPT_BACK}
    headers = {**CLIENT, **PASSED_ON, **canaries, "connection": "x-app-not"}
    two.post({**BODY, "stream": stream}, f"{path}?beta=true&canary-query=canary-query", headers)
    asked = two.asked[0]
    got = {name.lower(): value for name, value in asked.headers}
    assert {name: got.get(name) for name in PASSED_ON} == PASSED_ON
    told = repr((asked.line, asked.headers))
    assert asked.line == f"POST {path}?beta=true HTTP/1.1"
    assert [name for name in KEPT_BACK if f"canary-{name}" in told] == []
    assert CLIENT_KEY not in told
    assert "canary-query" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("anthropic-foo", "\xe4"), ("x-app", "a" * 8193), ("anthropic-user-profile-id", "up_1")],
)
def test_a_header_that_may_not_go_on_is_refused_by_its_name_alone(two: Two, name: str, value: str) -> None:
    answer = two.post(headers={**CLIENT, name: value})
    assert told(answer) == (400, "invalid_request_error")
    assert name in answer.text
    assert value not in answer.text
    assert two.asked == []


def test_more_headers_than_anybody_sends_are_refused(two: Two) -> None:
    assert told(two.post(headers={**CLIENT, **{f"anthropic-{n}": "x" for n in range(65)}}))[0] == 400


def test_what_comes_back_is_anthropics_but_for_what_tells_of_the_account(two: Two) -> None:
    passed: dict[str, Any] = {
        "request-id": "req_9",
        "retry-after": "3",
        "anthropic-ratelimit-unified-status": "allowed_warning",
    }
    kept: dict[str, Any] = {
        "anthropic-organization-id": "org-1",
        "set-cookie": "a=b",
        "cf-ray": "x",
        "server": "edge",
        "via": "x",
    }
    two.answers["a"] = lambda asked: asked.respond(MESSAGE, **passed, **kept)
    answer = two.post()
    assert {name: answer.headers.get(name) for name in passed} == passed
    assert [name for name in kept if name in answer.headers] == []
    assert answer.headers["x-gateway-request-id"].startswith("req_gw_")
    assert answer.headers["x-gateway-request-cost"] == str(1000 * 5 + 100 * 25)
    assert two.post().status_code == 200, "a wait that a good answer names takes nothing out"


# ----------------------------------------------------------------------------------------------------- who may do what


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {CLIENT_KEY}"}, 200),
        ({"x-api-key": CLIENT_KEY}, 200),
        ({"x-api-key": CLIENT_KEY, "authorization": f"Bearer {CLIENT_KEY}"}, 200),
        ({"x-api-key": "sk-dgm-one", "authorization": "Bearer sk-dgm-two"}, 401),
        ({"authorization": f"Bearer {CLIENT_KEY}, Bearer {CLIENT_KEY}"}, 401),
        ({"authorization": "Bearer sk-ant-oat01-abc"}, 401),
        ({"x-api-key": "sk-ant-api03-abc"}, 401),
        ({}, 401),
    ],
)
def test_a_key_of_the_gateways_is_taken_from_either_header(two: Two, headers: Any, status: int) -> None:
    answer = two.post(headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert told(answer) == (401, "authentication_error")
        assert two.asked == []
        assert ("ANTHROPIC_AUTH_TOKEN" in answer.text) == ("oat" in str(headers))
    else:
        assert two.asked[0].named("x-api-key") == ["sk-ant-account-a"]
        assert two.asked[0].named("authorization") == []


def test_of_two_keys_the_gateways_own_counts(two: Two) -> None:
    ring = two.app.extensions["dragoman"].keys
    with two.app.app_context():
        _, secret = ring.create(name="mine", who="a test")
    answer = two.post(headers={"authorization": "Bearer sk-ant-oat01-mine", "x-api-key": secret})
    assert answer.status_code == 200


@pytest.fixture
def listed(two: Two) -> dict[str, str]:
    """Of a key that may use one model and one alias."""
    with two.app.app_context():
        ring = two.app.extensions["dragoman"].keys
        _, secret = ring.create(name="listed", who="a test", models=("claude-opus-5", "fast"))
    return {"x-api-key": secret}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"model": "fast"}, 200),
        ({"model": "claude-sonnet-5"}, 404),
        ({"fallbacks": "default"}, 200),
        ({"fallbacks": [{"model": "claude-opus-5"}]}, 200),
        ({"fallbacks": [{"model": "claude-sonnet-5"}]}, 404),
        ({"tools": [{"type": "advisor_20260301", "model": "claude-sonnet-5"}]}, 404),
    ],
)
def test_a_keys_list_holds_for_each_model_that_a_body_names(
    two: Two, listed: dict[str, str], fields: Any, status: int
) -> None:
    answer = two.post({**BODY, **fields}, headers=listed)
    assert answer.status_code == status
    if status == 404:
        assert told(answer) == (404, "not_found_error")
        assert orjson.loads(answer.data)["error"]["message"].startswith("model: claude-sonnet-5")
        assert two.asked == []
        assert two.post({**BODY, **fields}).status_code == 200, "a key without a list"


def test_a_name_that_stands_twice_shows_a_keys_list_nothing_else_than_anthropic(
    two: Two, listed: dict[str, str]
) -> None:
    twice = b'{"model":"claude-sonnet-5","max_tokens":1,"messages":[],"model":"claude-opus-5"}'
    assert told(two.post(twice))[0] == told(two.post(twice, headers=listed))[0] == 400
    nested = (
        b'{"model":"claude-opus-5","fallbacks":[{"model":"claude-sonnet-5","model":"claude-opus-5"}],"messages":[]}'
    )
    assert told(two.post(nested, headers=listed))[0] == 400
    assert two.asked == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"mcp_servers": [{"url": "https://x.example"}]},
        {"container": "c"},
        {"messages": [{"role": "user", "content": [{"source": {"type": "file", "file_id": "f"}}]}]},
    ],
)
def test_what_runs_or_lies_at_anthropic_can_be_switched_off(make_two: Callable[..., Two], fields: Any) -> None:
    two = make_two(SERVER_TOOLS="false")
    assert told(two.post({**BODY, **fields})) == (403, "permission_error")
    assert two.asked == []
    assert two.post({**BODY, "tools": [{"name": "mine", "input_schema": {}}]}).status_code == 200


@pytest.mark.parametrize("field", ["web_search_options", "tools"])
def test_it_is_switched_off_for_chat_as_well(make_two: Callable[..., Two], field: str) -> None:
    two = make_two(SERVER_TOOLS="false")
    value: Any = {} if field == "web_search_options" else [{"type": "web_search"}]
    answer = two.post({**BODY, field: value}, "/v1/chat/completions")
    assert answer.status_code == 403
    assert orjson.loads(answer.data)["error"]["code"] == "server_tools_refused"
    assert two.post(BODY, "/v1/chat/completions").status_code == 200


# ------------------------------------------------------------------------------------------------------------ failover


def failing(status: int, body: bytes, **headers: str) -> Callable[[Asked], None]:
    return lambda asked: asked.respond(body, status, **headers)


def said_by(answer: Callable[[Asked], None]) -> tuple[bytes, int]:
    """(body, status)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer(Asked("", [], b"", ours))
        said = theirs.recv(65536)
    return said.partition(b"\r\n\r\n")[2], int(said[9:12])


def breaking(asked: Asked) -> None:
    asked.socket.shutdown(socket.SHUT_RDWR)


MOVES_ON = {
    "529": failing(529, error("overloaded_error")),
    "500": failing(500, error("api_error")),
    "429": failing(429, error("rate_limit_error"), retry_after="7"),
    "bare 429": failing(429, error("rate_limit_error")),
    "401": failing(401, error("authentication_error")),
    "402": failing(402, error("billing_error")),
    "spend limit": failing(429, error("rate_limit_error", error_code="organization_spend_limit_reached")),
    "low credit": failing(400, error("invalid_request_error", "Your credit balance is too low to access the API")),
    "HTML": failing(200, b"<html>", kind="text/html"),
    "edge": failing(522, b"<html>", kind="text/html"),
    "broken": breaking,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("failure", MOVES_ON)
def test_what_another_account_can_answer_is_answered_by_it_with_the_same_bytes(
    two: Two, failure: str, stream: bool
) -> None:
    two.answers["a"] = MOVES_ON[failure]
    data = of_events(*EVENTS)
    if stream:

        def streamed(asked: Asked) -> None:
            asked.begin()
            asked.chunk(data)
            asked.end()

        two.answers["b"] = streamed
    answer = two.post({**BODY, "stream": stream})
    assert (answer.status_code, answer.data) == (200, data if stream else MESSAGE)
    assert [two.account(asked) for asked in two.asked] == ["a", "b"]
    assert len({asked.body for asked in two.asked}) == 1
    assert two.rows("attempts, status, ending") == [(2, 200, "complete")]


STAYS = {
    "too long": failing(400, error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")),
    "context": failing(
        400, error("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 3")
    ),
    "signature": failing(400, error("invalid_request_error", "messages.1.content.0: Invalid `signature`")),
    "capability": failing(400, error("invalid_request_error", "capability_rejected: x", error_code="y")),
    "beta": failing(400, error("invalid_request_error", "Unexpected value(s) `x` for the `anthropic-beta` header")),
    "old": failing(400, error("invalid_request_error", error_code="claude_code_version_too_old")),
    "404": failing(404, error("not_found_error", "model: claude-opus-5")),
    "403 of a model": failing(403, error("permission_error", "this model is not for you")),
    "413": failing(413, error("request_too_large")),
    "422": failing(422, error("invalid_request_error")),
    "409": failing(409, error("conflict_error")),
}


@pytest.mark.parametrize("failure", STAYS)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_what_anthropic_says_of_the_request_comes_back_byte_for_byte(two: Two, failure: str, path: str) -> None:
    two.answers["a"] = two.answers["b"] = STAYS[failure]
    answer: Any = two.post(path=path)
    assert (answer.data, answer.status_code) == said_by(STAYS[failure])
    assert len(two.asked) == 1
    two.answers.clear()
    assert two.post().status_code == 200, "nothing was learned"


@pytest.mark.parametrize("failure", ["529", "500", "429", "402", "spend limit", "low credit"])
def test_where_all_accounts_answer_alike_the_last_answer_comes_back(two: Two, failure: str) -> None:
    two.answers["a"] = two.answers["b"] = MOVES_ON[failure]
    answer: Any = two.post()
    assert (answer.data, answer.status_code) == said_by(MOVES_ON[failure])
    assert len(two.asked) == 2
    if failure == "429":
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("first", "second", "status", "kind"),
    [
        ("529", "429", 429, "rate_limit_error"),
        ("429", "529", 429, "rate_limit_error"),
        ("500", "529", 529, "overloaded_error"),
        ("401", "500", 500, "api_error"),
        ("broken", "529", 529, "overloaded_error"),
        ("401", "401", 503, "api_error"),
        ("broken", "broken", 503, "api_error"),
        ("edge", "edge", 502, "api_error"),
        ("HTML", "HTML", 502, "api_error"),
    ],
)
def test_of_several_failures_the_client_is_told_one(two: Two, first: str, second: str, status: int, kind: str) -> None:
    two.answers["a"], two.answers["b"] = MOVES_ON[first], MOVES_ON[second]
    answer = two.post()
    assert told(answer) == (status, kind)
    if first == "401" == second:
        assert answer.headers["x-should-retry"] == "false", "a 401 would send its user to sign in"
    assert not set(KEYS) & {word for key in KEYS for word in [key] if key in answer.text}


def test_a_wait_that_anthropic_names_is_told_as_it_is_and_one_of_ours_is_never_longer_than_a_minute(two: Two) -> None:
    two.answers["a"] = two.answers["b"] = failing(429, error("rate_limit_error"), retry_after="300")
    first = two.post()
    assert (told(first), first.headers["retry-after"]) == ((429, "rate_limit_error"), "300")
    asked = len(two.asked)
    second = two.post()
    assert len(two.asked) == asked, "both are known to be at their limit"
    assert (told(second), second.headers["retry-after"]) == ((429, "rate_limit_error"), "60")


def test_what_only_one_account_knows_goes_to_that_one_alone(two: Two) -> None:
    two.answers["a"] = MOVES_ON["529"]
    for fields in ({"container": "c"}, {"fallback_credit_token": "t"}):
        assert told(two.post({**BODY, **fields})) == (529, "overloaded_error")
    assert {two.account(asked) for asked in two.asked} == {"a"}


# ------------------------------------------------------------------------------------------------------------ affinity


def accounts(two: Two, *requests: tuple[Any, Any]) -> list[str]:
    start = len(two.asked)
    for fields, headers in requests:
        assert two.post({**BODY, **fields}, headers={**CLIENT, **headers}).status_code == 200
    return [two.account(asked) for asked in two.asked[start:]]


def test_a_session_stays_with_its_account_whatever_becomes_of_its_messages(make_two: Callable[..., Two]) -> None:
    two = make_two(ANTHROPIC_API_CONFIGS="{}")
    spread = set()
    for number in range(24):
        session = {"x-claude-code-session-id": f"session-{number}"}
        compacted = {"messages": [{"role": "user", "content": f"summary {number}"}], "model": "fast"}
        user = {"metadata": {"user_id": f"user-{number}"}}
        by_session = accounts(two, ({}, session), (compacted, session), (user, session))
        by_user = accounts(two, (user, {}), ({**user, **compacted}, {}))
        assert len(set(by_session)) == len(set(by_user)) == 1
        spread |= {by_session[0], by_user[0]}
    assert spread == {"a", "b"}


# ------------------------------------------------------------------------------------------------------------- streams


def stream(two: Two, *pieces: bytes, waits: threading.Event | None = None) -> None:
    def answer(asked: Asked) -> None:
        asked.begin(request_id="req_7")
        for piece in pieces:
            asked.chunk(piece)
            if waits is not None:
                waits.wait(10)
        asked.end()

    two.answers["a"] = two.answers["b"] = answer


def test_a_stream_is_the_same_bytes_and_is_booked_before_it_ends(two: Two) -> None:
    data = of_events(*EVENTS)
    stream(two, data[:200], data[200:])
    answer = two.post({**BODY, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.headers["request-id"], answer.headers["cache-control"]) == ("req_7", "no-cache")
    assert answer.data == data
    columns = (
        "model, stream, status, ending, input_tokens, cache_write_5m_tokens, output_tokens, searches, upstream_ids"
    )
    assert two.rows(columns) == [("m", 1, 200, "complete", 12, 7, 90, 2, "msg_1")]


def test_a_stream_that_breaks_off_ends_with_an_error_of_anthropics_shape(two: Two) -> None:
    begun = of_events(*EVENTS[:5])
    stream(two, begun, b"event: content_block_de")
    answer = two.post({**BODY, "stream": True})
    passed, _, last = answer.data.removeprefix(begun).rpartition(b"data: ")
    assert passed == b"event: error\n"
    event = orjson.loads(last)
    assert (event["type"], event["error"]["type"]) == ("error", "api_error")
    assert event["request_id"] == answer.headers["x-gateway-request-id"]
    assert of_events(EVENTS[-1]) not in answer.data
    assert two.rows("ending, input_tokens") == [("upstream_cut", 12)]


def test_an_error_of_anthropics_within_a_stream_is_its_last_event_as_it_is(two: Two) -> None:
    begun, failed = (
        of_events(*EVENTS[:5]),
        b'event: error\ndata: {"type":"error", "error":{"type":"overloaded_error"}}\n\n',
    )
    goes_on = threading.Event()
    stream(two, begun, failed + of_events(EVENTS[-1]), waits=goes_on)
    answer = two.app.test_client().post("/v1/messages", json={**BODY, "stream": True}, headers=CLIENT)
    frames = answer.iter_encoded()
    assert next(frames) == begun
    goes_on.set()
    assert next(frames).startswith(failed)
    assert [*frames] == []
    answer.close()
    assert two.rows("ending, status") == [("upstream_error", 200)]


def test_an_answer_in_one_piece_to_whom_wanted_a_stream_passes_and_a_stream_to_whom_did_not(two: Two) -> None:
    assert two.post({**BODY, "stream": True}).data == MESSAGE
    stream(two, of_events(*EVENTS))
    assert two.post().data == of_events(*EVENTS)


# ----------------------------------------------------------------------------------------------- count_tokens, refusals


def test_tokens_are_counted_without_a_row_in_the_books(two: Two) -> None:
    two.answers["a"] = lambda asked: asked.respond(b'{"input_tokens": 14}', request_id="req_5")
    answer = two.post(path="/v1/messages/count_tokens?beta=true")
    assert (answer.status_code, answer.data) == (200, b'{"input_tokens": 14}')
    assert "x-gateway-request-cost" not in answer.headers
    two.answers["a"] = MOVES_ON["529"]
    two.answers["b"] = lambda asked: asked.respond(b'{"input_tokens": 15}')
    assert two.post(path="/v1/messages/count_tokens").data == b'{"input_tokens": 15}'
    assert two.rows("id") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "kind", "code"),
    [
        ("POST", "/v1/messages", b"{no", CLIENT, 400, "invalid_request_error", "gateway_bad_request"),
        ("POST", "/v1/messages", b"[]", CLIENT, 400, "invalid_request_error", "gateway_bad_request"),
        ("POST", "/v1/messages", b"{}", CLIENT, 400, "invalid_request_error", "gateway_bad_request"),
        ("POST", "/v1/messages", b"\xff", CLIENT, 400, "invalid_request_error", "gateway_bad_request"),
        ("POST", "/v1/messages", b"{}", {}, 401, "authentication_error", None),
        (*("POST", "/v1/messages", b"x", {**CLIENT, "content-encoding": "br"}, 415), "invalid_request_error", None),
        ("GET", "/v1/messages", b"", CLIENT, 405, "invalid_request_error", "gateway_method_not_allowed"),
        ("POST", "/v1/messages/batches", b"{}", CLIENT, 404, "not_found_error", "gateway_route_not_served"),
        ("POST", "/v1/messages/../files", b"{}", CLIENT, 404, "not_found_error", "gateway_route_not_served"),
        ("POST", "/v1/v1/messages", b"{}", {**CLIENT, "anthropic-version": "x"}, 404, "not_found_error", None),
        ("GET", "/v1/files", b"", {**CLIENT, "anthropic-version": "x"}, 404, "not_found_error", None),
        ("POST", "/api/event_logging/batch", b"{}", {}, 404, "not_found_error", "gateway_route_not_served"),
        ("GET", "/v1/models?limit=0", b"", CLIENT, 400, "invalid_request_error", "gateway_bad_request"),
        ("GET", "/v1/models/nope", b"", {**CLIENT, "anthropic-version": "x"}, 404, "not_found_error", None),
    ],
)
def test_every_refusal_has_anthropics_shape(
    two: Two, method: str, path: str, body: bytes, headers: Any, status: int, kind: str, code: str | None
) -> None:
    answer = two.app.test_client().open(path, method=method, data=body, headers=headers)
    assert told(answer) == (status, kind)
    said = orjson.loads(answer.data)
    assert said["request_id"] == answer.headers["request-id"] == answer.headers["x-gateway-request-id"]
    if code is not None:
        assert said["error"]["details"]["error_code"] == code
    assert [asked.line for asked in two.asked] == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/nothing", "/v1/completions", "/models"])
def test_openais_clients_are_told_in_openais_shape(two: Two, path: str) -> None:
    answer = two.app.test_client().post(path, data=b"{no", headers={"x-api-key": "wrong"})
    assert set(orjson.loads(answer.data)) == {"error"}


def test_without_a_connection_the_refusal_says_so_and_is_not_asked_again(make_app: AppMaker) -> None:
    app = make_app(runtime={"ENABLE_ANTHROPIC_API": "false"})
    answer = app.test_client().post("/v1/messages", json=BODY, headers=CLIENT)
    assert told(answer) == (503, "api_error")
    assert answer.headers["x-should-retry"] == "false"


def test_a_body_above_the_limit_is_refused_with_the_limit(make_app: AppMaker) -> None:
    app = make_app(max_body_bytes=1000)
    answer = app.test_client().post("/v1/messages", data=b" " * 1001, headers=CLIENT)
    assert told(answer) == (413, "request_too_large")
    assert "1000 bytes" in answer.text


def test_whoever_set_the_wrong_base_url_is_told_the_right_one(two: Two) -> None:
    for path, base in (("/v1/v1/messages", "http://localhost, "), ("/messages", "http://localhost/v1: ")):
        answer = two.post(path=path)
        assert answer.status_code == 404
        assert f"base URL of this client is {base}" in answer.text


# --------------------------------------------------------------------------------------------------- probes and models


def test_probes_are_answered_without_a_key_and_leave_no_line_in_the_log(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    client = two.app.test_client()
    with caplog.at_level("INFO", "app.serve.access_log"):
        probes = [("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/api/hello"), ("POST", "/api/event_logging/batch")]
        statuses = [client.open(path, method=method).status_code for method, path in probes]
    assert statuses == [200, 200, 200, 404]
    assert caplog.records == []
    assert client.get("/").status_code == 302


def pages(two: Two, query: str = "", **headers: str) -> dict[str, Any]:
    answer = two.app.test_client().get(f"/v1/models{query}", headers={**CLIENT, **headers})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = orjson.loads(answer.data)
    return found


def test_models_come_page_by_page(two: Two) -> None:
    whole = pages(two, "?limit=1000")
    ids = [model["id"] for model in whole["data"]]
    assert (whole["has_more"], whole["first_id"], whole["last_id"]) == (False, ids[0], ids[-1])
    seen, query = [], "?limit=1"
    while True:
        page = pages(two, query)
        seen += [model["id"] for model in page["data"]]
        if not page["has_more"]:
            break
        query = f"?limit=1&after_id={page['last_id']}"
    assert seen == ids
    before = pages(two, f"?limit=2&before_id={ids[4]}")
    assert ([model["id"] for model in before["data"]], before["has_more"]) == (ids[2:4], True)
    assert len(pages(two, **{"anthropic-version": "2023-06-01"})["data"]) == min(20, len(ids))


@pytest.mark.parametrize("agent", ["claude-code/2.1.332", "claude-cli/2.1.332 (external, cli)"])
def test_an_agent_that_names_no_version_gets_anthropics_list(two: Two, agent: str) -> None:
    assert pages(two, **{"user-agent": agent})["data"][0]["type"] == "model"
    openais = pages(two)
    assert openais["object"] == "list"
    assert all(model["display_name"] for model in openais["data"])


def test_an_alias_is_listed_with_the_name_of_what_it_stands_for(two: Two) -> None:
    names = {model["id"]: model["display_name"] for model in pages(two, "?limit=1000")["data"]}
    assert names["fast"] == f"fast ({names['claude-haiku-4-5-20251001']})"


def test_the_list_obeys_the_keys(two: Two, listed: dict[str, str]) -> None:
    answer = two.app.test_client().get("/v1/models?limit=1000", headers=listed)
    assert [model["id"] for model in orjson.loads(answer.data)["data"]] == ["claude-opus-5", "fast"]


def test_a_page_in_a_browser_may_read_what_sdks_look_for(two: Two) -> None:
    two.answers["a"] = lambda asked: asked.respond(MESSAGE, request_id="req_1", anthropic_ratelimit_tokens_limit="5")
    answer = two.post(headers={**CLIENT, "origin": "https://app.example"})
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"request-id", "anthropic-ratelimit-tokens-limit", "x-gateway-request-id"} <= {e.lower() for e in exposed}


def test_an_upstream_that_begins_and_fails_at_once_is_left_for_another(two: Two) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    def answer(asked: Asked) -> None:
        asked.begin()
        asked.chunk(of_events(START, overloaded))
        asked.end()

    two.answers["a"] = answer
    answered = two.post({**BODY, "stream": True})
    assert answered.data == MESSAGE
    assert two.rows("attempts") == [(2,)]
