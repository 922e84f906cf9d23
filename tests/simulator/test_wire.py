"""Faults, broken answers, clients that leave, and HTTP itself."""

import json
import socket
import time

import anthropic
import pytest

from tests.conftest import wait_for

HELLO = [{"role": "user", "content": "Hello"}]
BODY = {"model": "sim-text", "max_tokens": 99, "messages": HELLO}


def open_stream(simulator, model, stream=True, betas="", **more):
    """A raw socket that has sent a request."""
    body = json.dumps({**BODY, "model": model, "stream": stream, **more})
    raw = socket.create_connection(simulator.address, timeout=5)
    raw.sendall(
        b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: sk-ant-raw\r\nanthropic-version: 2023-06-01\r\n"
        b"anthropic-beta: %s\r\ncontent-length: %d\r\n\r\n%s" % (betas.encode(), len(body), body.encode())
    )
    return raw


def read_until(raw, mark):
    data = b""
    while mark not in data:
        piece = raw.recv(65536)
        if not piece:
            return data
        data += piece
    return data


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", ["sim-cut-6", "sim-half-close-6", "sim-reset"])
def test_a_broken_connection_is_a_transport_error(simulator, scenario, stream):
    with simulator.sdk() as client, pytest.raises(Exception) as caught:
        answer = client.messages.create(model=scenario, max_tokens=99, messages=HELLO, stream=stream)
        list(answer)
    assert isinstance(caught.value, anthropic.APIConnectionError) or "httpx2" in type(caught.value).__module__
    assert simulator.last_request()["ended"] in ("error", "aborted by client")


def test_a_stream_that_ends_early_has_no_message_stop(sdk):
    events = list(sdk.messages.create(model="sim-eof-6", max_tokens=99, messages=HELLO, stream=True))
    assert len(events) == 6 - 1  # the ping is the SDK's own business
    assert events[-1].type == "content_block_delta"


def test_a_stall_says_nothing_and_pings_say_nothing_new(simulator):
    with open_stream(simulator, "sim-stall-4") as raw:
        read_until(raw, b"w0")
        raw.settimeout(0.3)
        with pytest.raises(TimeoutError):
            raw.recv(1)
    with open_stream(simulator, "sim-stall-pings") as raw:
        read_until(raw, b"ping")
        assert b"event: ping" in read_until(raw, b"event: ping")


def test_garbage_is_not_json(simulator):
    with open_stream(simulator, "sim-garbage") as raw:
        assert b'data: {"type": "content_bl\n\n' in read_until(raw, b"0\r\n\r\n")


def test_slow_headers_are_slow(simulator):
    started = time.monotonic()
    with open_stream(simulator, "sim-slow-headers:delay_ms=300") as raw:
        read_until(raw, b"\r\n\r\n")
    assert 0.3 <= time.monotonic() - started < 2


def test_chunks_are_torn_inside_characters_and_line_ends(simulator):
    with open_stream(simulator, "sim-unicode") as raw:
        data = read_until(raw, b"\r\n0\r\n\r\n")
    body = data.split(b"\r\n\r\n", 1)[1]
    with pytest.raises(UnicodeDecodeError):
        body.decode()


@pytest.mark.parametrize(
    ("model", "stream", "mark"),
    [
        ("sim-slow-headers-9", True, b""),
        ("sim-text:ttft_ms=9000", True, b"\r\n\r\n"),
        ("sim-text:ttft_ms=9000", False, b""),
        ("sim-text:gap_ms=50", True, b"w3"),
        ("sim-stall-4", True, b"w0"),
        ("sim-stall", False, b""),
        ("sim-stall-pings", True, b"ping"),
        ("sim-big:tokens=100000", True, b"000"),
    ],
)
def test_a_client_that_leaves_is_noticed_at_once_in_every_phase(simulator, model, stream, mark):
    raw = open_stream(simulator, model, stream, max_tokens=128_000)
    if mark:
        read_until(raw, mark)
    else:  # nothing is written yet: it is under way when the journal has it
        wait_for(lambda: [e for e in simulator.call("GET", "/_sim/requests")[1]["requests"][-1:] if not e["ended"]])
    left = time.time()
    raw.close()
    entry = simulator.last_request()
    assert entry["ended"] == "aborted by client"
    assert entry["time"] + entry["seconds"] - left < 0.5


def test_counters_tell_what_is_live(simulator):
    before = simulator.call("GET", "/_sim/stats")[1]
    with open_stream(simulator, "sim-stall-4") as raw:
        read_until(raw, b"w0")
        live = simulator.call("GET", "/_sim/stats")[1]
    simulator.last_request()
    after = simulator.call("GET", "/_sim/stats")[1]
    assert (live["live"], after["live"]) == (before["live"] + 1, before["live"])
    assert (after["requests"], after["aborted_by_client"]) == (before["requests"] + 1, before["aborted_by_client"] + 1)


def test_the_journal_holds_what_was_sent(simulator):
    simulator.call("DELETE", "/_sim/requests")
    simulator.messages(BODY, x_api_key="sk-ant-journal", x_custom="1")
    entry = simulator.last_request()
    assert (entry["method"], entry["path"], entry["body"], entry["key"]) == (
        "POST",
        "/v1/messages",
        BODY,
        "sk-ant-journal",
    )
    assert (entry["status"], entry["ended"], entry["headers"]["x-custom"]) == (200, "finished", "1")


# ----------------------------------------------------------------------------------------------------- faults by key


@pytest.mark.parametrize(
    ("key", "status", "kind"),
    [
        ("sk-ant-invalid-1", 401, "authentication_error"),
        ("sk-ant-forbidden-1", 403, "permission_error"),
        ("sk-ant-broke-1", 400, "invalid_request_error"),
        ("something-else", 401, "authentication_error"),
    ],
)
def test_some_keys_fail(simulator, key, status, kind):
    answered, body = simulator.messages(BODY, x_api_key=key)
    assert (answered, body["error"]["type"]) == (status, kind)


def test_exactly_one_credential_is_needed(simulator):
    assert simulator.call("POST", "/v1/messages", BODY)[1]["error"]["message"] == "x-api-key header is required"
    both = {"x-api-key": "sk-ant-1", "authorization": "Bearer sk-ant-1"}
    assert simulator.call("POST", "/v1/messages", BODY, both)[0] == 401
    assert simulator.messages(BODY, authorization="Bearer sk-ant-1")[0] == 200


def test_a_fault_hits_its_key_as_often_as_ordered(simulator):
    simulator.fault("sk-ant-a", {"status": 429, "retry_after": 30}, times=2)
    statuses = [simulator.messages(BODY, x_api_key="sk-ant-a")[0] for _ in range(3)]
    assert statuses == [429, 429, 200]
    assert simulator.messages(BODY, x_api_key="sk-ant-b")[0] == 200


def test_a_fault_can_be_lifted_and_can_hit_everybody(simulator):
    simulator.fault("*", {"status": 529})
    try:
        assert simulator.messages(BODY, x_api_key="sk-ant-c")[0] == 529
    finally:
        simulator.fault("*", None)
    assert simulator.messages(BODY, x_api_key="sk-ant-c")[0] == 200


def test_retry_after_stands_in_the_header(simulator):
    simulator.fault("sk-ant-d", {"status": 429, "retry_after": 30}, times=1)
    with simulator.sdk("sk-ant-d") as client, pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**BODY)
    assert caught.value.response.headers["retry-after"] == "30"


def test_faults_can_cut_stall_delay_and_reset(simulator):
    with simulator.sdk("sk-ant-e", timeout=0.3) as client:
        for fault in ({"cut_after": 4}, {"stall": True}, {"reset": True}, {"delay_s": 1}):
            simulator.fault("sk-ant-e", fault, times=1)
            with pytest.raises(Exception) as caught:
                list(client.messages.create(**BODY, stream=True))
            assert isinstance(caught.value, anthropic.APIConnectionError) or "httpx2" in type(caught.value).__module__
        assert list(client.messages.create(**BODY, stream=True))


def test_a_fault_may_say_what_the_error_says(simulator):
    said = "Invalid `signature` in `thinking` block"
    simulator.fault("sk-ant-f", {"status": 400, "message": said}, times=1)
    status, body = simulator.messages(BODY, x_api_key="sk-ant-f")
    assert (status, body["error"]) == (400, {"type": "invalid_request_error", "message": said})
    assert simulator.last_request()["body"] == BODY
    assert simulator.messages(BODY, x_api_key="sk-ant-f")[0] == 200


@pytest.mark.parametrize("fault", [{"explode": True}, {"message": "without a status"}, {"status": 400, "message": 5}])
def test_an_unknown_fault_is_refused(simulator, fault):
    assert simulator.call("POST", "/_sim/faults", {"key": "*", "fault": fault})[0] == 400


# -------------------------------------------------------------------------------------------------------------- HTTP


def test_a_connection_serves_many_requests(simulator):
    connection = simulator.connect()
    headers = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}
    for stream in (True, False, True):
        connection.request("POST", "/v1/messages", json.dumps({**BODY, "stream": stream}), headers)
        response = connection.getresponse()
        assert response.status == 200
        assert b"w59" in response.read()
    connection.close()


def test_a_body_may_come_in_chunks(simulator):
    connection = simulator.connect()
    headers = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}
    data = json.dumps(BODY).encode()
    connection.request("POST", "/v1/messages", iter([data[:20], data[20:]]), headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


def test_headers_are_those_of_the_api(sdk):
    response = sdk.messages.with_raw_response.create(**BODY)
    headers = response.headers
    assert headers["request-id"].startswith("req_")
    assert len(headers["anthropic-organization-id"]) == 36
    assert {f"anthropic-ratelimit-{kind}-remaining" for kind in ("requests", "tokens", "input-tokens")} <= set(headers)


def test_a_body_over_32_mb_is_refused_before_it_is_read(simulator):
    raw = socket.create_connection(simulator.address, timeout=5)
    raw.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 33554433\r\n\r\n")
    answer = read_until(raw, b"request_id")
    raw.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/messages", 405), ("GET", "/_sim/nothing", 404)],
)
def test_unknown_paths_and_methods_are_refused(simulator, method, path, status):
    assert simulator.call(method, path, headers={"x-api-key": "sk-ant-1"})[0] == status


def test_a_version_is_needed(simulator):
    headers = {"x-api-key": "sk-ant-1"}
    assert simulator.call("POST", "/v1/messages", BODY, headers)[0] == 400
    assert simulator.call("POST", "/v1/messages", BODY, {**headers, "anthropic-version": "1999-01-01"})[0] == 400


def test_a_body_that_is_not_an_object_is_refused(simulator):
    assert simulator.messages([])[0] == 400
    headers = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}
    connection = simulator.connect()
    connection.request("POST", "/v1/messages", "{", headers)
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("model", ["sim-nothing", "sim-text:tokens=many", "claude-sonet-4-5", "claude-3-opus-20240229"])
def test_an_unknown_model_is_not_found(simulator, model):
    status, body = simulator.messages({**BODY, "model": model})
    assert (status, body["error"]["message"]) == (404, f"model: {model}")


def test_parameters_may_come_as_headers(simulator):
    body = simulator.messages({**BODY, "model": "claude-opus-5-5"}, x_sim_scenario="sim-text", x_sim_tokens="2")[1]
    assert body["content"][0]["text"] == "w0 w1"


def test_echo_says_what_arrived(simulator):
    body = simulator.messages({**BODY, "model": "sim-echo", "max_tokens": 900, "system": "Be brief"})[1]
    echo = json.loads(body["content"][0]["text"])
    assert (echo["system"], echo["messages"]) == ("Be brief", HELLO)
    assert echo["headers"]["anthropic-version"] == "2026-10-21"


def test_images_and_documents_are_described(simulator):
    png = "iVBORw0KGgo="
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
        {"type": "document", "title": "notes", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        {"type": "text", "text": "What is this?"},
    ]
    for model in ("sim-image", "claude-opus-5"):
        body = {**BODY, "model": model, "messages": [{"role": "user", "content": content}]}
        said = simulator.messages(body)[1]["content"][-1]["text"]
        assert (
            "1 image(s) and 1 document(s): image image/png of 8 bytes; document “notes” text/plain of 7 bytes" in said
        )


def test_unknown_events_surround_the_text(simulator):
    with open_stream(simulator, "sim-unknown-events") as raw:
        data = read_until(raw, b"0\r\n\r\n")
    assert all(word in data for word in (b"weather_report", b"hologram_delta", b"mood_delta", b"Known"))
