"""What we rely on of the SDK and of urllib3; when an update breaks one of these, the code that needs it is named."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest
import requests

from app.settings import Settings
from app.storage.connections import Connection
from app.upstream.client import UpstreamClient
from app.upstream.transport import BODY, WayOut

MESSAGE = {"model": "sim-text", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def connection(simulator: str, **more: Any) -> Connection:
    return Connection("conn_1", 0, simulator, f"sk-ant-sdk-{len(more)}", **more)


def sdk_of(simulator: str, **more: Any) -> anthropic.Anthropic:
    return UpstreamClient(connection(simulator, **more), WayOut(Settings()).transport(simulator))._sdk


def sent_headers(simulator: str, key: str) -> dict[str, str]:
    entries = requests.get(f"{simulator}/_sim/requests", timeout=5).json()
    entries = entries["requests"] if isinstance(entries, dict) else entries
    return next(dict(e["headers"]) for e in reversed(entries) if e["key"] == key)


def test_a_raw_response_is_given_back_unread_under_cast_to(simulator: str) -> None:
    response: Any = sdk_of(simulator).post(
        "/v1/messages",
        cast_to=httpx2.Response,
        body={**MESSAGE, "stream": True},
        stream=True,
        stream_cls=anthropic.Stream,
    )
    assert isinstance(response, httpx2.Response)
    assert not response.is_closed
    assert b"message_start" in response.extensions[BODY].read()
    response.close()


def test_ready_json_is_sent_as_it_is(simulator: str) -> None:
    content = b'{ "model":"sim-text","max_tokens":5,"messages":[{"role":"user","content":"hi"}] }'
    response = sdk_of(simulator).post("/v1/messages", cast_to=httpx2.Response, content=content)
    assert response.json()["type"] == "message"


def test_an_error_status_raises_before_any_byte_is_handed_out(simulator: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk_of(simulator).post(
            "/v1/messages",
            cast_to=httpx2.Response,
            body={**MESSAGE, "model": "sim-error-529", "stream": True},
            stream=True,
            stream_cls=anthropic.Stream,
        )
    assert caught.value.status_code == 529


@pytest.mark.parametrize(
    ("auth", "there", "absent"), [("x-api-key", "x-api-key", "authorization"), ("bearer", "authorization", "x-api-key")]
)
def test_exactly_one_credential_goes_out(simulator: str, auth: Any, there: str, absent: str) -> None:
    sdk = sdk_of(simulator, auth=auth)
    sdk.post("/v1/messages", cast_to=httpx2.Response, body=MESSAGE)
    headers = sent_headers(simulator, sdk.api_key or "")
    assert there in headers
    assert absent not in headers


def test_the_environment_of_the_machine_adds_no_credential(simulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-somebody-elses")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody-elses-token")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    sdk = sdk_of(simulator, tags=("t",))
    sdk.post("/v1/messages", cast_to=httpx2.Response, body=MESSAGE)
    assert "somebody" not in str(sent_headers(simulator, "sk-ant-sdk-1"))


def test_a_connection_is_used_again_after_a_body_was_read_to_its_end(simulator: str) -> None:
    transport = WayOut(Settings()).transport(simulator)
    sdk = UpstreamClient(connection(simulator), transport)._sdk
    for stream in (True, False, True):
        response: Any = sdk.post(
            "/v1/messages",
            cast_to=httpx2.Response,
            body={**MESSAGE, "stream": stream},
            stream=True,
            stream_cls=anthropic.Stream,
        )
        while response.extensions[BODY].read():
            pass
        response.close()
    assert (transport._pool.num_connections, len(transport._idle)) == (1, 1)
    transport.close()
