"""What is counted: each request by its route and status, refused ones too, over all workers."""

from __future__ import annotations

import re

from tests.conftest import CLIENT, GatewayMaker


def count_of(text: str, route: str, status: int) -> float:
    found = re.search(rf'dragoman_requests_total{{route="{re.escape(route)}",status="{status}"}} (\S+)', text)
    return float(found[1]) if found else 0


def test_requests_and_answers_are_counted_over_all_workers(gateway: GatewayMaker, simulator: str) -> None:
    running = gateway(
        WEB_CONCURRENCY="2",
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
    )
    asked = {"model": "sim-text", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "seed": 1}
    for _ in range(8):
        assert running.post("/v1/chat/completions", asked, headers=CLIENT).ok
        running.post("/v1/chat/completions", asked, headers={})
    running.get("/nothing-here")
    text = running.get("/metrics", headers={}).text
    assert count_of(text, "/v1/chat/completions", 200) == 8
    assert count_of(text, "/v1/chat/completions", 401) == 8
    assert count_of(text, "(no such route)", 404) == 1
    assert re.search(r'dragoman_answers_total{connection="conn_\w+",ending="complete"} 8\.0', text)
    assert re.search(r'dragoman_tokens_total{class="completion",connection="conn_\w+"} 24\.0', text)
    assert 'dragoman_warnings_total{code="seed_ignored"} 8.0' in text
    assert 'dragoman_request_seconds_count{route="/v1/chat/completions"} 16.0' in text
