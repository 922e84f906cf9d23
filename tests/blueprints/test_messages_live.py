"""The relay in a process of its own: silence, clients that leave, upstreams that break off, bodies of any size."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import orjson
import pytest
import requests

from tests.conftest import CLIENT, CLIENT_KEY, Gateway, wait_for
from tests.storage.test_books_processes import rows
from tests.translate.messages.test_scan import EVENTS, START
from tests.upstream.raw import Asked, RawUpstream, of_events, raw_upstream

BODY: dict[str, Any] = {
    "model": "claude-opus-5",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
}
IDLE_S = 3


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as made:
        yield made


@pytest.fixture(scope="module")
def variables(upstream: RawUpstream) -> dict[str, str]:
    return {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-one",
        "ANTHROPIC_API_BASE_URLS": upstream.url,
        "IDLE_TIMEOUT_S": str(IDLE_S),
    }


@pytest.fixture(scope="module")
def running(module_gateway: Any, variables: dict[str, str]) -> Gateway:
    started: Gateway = module_gateway(**variables)
    return started


def ask(running: Gateway, **fields: Any) -> requests.Response:
    return requests.post(f"{running.url}/v1/messages", json={**BODY, **fields}, headers=CLIENT, stream=True, timeout=60)


def sdk(running: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=running.url, api_key=CLIENT_KEY, max_retries=0)


def row(running: Gateway, variables: dict[str, str], id: str, columns: str) -> Any:
    found: list[Any] = []

    def is_there() -> bool:
        found[:] = rows(running, variables, f"SELECT {columns} FROM requests WHERE id = '{id}'")
        return bool(found)

    wait_for(is_there, what="the row")
    return found[0]


def test_a_stream_that_is_long_in_coming_begins_within_fifteen_seconds(running: Gateway, upstream: RawUpstream) -> None:
    goes_on = threading.Event()
    data = of_events(*EVENTS)

    def answer(asked: Asked) -> None:
        goes_on.wait(40)
        asked.begin()
        asked.chunk(data)
        asked.end()

    upstream.answer = answer
    began = time.monotonic()
    answered = ask(running)
    pieces = answered.iter_content(None)
    head_s = time.monotonic() - began
    first = next(pieces)
    assert 14 < head_s < 17
    assert first == b": keep-alive\n"
    goes_on.set()
    assert b"".join(pieces) == data
    with sdk(running).messages.stream(model="claude-opus-5", max_tokens=9, messages=[]) as stream:  # read as ever
        assert stream.get_final_message().stop_reason == "tool_use"


def test_a_failure_behind_the_head_is_an_event(running: Gateway, upstream: RawUpstream) -> None:
    goes_on = threading.Event()
    refused = orjson.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})

    def answer(asked: Asked) -> None:
        goes_on.wait(40)
        asked.respond(refused, 529)

    upstream.answer = answer
    answered = ask(running)
    assert answered.status_code == 200
    goes_on.set()
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        upstream.answer = lambda asked: asked.respond(refused, 529)
        sdk(running).messages.create(**{**BODY, "stream": False})
    told = answered.content.replace(b": keep-alive\n", b"")
    assert told.startswith(
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"'
    )


def test_silence_ends_a_stream_with_a_time_out_of_anthropics_shape(
    running: Gateway, upstream: RawUpstream, variables: dict[str, str]
) -> None:
    is_over = threading.Event()

    def answer(asked: Asked) -> None:
        asked.begin()
        asked.chunk(of_events(*EVENTS[:5]))
        is_over.wait(40)

    upstream.answer = answer
    began = time.monotonic()
    answered = ask(running)
    data = answered.content
    is_over.set()
    assert IDLE_S <= time.monotonic() - began < IDLE_S + 3
    begun = of_events(*EVENTS[:5])
    assert data.startswith(begun + b"event: error\n")
    assert orjson.loads(data.rpartition(b"data: ")[2])["error"]["type"] == "timeout_error"
    id = answered.headers["x-gateway-request-id"]
    assert row(running, variables, id, "ending, status") == ("upstream_cut", 200)


@pytest.mark.parametrize("broken", ["cut", "end", "half", "error"])
def test_the_sdk_raises_what_breaks_off(running: Gateway, upstream: RawUpstream, broken: str) -> None:
    behind = {
        "half": b'event: message_stop\ndata: {"ty',
        "error": of_events({"type": "error", "error": {"type": "api_error", "message": "broken"}}),
    }.get(broken, b"")
    has_begun = threading.Event()

    def answer(asked: Asked) -> None:
        asked.begin()
        asked.chunk(of_events(*EVENTS[:6]))
        has_begun.wait(10)
        asked.chunk(behind)
        if broken != "cut":
            asked.end()
        asked.socket.shutdown(socket.SHUT_RDWR)

    upstream.answer = answer
    seen = []
    with (
        pytest.raises(anthropic.APIStatusError),
        sdk(running).messages.stream(model="claude-opus-5", max_tokens=9, messages=[]) as stream,
    ):
        for event in stream:
            seen.append(event.type)
            has_begun.set()
    assert "content_block_stop" in seen
    assert "message_stop" not in seen


PHASES = ("upload", "wait", "first event", "middle", "behind the usage")


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_takes_the_call_with_it(
    running: Gateway, upstream: RawUpstream, variables: dict[str, str], phase: str
) -> None:
    came, is_over = threading.Event(), threading.Event()
    events = {"first event": [START], "middle": EVENTS[:5], "behind the usage": EVENTS[:-1]}.get(phase, [])

    def answer(asked: Asked) -> None:
        came.set()
        if events:
            asked.begin()
            asked.chunk(of_events(*events))
        is_over.wait(30)

    upstream.answer = answer
    asked_before = len(upstream.asked)
    query = "SELECT ending, input_tokens, output_tokens FROM requests WHERE ending = 'client_gone' ORDER BY id"
    gone_before = len(rows(running, variables, query))
    raw = orjson.dumps(BODY)
    with socket.create_connection(running.url.removeprefix("http://").split(":")) as client:  # type: ignore[arg-type]
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {CLIENT_KEY}\r\ncontent-length: {len(raw)}\r\n\r\n"
        client.sendall(head.encode() + (raw[:-1] if phase == "upload" else raw))
        if phase != "upload":
            assert came.wait(10)
        if events:
            client.settimeout(10)
            got = b""
            while of_events(events[-1]) not in got:
                got += client.recv(65536)
    if phase == "upload":
        assert len(upstream.asked) == asked_before
        return
    upstream_socket = upstream.asked[-1].socket
    upstream_socket.settimeout(2)
    left = time.monotonic()
    assert upstream_socket.recv(1) == b""
    assert time.monotonic() - left < 2
    is_over.set()
    wait_for(lambda: len(rows(running, variables, query)) > gone_before, what="the row")
    _, tokens_in, tokens_out = rows(running, variables, query)[-1]
    assert tokens_in == (12 if events else 0)
    if phase == "behind the usage":
        assert tokens_out == 90


def test_thirty_two_megabytes_pass_and_one_byte_more_does_not(running: Gateway, upstream: RawUpstream) -> None:
    message = orjson.dumps({"type": "message", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}})
    upstream.answer = lambda asked: asked.respond(message)
    most = 32 * 1024 * 1024
    start, end = b'{"model":"claude-opus-5","messages":[{"role":"user","content":"', b'"}]}'
    raw = (
        start + os.urandom((most - len(start) - len(end)) // 2 + 1).hex().encode()[: most - len(start) - len(end)] + end
    )
    assert len(raw) == most
    answered = requests.post(f"{running.url}/v1/messages", data=raw, headers=CLIENT, timeout=60)
    assert (answered.status_code, answered.content) == (200, message)
    assert upstream.asked[-1].body == raw
    refused = requests.post(f"{running.url}/v1/messages", data=raw + b" ", headers=CLIENT, timeout=60)
    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "request_too_large")
