"""What stands before a request's body is what the SDK would send: where an update of it changes that, it shows here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import orjson
import pytest

from app.errors import UpstreamError
from app.settings import Settings
from app.storage.connections import Connection
from app.translate.translation import API_VERSION, ReplyContext, Translation
from app.upstream.client import UpstreamClient
from app.upstream.limits import Limits
from app.upstream.pool import Pool
from app.upstream.transport import WayOut

KEY = "sk-ant-of-these-tests"
MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
ANSWER = b'{"type":"message","content":[]}'
Asked = Callable[[], tuple[str, list[tuple[str, str]]]]


@pytest.fixture
def upstream() -> Iterator[tuple[str, Asked]]:
    """(the URL of one that answers anything, what it was asked last: (request line, headers))."""
    asked: list[tuple[str, list[tuple[str, str]]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append((self.requestline, self.headers.items()))
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", lambda: asked[-1]
    server.shutdown()
    thread.join(10)
    server.server_close()


def client_of(url: str, **more: Any) -> UpstreamClient:
    return UpstreamClient(Connection("conn_1", 0, url, KEY, **more), WayOut(Settings()).transport(url))


def send(client: UpstreamClient, *, betas: str | None = None, seconds: float = 20.0, text: str = "hi") -> None:
    sent = {"anthropic-version": API_VERSION, **({"anthropic-beta": betas} if betas else {})}
    body = {**MESSAGE, "messages": [{"role": "user", "content": text}]}
    translation = Translation(body, sent, may_run_long=False, reply=ReplyContext())
    client.send(translation, stream=False, limits=Limits(seconds, seconds)).close()


def by_name(headers: list[tuple[str, str]]) -> dict[str, str]:
    assert len({name.lower() for name, _ in headers}) == len(headers), "one is there twice"
    return {name.lower(): value for name, value in headers}


@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
@pytest.mark.parametrize("own", [{}, {"X-Team": "blue", "anthropic-beta": "always-on"}])
@pytest.mark.parametrize("betas", [None, "interleaved-thinking-2025-05-14,files-api-2025-04-14"])
def test_the_head_is_the_one_that_the_sdk_sends(
    upstream: tuple[str, Asked], auth: Any, own: dict[str, str], betas: str | None
) -> None:
    url, asked = upstream
    send(client_of(f"{url}/relay", auth=auth, headers=own), betas=betas)
    line, headers = asked()
    as_key: dict[str, Any] = {"x-api-key": KEY, "authorization": anthropic.omit} if auth == "x-api-key" else {}
    sdk = anthropic.Anthropic(
        api_key=KEY, base_url=f"{url}/relay", max_retries=0, default_headers={**as_key, **own}, open_telemetry=False
    )
    wanted = ",".join(filter(None, (own.get("anthropic-beta"), betas)))
    said = {"anthropic-version": API_VERSION, **({"anthropic-beta": wanted} if wanted else {})}
    sdk.post("/v1/messages", cast_to=object, body=MESSAGE, options={"headers": said, "timeout": 20})
    sdk_line, sdk_headers = asked()
    ours, theirs = by_name(headers), by_name(sdk_headers)
    assert ours.pop("accept-encoding") == "identity"  # answers are read as they come
    assert ours.pop("content-length") == str(len(orjson.dumps(MESSAGE)))
    del theirs["accept-encoding"], theirs["content-length"]
    assert (line, ours) == (sdk_line, theirs)
    assert ("authorization" in ours, "x-api-key" in ours) == (auth == "bearer", auth == "x-api-key")


def test_each_request_has_its_own_headers_and_its_own_length(upstream: tuple[str, Asked]) -> None:
    url, asked = upstream
    client = client_of(url)
    lengths = []
    for betas, text in (("one-2025-01-01", "hi"), ("two-2025-01-01", "hi"), ("one-2025-01-01", "hello")):
        send(client, betas=betas, text=text)
        headers = by_name(asked()[1])
        assert headers["anthropic-beta"] == betas
        lengths.append(int(headers["content-length"]))
    assert lengths[0] == lengths[1] == lengths[2] - 3
    client.get("/v1/models", timeout_s=5, params={"limit": 5})
    line, read = asked()
    assert line == "GET /v1/models?limit=5 HTTP/1.1"
    assert not {"content-length", "content-type", "anthropic-beta"} & by_name(read).keys()


def test_heads_that_are_alike_are_made_once(upstream: tuple[str, Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(upstream[0])
    send(client)
    monkeypatch.setattr(client.transport, "head", lambda _: pytest.fail("made again"))
    send(client, seconds=19.99)  # what is left until the deadline differs from request to request


def test_the_environment_of_the_machine_adds_no_credential(
    upstream: tuple[str, Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = upstream
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-somebody-elses")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody-elses-token")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "Authorization: Bearer somebody\nX-Leak: somebody")
    for auth in ("x-api-key", "bearer"):
        send(client_of(url, auth=auth))
        assert "somebody" not in str(asked())


def test_a_connection_that_has_changed_sends_what_it_is_now(upstream: tuple[str, Asked]) -> None:
    url, asked = upstream
    pool = Pool(Settings())
    for key in ("sk-ant-the-first", "sk-ant-the-second"):
        connection = Connection("conn_1", 0, url, key)
        pool.follow([connection])
        send(pool.client(connection))
        assert by_name(asked()[1])["x-api-key"] == key
    pool.follow([])


def test_a_header_that_would_be_two_is_refused(upstream: tuple[str, Asked]) -> None:
    with pytest.raises(UpstreamError, match="line break"):
        send(client_of(upstream[0], headers={"x-team": "a\r\nx-admin: 1"}))
