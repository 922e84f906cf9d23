"""What is counted: each request by its route and status, refused ones too, over all workers."""

from __future__ import annotations

import re
import time
from typing import Any

from prometheus_client import CollectorRegistry

from app.serve.metrics import WorkerStates
from app.serve.worker_state import reasons
from tests.conftest import CLIENT, GatewayMaker, wait_for


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

    def told() -> str:
        return running.get("/metrics", headers={}).text

    cost_unknown = re.compile(r'dragoman_cost_unknown_total{connection="conn_\w+",model="other"} 8\.0')
    wait_for(lambda: cost_unknown.search(told()), what="the other worker counts its rows some at a time")
    text = told()
    assert count_of(text, "/v1/chat/completions", 200) == 8
    assert count_of(text, "/v1/chat/completions", 401) == 8
    assert count_of(text, "(no such route)", 404) == 1
    assert re.search(r'dragoman_answers_total{connection="conn_\w+",ending="complete"} 8\.0', text)
    assert re.search(r'dragoman_tokens_total{class="output",connection="conn_\w+",model="other"} 24\.0', text)
    assert re.search(r'dragoman_booked_requests_total{connection="conn_\w+",ending="length",model="other"} 8\.0', text)
    assert cost_unknown.search(text)
    assert 'dragoman_warnings_total{code="seed_ignored"} 8.0' in text
    assert 'dragoman_request_seconds_count{route="/v1/chat/completions"} 16.0' in text


def test_a_connection_is_out_for_as_long_as_it_was_said_to_be_however_late_the_workers_speak() -> None:
    def state(until: float) -> dict[str, Any]:
        outs = [{"reason": "cooling_down", "model": None, "until": until, "on_trial": False, "error": "Slow down."}]
        return {"generation": 1, "connections": {"conn_1": {"name": "a", "base_url": "https://a", "outs": outs}}}

    now = time.monotonic()
    counts = CollectorRegistry()
    counts.register(WorkerStates([state(now - 1), state(now + 60)]))
    assert counts.get_sample_value("dragoman_connection_out", {"connection": "conn_1", "reason": "cooling_down"}) == 1.0


def test_a_list_of_models_that_fails_is_told_beside_a_limit_but_not_twice() -> None:
    def told(reason: str) -> list[str]:
        out = {"reason": reason, "model": None, "for_s": 9, "on_trial": False, "error": "No."}
        return list(reasons({"out": [out], "models_error": "no such path here"}))

    assert told("cooling_down")[1:] == ["its models could not be listed: no such path here"]
    assert told("key_refused")[1:] == []
