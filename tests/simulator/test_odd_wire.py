"""Headers, errors and streams as the edge and the API send them on a bad day."""

import json
import socket
import time

import anthropic
import pytest

from tests.simulator.test_wire import open_stream, read_until

BODY = {"model": "sim-text:tokens=5", "max_tokens": 99, "messages": [{"role": "user", "content": "Hello"}]}
END = b"0\r\n\r\n"


def unchunked(data):
    """The body of a raw answer with chunks."""
    rest, body = data.split(b"\r\n\r\n", 1)[1], b""
    while True:
        size, rest = rest.split(b"\r\n", 1)
        if not int(size, 16):
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def streamed(simulator, model):
    with open_stream(simulator, model, max_tokens=9999) as raw:
        return unchunked(read_until(raw, END))


# ----------------------------------------------------------------------------------------------------------- headers


def test_an_answer_has_the_headers_of_the_account_and_of_the_edge(simulator):
    one, other = (simulator.post(BODY, x_api_key=key)[1] for key in ("sk-ant-one", "sk-ant-two"))
    assert one["anthropic-workspace-id"].startswith("wrkspc_01")
    assert one["anthropic-workspace-id"] != other["anthropic-workspace-id"]
    assert one["cf-ray"] != other["cf-ray"]
    assert "_cfuvid=" in one["set-cookie"]
    assert one["server"] == "cloudflare"


def test_a_fault_lays_headers_over_any_answer_and_takes_some_off(simulator):
    laid = {"headers": {"Retry-After": "30", "cf-ray": None, "anthropic-ratelimit-unified-status": "allowed"}}
    simulator.fault("sk-ant-h", laid, times=3)
    for more in ({}, {"stream": True}, {"max_tokens": "many"}):
        _, headers, _ = simulator.post({**BODY, **more}, x_api_key="sk-ant-h")
        assert (headers["retry-after"], headers["anthropic-ratelimit-unified-status"]) == ("30", "allowed")
        assert headers["cf-ray"] is None
    assert simulator.post(BODY, x_api_key="sk-ant-h")[1]["retry-after"] is None


def test_an_answer_may_say_retry_after_though_it_is_one(simulator):
    status, headers, _ = simulator.post({**BODY, "model": "sim-retry-after-7"})
    assert (status, headers["retry-after"]) == (200, "7")


def test_limits_of_a_subscription_stand_in_the_headers_and_a_spent_one_refuses(simulator):
    simulator.policy("sk-ant-sub", unified="allowed_warning")
    _, headers, _ = simulator.post(BODY, x_api_key="sk-ant-sub")
    assert headers["anthropic-ratelimit-unified-status"] == "allowed_warning"
    assert headers["anthropic-ratelimit-requests-limit"] is None
    simulator.policy("sk-ant-sub", unified="rejected")
    status, headers, body = simulator.post(BODY, x_api_key="sk-ant-sub")
    assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
    assert headers["anthropic-ratelimit-unified-status"] == "rejected"
    assert int(headers["retry-after"]) > 60


# ------------------------------------------------------------------------------------------------------------ errors


def has_no_word_about_limits(headers):
    named = ("retry-after", "x-should-retry", "anthropic-ratelimit-", "anthropic-organization-")
    return not [name for name in headers if name.lower().startswith(named)]


def test_a_429_may_say_nothing_about_limits(simulator):
    simulator.fault("sk-ant-bare", {"status": 429, "bare": True}, times=1)
    for answer in (simulator.post({**BODY, "model": "sim-error-bare"}), simulator.post(BODY, x_api_key="sk-ant-bare")):
        assert answer[0] == 429
        assert has_no_word_about_limits(answer[1])
        assert answer[1]["request-id"]


@pytest.mark.parametrize(
    ("scenario", "status", "kind", "code"),
    [
        ("sim-error-spend-limit", 429, "rate_limit_error", "enforced_spend_limit_reached"),
        ("sim-error-contract-spend-limit-reached", 429, "rate_limit_error", "contract_spend_limit_reached"),
        (
            "sim-error-linked-organization-spend-limit-reached",
            402,
            "billing_error",
            "linked_organization_spend_limit_reached",
        ),
        ("sim-error-enforced-spend-limit-reached-400", 400, "invalid_request_error", "enforced_spend_limit_reached"),
        ("sim-error-organization-on-hold", 400, "invalid_request_error", "organization_on_hold"),
    ],
)
def test_trouble_with_the_account_is_told_by_its_code(simulator, scenario, status, kind, code):
    answered, _, body = simulator.post({**BODY, "model": scenario})
    error = json.loads(body)["error"]
    assert (answered, error["type"], error["details"]["error_code"]) == (status, kind, code)


def test_a_fault_may_say_code_and_type(simulator):
    fault = {"status": 429, "type": "billing_error", "error_code": "made_up", "message": "spend limit reached"}
    simulator.fault("sk-ant-coded", fault, times=1)
    body = simulator.messages(BODY, x_api_key="sk-ant-coded")[1]
    assert body["error"] == {
        "type": "billing_error",
        "message": "spend limit reached",
        "details": {"error_code": "made_up"},
    }


@pytest.mark.parametrize("status", [413, 502, 520])
def test_the_edge_answers_with_a_page(simulator, status):
    simulator.fault("sk-ant-page", {"status": status, "html": True}, times=1)
    for answer in (
        simulator.post({**BODY, "model": f"sim-error-html-{status}"}),
        simulator.post(BODY, x_api_key="sk-ant-page"),
    ):
        assert (answer[0], answer[1]["content-type"]) == (status, "text/html; charset=UTF-8")
        assert f"<h1>{status} ".encode() in answer[2]


def test_answers_may_be_no_answers_at_all(simulator):
    status, headers, body = simulator.post({**BODY, "model": "sim-error-redirect-307"})
    assert (status, headers["location"], body) == (307, "https://elsewhere.invalid/v1/messages", b"")
    assert simulator.post({**BODY, "model": "sim-error-empty"})[::2] == (200, b"")


@pytest.mark.parametrize(
    ("scenario", "stream", "content_type"),
    [("sim-json-for-stream", True, "application/json"), ("sim-stream-for-json", False, "text/event-stream")],
)
def test_an_answer_may_have_the_other_form(simulator, scenario, stream, content_type):
    _, headers, _ = simulator.post({**BODY, "model": scenario, "stream": stream})
    assert headers["content-type"].startswith(content_type)


def test_counting_has_faults_of_its_own(simulator):
    fault = {"status": 529, "path": "/v1/messages/count_tokens"}
    simulator.fault("sk-ant-count", fault, times=1)
    count = {"model": "sim-text", "messages": BODY["messages"]}
    statuses = [
        simulator.post(body, path, x_api_key="sk-ant-count")[0]
        for body, path in ((BODY, "/v1/messages"), *[(count, "/v1/messages/count_tokens")] * 2)
    ]
    assert statuses == [200, 529, 200]


# ----------------------------------------------------------------------------------------------------------- streams


def test_lines_may_end_in_CR_LF(simulator):
    plain, data = (streamed(simulator, model) for model in ("sim-text:tokens=5", "sim-text:tokens=5,crlf=1"))
    assert data.replace(b"\r\n", b"").count(b"\n") == 0
    assert b"event: ping\r\ndata: " in data
    assert data.count(b"\r\n") == plain.count(b"\n")


def test_the_blank_behind_the_name_of_a_field_may_be_missing(simulator):
    data = streamed(simulator, "sim-text:tokens=5,tight=1")
    assert b'event:message_stop\ndata:{"type"' in data
    assert b"event: " not in data
    assert b"data: " not in data


def test_the_sdk_reads_both(sdk):
    for model in ("sim-text:tokens=3,crlf=1,tight=1", "sim-comments"):
        with sdk.messages.stream(model=model, max_tokens=99, messages=BODY["messages"]) as stream:
            assert stream.get_final_text().startswith("w0 w1 w2")


def test_faults_alter_streams_of_any_model(simulator):
    simulator.fault("sk-ant-crlf", {"crlf": True, "tight": True}, times=1)
    _, _, data = simulator.post({**BODY, "model": "claude-opus-5-5", "stream": True}, x_api_key="sk-ant-crlf")
    assert b"event:message_stop\r\ndata:{" in data


def test_comments_stand_between_events(simulator):
    assert b"\n\n: still there\n\nevent: content_block_delta" in streamed(simulator, "sim-comments")


def test_an_event_may_have_two_megabytes(simulator):
    longest = max(map(len, streamed(simulator, "sim-huge-event").split(b"\n\n")))
    assert 2 * 1024 * 1024 < longest < 2 * 1024 * 1024 + 500


def test_pings_fill_a_silence(simulator):
    started = time.monotonic()
    data = streamed(simulator, "sim-text:tokens=2,gap_ms=400,ping_ms=100")
    assert time.monotonic() - started >= 0.8
    between = data[data.index(b'"text":"w0"') : data.index(b'"text":" w1"')]
    assert 2 <= between.count(b"event: ping") <= 4
    assert data.index(b"message_start") < data.index(b"ping")


def test_a_stream_may_end_inside_an_event(simulator):
    data = streamed(simulator, "sim-half-event-5")
    *whole, rest = data.split(b"\n\n")
    assert len(whole) == 5
    assert rest.startswith(b"event: content_block_delta\ndata: {")
    simulator.fault("sk-ant-half", {"eof_inside": 2}, times=1)
    _, _, data = simulator.post({**BODY, "stream": True}, x_api_key="sk-ant-half")
    assert data.count(b"\n\n") == 2
    assert not data.endswith(b"\n\n")


# ------------------------------------------------------------------------------------------------------------ probes


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/api/hello")])
def test_who_asks_whether_anybody_is_there_needs_no_key(simulator, method, path):
    status, _, body = simulator.fetch(method, path)
    assert (status, body) == (200, b"")


def test_a_refused_HEAD_has_no_body_that_the_next_answer_could_be_taken_for(simulator):
    with socket.create_connection(simulator.address, timeout=5) as raw:
        raw.sendall(b"HEAD /v1/models HTTP/1.1\r\nx-api-key: sk-ant-1\r\n\r\nGET /_sim/stats HTTP/1.1\r\n\r\n")
        data = read_until(raw, b'"last_aborts"')
    refused, answered, _ = data.split(b"\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert answered.startswith(b"HTTP/1.1 200 ")


def test_32_megabytes_are_read_to_their_end(simulator):
    limit = 32 * 1024 * 1024
    body = json.dumps({**BODY, "pad": ""}).encode()
    body = body.replace(b'"pad": ""', b'"pad": "' + b"x" * (limit - len(body)) + b'"')
    assert len(body) == limit
    status, _, answer = simulator.post(body)
    assert (status, json.loads(answer)["error"]["message"]) == (400, "pad: Extra inputs are not permitted")


def test_the_sdk_knows_the_error_by_its_code(sdk):
    with pytest.raises(anthropic.RateLimitError) as caught:
        sdk.messages.create(**{**BODY, "model": "sim-error-contract-spend-limit-reached"})
    assert type(caught.value).__name__ == "ContractSpendLimitReachedError"
