"""One call upstream: what is no answer is an error that says why, and soon."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.errors import UpstreamError
from app.settings import Settings
from app.storage.connections import Connection
from app.translate.translation import ReplyContext, Translation
from app.upstream import client as module
from app.upstream.client import UpstreamClient
from app.upstream.limits import Limits
from app.upstream.transport import WayOut
from tests.upstream.test_transport import Server

Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(answer: Callable[[Any], None], **options: Any) -> Server:
        servers.append(Server(lambda connection, _: answer(connection), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def failure(url: str, **settings: Any) -> UpstreamError:
    client = UpstreamClient(Connection("conn_1", 0, url, "sk-ant-1"), WayOut(Settings(**settings)).transport(url))
    translation = Translation({"model": "m"}, {}, may_run_long=False, reply=ReplyContext())
    with pytest.raises(UpstreamError) as caught:
        client.send(translation, stream=False, limits=Limits(20, 20))
    return caught.value


def test_what_a_status_says_is_known_however_its_body_comes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ERROR_WITHIN_S", 0.2)
    over = threading.Event()

    def answer(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{")
        over.wait(10)

    began = time.monotonic()
    error = failure(serve(answer).url)
    over.set()
    assert (error.status, error.headers["retry-after"]) == (429, "7")
    assert time.monotonic() - began < 10


def test_an_error_that_breaks_off_is_still_that_error(serve: Serve) -> None:
    def answer(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 529 Overloaded\r\ncontent-length: 100\r\n\r\n{")
        connection.close()

    assert failure(serve(answer).url).upstream_status == 529


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content"])
def test_a_compressed_answer_is_said_to_be_one(serve: Serve, status: bytes) -> None:
    body = b"" if status[:3] == b"204" else gzip.compress(b"{}")
    head = b"HTTP/1.1 %b\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    error = failure(serve(lambda connection: connection.sendall(head + body)).url)
    assert (error.status, error.code) == (502, "upstream_invalid_response")
    assert "compressed" in error.message


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"x" * 70_000 + b"\r\n"])
def test_a_proxy_that_speaks_no_http_is_told_as_no_way_out(serve: Serve, said: bytes) -> None:
    proxy = serve(lambda connection: connection.sendall(said))
    assert failure("https://anthropic.invalid", https_proxy=proxy.url).code == "upstream_unreachable"


def test_of_a_redirect_no_more_is_read_than_of_an_error(serve: Serve) -> None:
    sent = []

    def answer(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 50000000\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"x" * 1_000_000)
            sent.append(1)

    assert failure(serve(answer).url).upstream_status == 302
    assert len(sent) < 45
