"""Pages of other origins: the listed ones chat from a browser, others do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import CLIENT_KEY, GatewayMaker

CHAT = """async ([url, key, stream]) => {
  const answer = await fetch(url + "/v1/chat/completions", {
    method: "POST",
    headers: {"authorization": "Bearer " + key, "content-type": "application/json", "x-stainless-lang": "js"},
    body: JSON.stringify({model: "sim-text", stream, messages: [{role: "user", content: "hi"}], max_tokens: 3})
  });
  return {status: answer.status, id: answer.headers.get("x-request-id"), text: await answer.text()};
}"""


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another origin</title>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other_origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def open_gateway(simulator: str, module_gateway: GatewayMaker, other_origin: str) -> str:
    return module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_KEYS="sk-ant-cors",
        CORS_ALLOW_ORIGINS=other_origin,
        GRACEFUL_TIMEOUT="1",
    ).url


@pytest.fixture
def foreign_page(browser: Browser) -> Iterator[Page]:
    made = browser.new_page()
    yield made
    made.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_of_an_allowed_origin_chats(
    foreign_page: Page, open_gateway: str, other_origin: str, stream: bool
) -> None:
    foreign_page.goto(other_origin)
    answer = foreign_page.evaluate(CHAT, [open_gateway, CLIENT_KEY, stream])
    assert answer["status"] == 200
    assert answer["id"].startswith("req_")
    assert ("[DONE]" in answer["text"]) is stream


def test_an_allowed_origin_reads_errors_too(foreign_page: Page, open_gateway: str, other_origin: str) -> None:
    foreign_page.goto(other_origin)
    answer = foreign_page.evaluate(CHAT, [open_gateway, "sk-dgm-wrong", False])
    assert answer["status"] == 401
    assert "invalid_api_key" in answer["text"]


def test_a_page_of_another_origin_gets_nothing(foreign_page: Page, open_gateway: str, other_origin: str) -> None:
    foreign_page.goto(other_origin.replace("127.0.0.1", "localhost"))
    with pytest.raises(Exception, match="Failed to fetch"):
        foreign_page.evaluate(CHAT, [open_gateway, CLIENT_KEY, False])
