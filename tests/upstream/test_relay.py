"""A relayed answer over one connection: the same bytes, in whole events, and what goes wrong with it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.errors import UpstreamError
from app.settings import Settings
from app.storage.connections import Connection
from app.upstream import relay as module
from app.upstream.client import UpstreamClient
from app.upstream.dispatch import Dispatch
from app.upstream.limits import Limits
from app.upstream.relay import Relay, Relayed
from app.upstream.transport import WayOut
from tests.translate.messages.test_scan import EVENTS, FORMS, START, USAGE
from tests.upstream.raw import RawUpstream, of_events, raw_upstream

KEY = "sk-ant-of-these-tests"
BODY = b'{"model": "claude-opus-5", "odd": 1e3}'
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


CLIENTS: list[UpstreamClient] = []


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as made:
        yield made
    while CLIENTS:
        CLIENTS.pop().transport.close()


def client_of(upstream: RawUpstream, **more: Any) -> UpstreamClient:
    connection = Connection("conn_1", 0, upstream.url, KEY, **more)
    CLIENTS.append(UpstreamClient(connection, WayOut(Settings()).transport(upstream.url)))
    return CLIENTS[-1]


def read(relayed: Relayed) -> list[bytes]:
    try:
        return [*relayed.batches()]
    finally:
        relayed.close()


def send(client: UpstreamClient, headers: dict[str, str] | None = None, seconds: float = 10.0, **more: Any) -> Relayed:
    dispatch = Dispatch(client.connection, "claude-opus-5")
    return Relay("/v1/messages", headers or {}, BODY, **more).send(client, Limits(seconds, seconds), dispatch)


def streaming(
    upstream: RawUpstream, *pieces: bytes, breaks: bool = False, goes_on: threading.Event | None = None
) -> None:
    """Behind the first piece it waits for `goes_on`, if there is one."""

    def answer(asked: Any) -> None:
        asked.begin()
        for piece in pieces:
            asked.chunk(piece)
            if goes_on is not None:
                goes_on.wait(10)
        if breaks:
            asked.socket.shutdown(socket.SHUT_RDWR)
        else:
            asked.end()

    upstream.answer = answer


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_is_the_same_bytes_wherever_it_was_cut(upstream: RawUpstream, form: str) -> None:
    data = FORMS[form]
    client = client_of(upstream)
    for at in range(1, len(data), 37):
        streaming(upstream, data[:at], data[at:])
        relayed = send(client)
        batches = [batch for batch in read(relayed) if batch]
        assert b"".join(batches) == data, at
        assert relayed.message["usage"]["output_tokens"] == 90
        ends = (b"\n\n", b"\r\n\r\n")
        assert all(batch.endswith(ends) for batch in batches), "a sign of life would stand within an event"
    assert len({asked.socket for asked in upstream.asked}) == 1, "the connection is used again"


def test_each_byte_may_come_alone(upstream: RawUpstream) -> None:
    data = of_events(*EVENTS)
    streaming(upstream, *(data[at : at + 1] for at in range(len(data))))
    assert b"".join(read(send(client_of(upstream)))) == data


def test_an_event_of_two_megabytes_passes(upstream: RawUpstream) -> None:
    large = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 2_000_000}}
    data = of_events(*EVENTS[:2], large, *EVENTS[2:])
    streaming(upstream, data)
    assert b"".join(read(send(client_of(upstream)))) == data


def test_what_goes_out_is_the_body_and_the_headers_as_they_came(upstream: RawUpstream) -> None:
    upstream.answer = lambda asked: asked.respond(orjson.dumps({"type": "message", "content": [], "usage": USAGE}))
    client = client_of(upstream, headers={"X-Team": "blue", "anthropic-beta": "always-on", "x-app": "ours"})
    said = {
        "user-agent": "claude-cli/2.1.332 (external, cli)",
        "anthropic-version": "2027-01-01",
        "anthropic-beta": "b-1, , c-2,always-on,b-1",
        "anthropic-new": "x",
        "x-app": "cli",
        "x-stainless-lang": "js",
        "accept": "application/json, text/event-stream",
    }
    send(client, said, beta=True).close()
    asked = upstream.asked[0]
    assert (asked.line, asked.body) == ("POST /v1/messages?beta=true HTTP/1.1", BODY)
    names = [name.lower() for name, _ in asked.headers]
    assert len(set(names)) == len(names)
    got = {name.lower(): value for name, value in asked.headers}
    assert got.pop("host") == upstream.url.removeprefix("http://")
    assert got == {
        **said,
        "anthropic-beta": "b-1,c-2,always-on",
        "x-app": "ours",
        "x-team": "blue",
        "x-api-key": KEY,
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "connection": "keep-alive",
    }


def test_what_a_client_leaves_out_is_what_the_oldest_clients_meant(upstream: RawUpstream) -> None:
    upstream.answer = lambda asked: asked.respond(orjson.dumps({"type": "message", "content": []}))
    send(client_of(upstream, auth="bearer")).close()
    asked = upstream.asked[0]
    assert asked.named("anthropic-version") == ["2023-06-01"]
    assert asked.named("user-agent")[0].startswith("dragoman/")
    assert asked.named("authorization") == [f"Bearer {KEY}"]
    assert asked.named("x-api-key") == asked.named("anthropic-beta") == []
    assert not [name for name, _ in asked.headers if name.lower().startswith("x-stainless")]


def test_an_answer_in_one_piece_is_the_same_bytes(upstream: RawUpstream) -> None:
    body = b'{ "type":"message","content":[],\n"usage":{"input_tokens":1e0},"new":1.0}'
    upstream.answer = lambda asked: asked.respond(body, request_id="req_1", set_cookie="a=b", cf_ray="1", x_new="2")
    relayed = send(client_of(upstream))
    relayed.close()
    assert (relayed.body, relayed.is_streamed) == (body, False)
    assert relayed.headers == {"content-type": "application/json", "request-id": "req_1"}


@pytest.mark.parametrize(
    ("kind", "body", "more", "said"),
    [
        ("text/html", b"<html>", {}, "neither JSON nor a stream"),
        ("application/json", b"", {}, "not a JSON object"),
        ("application/json", b"[1]", {}, "not a JSON object"),
        ("application/json", b'{"type":"completion"}', {}, "no message"),
        ("application/json", b"x", {"content_encoding": "gzip"}, "compressed"),
        ("text/event-stream", b"", {}, "ended before it was complete"),
        ("text/event-stream", b"event: ping\ndata: {}\n\n", {}, "ended before it was complete"),
        ("text/event-stream", orjson.dumps(OVERLOADED), {}, "Overloaded"),
    ],
)
def test_what_is_no_answer_of_anthropics_moves_on(
    upstream: RawUpstream, kind: str, body: bytes, more: Any, said: str
) -> None:
    upstream.answer = lambda asked: asked.respond(body, 200, kind, **more)
    with pytest.raises(UpstreamError, match=said) as failed:
        send(client_of(upstream))
    assert failed.value.status >= 500


def test_a_redirect_is_not_followed(upstream: RawUpstream) -> None:
    upstream.answer = lambda asked: asked.respond(b"", 302, location=f"{upstream.url}/elsewhere")
    with pytest.raises(UpstreamError):
        send(client_of(upstream))
    assert len(upstream.asked) == 1


def test_an_error_before_the_message_is_raised_and_one_behind_it_passes_as_the_last(upstream: RawUpstream) -> None:
    client = client_of(upstream)
    streaming(upstream, of_events({"type": "ping"}, OVERLOADED))
    with pytest.raises(UpstreamError) as failed:
        send(client)
    assert failed.value.code == "overloaded"
    begun = of_events(*EVENTS[:4])
    goes_on = threading.Event()
    streaming(upstream, begun, of_events(OVERLOADED), goes_on=goes_on)
    relayed = send(client)
    goes_on.set()
    assert b"".join(read(relayed)) == begun + of_events(OVERLOADED)
    assert relayed.error is not None
    assert relayed.error.code == "overloaded"
    assert not relayed.is_complete


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("behind", [b"", b"event: message_stop\nda", of_events(EVENTS[-1])[:-1]])
def test_an_end_that_is_none_is_raised_behind_the_last_whole_event(
    upstream: RawUpstream, breaks: bool, behind: bytes
) -> None:
    begun = of_events(*EVENTS[:-1])
    streaming(upstream, begun, behind, breaks=breaks)
    relayed = send(client_of(upstream))
    got = b""
    with pytest.raises(UpstreamError) as failed:
        for batch in relayed.batches():
            got += batch
    relayed.close()
    assert got == begun
    assert failed.value.code == "upstream_disconnected"
    assert relayed.dispatch.is_counted, "its usage had come"


def test_silence_asks_for_signs_of_life_and_ends_at_last_however_many_there_were(
    upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_S", 0.05)
    is_over = threading.Event()

    def answer(asked: Any) -> None:
        asked.begin()
        asked.chunk(of_events(START))
        is_over.wait(10)

    upstream.answer = answer
    client = client_of(upstream)
    dispatch = Dispatch(client.connection, "claude-opus-5")
    relayed = Relay("/v1/messages", {}, BODY).send(client, Limits(5.0, 0.3), dispatch)
    batches = []
    with pytest.raises(UpstreamError) as failed:
        for batch in relayed.batches():
            batches.append(batch)
    is_over.set()
    relayed.close()
    assert batches[0] == of_events(START)
    assert len(batches) > 3
    assert set(batches[1:]) == {b""}
    assert failed.value.code == "upstream_timeout"


def test_an_error_that_repeats_our_key_is_told_in_our_words(upstream: RawUpstream) -> None:
    client = client_of(upstream)
    echo = {"type": "error", "error": {"type": "invalid_request_error", "message": f"You sent {KEY}"}}
    upstream.answer = lambda asked: asked.respond(orjson.dumps(echo), 400)
    with pytest.raises(UpstreamError) as failed:
        send(client)
    assert failed.value.forwarded is None
    assert KEY not in failed.value.message
    goes_on = threading.Event()
    streaming(upstream, of_events(*EVENTS[:2]), of_events(echo), goes_on=goes_on)
    relayed = send(client)
    goes_on.set()
    with pytest.raises(UpstreamError) as failed:
        for batch in relayed.batches():
            assert KEY.encode() not in batch
    relayed.close()
    assert KEY not in failed.value.message


def test_an_error_of_anthropics_is_kept_as_it_is(upstream: RawUpstream) -> None:
    body = b'{"type":"error", "error":{"type":"invalid_request_error","message":"prompt is too long: 5 > 4"},"x":1.0}'
    upstream.answer = lambda asked: asked.respond(body, 400, request_id="req_9", cf_ray="x", x_should_retry="false")
    with pytest.raises(UpstreamError) as failed:
        send(client_of(upstream))
    kept = failed.value.forwarded
    assert kept is not None
    assert (kept.status, kept.body) == (400, body)
    assert dict(kept.headers) == {
        "content-type": "application/json",
        "request-id": "req_9",
        "x-should-retry": "false",
    }


def test_a_429_that_names_no_limit_is_about_that_request(upstream: RawUpstream) -> None:
    client = client_of(upstream)
    limited = orjson.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}})
    for headers, is_out in (({}, False), ({"retry_after": "9"}, True)):
        upstream.answer = lambda asked, headers=headers: asked.respond(limited, 429, **headers)  # type: ignore[misc]
        with pytest.raises(UpstreamError):
            send(client)
        assert (client.health.out("claude-opus-5", time.monotonic()) is not None) == is_out
