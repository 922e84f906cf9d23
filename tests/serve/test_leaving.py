"""Clients that leave take with them what they asked: none of it waits for the collector, which may look much later."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import orjson
import pytest
import requests

from tests.conftest import CLIENT, Gateway, GatewayMaker, wait_for

LISTS = 100_000
LEAVE = 12
MODELS: dict[str, dict[str, Any]] = {
    "a stream": {"model": "sim-stall", "stream": True},
    "a whole answer": {"model": "sim-stall"},
    "several answers": {"model": "sim-stall", "n": 2},
    "a second attempt": {"model": "sim-error-529", "stream": True},
}


@pytest.fixture(scope="module")
def running(module_gateway: GatewayMaker, simulator: str) -> Iterator[Gateway]:
    yield module_gateway(
        ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS="sk-ant-of-these-tests", ANTHROPIC_API_BASE_URLS=simulator
    )


@pytest.mark.parametrize("kind", MODELS)
def test_a_client_that_leaves_leaves_nothing_behind(running: Gateway, kind: str) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [[]] * LISTS}}}
    body = orjson.dumps(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
            **MODELS[kind],
        }
    )

    def leave(n: int) -> None:
        with suppress(requests.RequestException):
            requests.post(f"{running.url}/v1/chat/completions", data=body, headers=CLIENT, timeout=(10, 0.02 * n))

    def held() -> dict[str, int]:
        worker: dict[str, int] = running.get("/readyz").json()["worker"]
        return worker

    leave(1)
    before = wait_for(lambda: (found := held())["greenlets"] <= 5 and found, within_s=20, what="a worker at rest")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, range(1, LEAVE + 1)))
    wait_for(lambda: held()["greenlets"] <= before["greenlets"], within_s=20, what="those that left are stopped")
    assert held()["memory_blocks"] < before["memory_blocks"] + LISTS / 2
