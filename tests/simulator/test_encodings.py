"""Compressed bodies, of requests and of answers."""

import gzip
import json
import zlib

import pytest

from app.simulator.encodings import takes_gzip

BODY = {"model": "sim-text", "max_tokens": 99, "messages": [{"role": "user", "content": "Hello"}]}
PLAIN = json.dumps(BODY).encode()


def test_JSON_is_compressed_for_who_takes_gzip_and_for_nobody_else(simulator):
    for accepted, encoding in (("gzip, br", "gzip"), ("identity", None), ("", None)):
        _, headers, body = simulator.post(BODY, accept_encoding=accepted)
        assert headers["content-encoding"] == encoding
        assert b"w59" in (gzip.decompress(body) if encoding else body)


def test_errors_and_models_are_compressed_like_messages(simulator):
    status, _, body = simulator.post({}, accept_encoding="gzip")
    assert (status, json.loads(gzip.decompress(body))["type"]) == (400, "error")
    headers = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01", "accept-encoding": "gzip"}
    assert simulator.fetch("GET", "/v1/models", headers=headers)[1]["content-encoding"] == "gzip"


def test_a_stream_is_not_compressed(simulator):
    _, headers, body = simulator.post({**BODY, "stream": True}, accept_encoding="gzip")
    assert headers["content-encoding"] is None
    assert b"event: message_stop" in body


@pytest.mark.parametrize("stream", [False, True])
def test_a_scenario_compresses_in_spite_of_identity(simulator, stream):
    body = {**BODY, "model": "sim-text:gzip=1", "stream": stream}
    _, headers, data = simulator.post(body, accept_encoding="identity")
    assert headers["content-encoding"] == "gzip"
    assert b"w59" in gzip.decompress(data)


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_compresses_any_answer(simulator, stream):
    simulator.fault("sk-ant-gzip", {"gzip": True}, times=2)
    _, headers, data = simulator.post({**BODY, "stream": stream}, x_api_key="sk-ant-gzip")
    assert headers["content-encoding"] == "gzip"
    assert b"w59" in gzip.decompress(data)
    status, _, data = simulator.post({**BODY, "model": "sim-error-529"}, x_api_key="sk-ant-gzip")
    assert (status, json.loads(gzip.decompress(data))["error"]["type"]) == (529, "overloaded_error")


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [("gzip", True), ("br;q=1.0, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0", False), ("br", False)],
)
def test_gzip_is_taken_by_who_names_it_and_does_not_forbid_it(accepted, takes):
    assert takes_gzip({"accept-encoding": accepted}) is takes


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_a_body_may_come_compressed(simulator, encoding, pack):
    assert simulator.post(pack(PLAIN), content_encoding=encoding)[0] == 200
    assert simulator.last_request()["body"] == BODY


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("br", PLAIN, 400, "request_body_encoding_unsupported"),
        ("gzip", PLAIN, 400, "request_body_encoding_invalid"),
        ("gzip", gzip.compress(PLAIN)[:-9], 400, "request_body_encoding_invalid"),
        ("gzip", gzip.compress(bytes(33 * 1024 * 1024)), 413, "request_body_too_large_after_decoding"),
    ],
    ids=["unknown", "not compressed", "cut", "a bomb"],
)
def test_a_body_that_cannot_be_decoded_is_refused_by_its_code(simulator, encoding, body, status, code):
    answered, _, data = simulator.post(body, content_encoding=encoding)
    assert (answered, json.loads(data)["error"]["details"]) == (status, {"error_code": code})
