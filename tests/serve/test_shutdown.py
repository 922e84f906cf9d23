"""A gateway that stops or is reloaded finishes what it can and cuts nothing off silently."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import CLIENT, ROOT, Gateway, GatewayMaker, wait_for
from tests.traffic import Outcome, ask, numbered, run

QUICK = "sim-text:tokens=40,gap_ms=50"
ENDLESS = "sim-text:tokens=2000,gap_ms=50"


def start(gateway: GatewayMaker, simulator: str, **variables: str) -> Gateway:
    return gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
        **variables,
    )


def workers_of(running: Gateway) -> set[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return {int(pid) for pid in children.read_text().split()}


async def with_requests(
    running: Gateway, models: list[tuple[str, bool]], act: Callable[[], Awaitable[None]]
) -> list[Outcome]:
    """What became of these requests, when `act` was called once all streams among them that say something had begun."""
    begun = [asyncio.Event() if stream and "stall" not in model else None for model, stream in models]
    tasks = [
        asyncio.create_task(ask(running.url, model, stream=stream, max_tokens=3000, began=event))
        for (model, stream), event in zip(models, begun, strict=True)
    ]
    await asyncio.wait_for(asyncio.gather(*[event.wait() for event in begun if event is not None]), 20)
    await act()
    return await asyncio.gather(*tasks)


def assert_whole(outcomes: list[Outcome], tokens: int) -> None:
    assert [o for o in outcomes if not o.was_answered or o.text != numbered(tokens)] == []


class TestStopping:
    def test_what_can_finish_does_and_what_cannot_says_so(self, gateway: GatewayMaker, simulator: str) -> None:
        running = start(gateway, simulator, GRACEFUL_TIMEOUT="6")
        models = [(QUICK, True)] * 40 + [(ENDLESS, True)] * 30 + [("sim-stall-0", True)] * 10
        models += [("sim-text:tokens=5,ttft_ms=2000", False)] * 10 + [("sim-stall-0", False)] * 10

        async def act() -> None:
            await asyncio.sleep(0.5)  # those that have no first byte to wait for are with the upstream by then
            running.process.terminate()

        outcomes = run(with_requests(running, models, act))
        assert_whole(outcomes[:40], 40)
        for cut in outcomes[40:70]:
            assert cut.was_refused
            assert cut.error is not None
            assert cut.error["code"] == "gateway_stopping"
            assert cut.text == numbered(len(cut.chunks)), "what came until then is in order"
        assert_whole(outcomes[80:90], 5)
        for refused in outcomes[70:80] + outcomes[90:]:
            assert refused.error is not None
            assert (refused.status, refused.error["code"]) == (503, "gateway_stopping")
            assert refused.headers["retry-after"] == "1"
        assert not [o for o in outcomes if o.was_cut_silently]
        assert running.process.wait(5) == 0
        assert "50 answers could not be finished in time" in running.log

    def test_without_requests_it_is_gone_within_seconds(self, gateway: GatewayMaker, simulator: str) -> None:
        running = start(gateway, simulator, GRACEFUL_TIMEOUT="60")
        requests.get(running.url + "/v1", timeout=10)
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert time.monotonic() - began < 8

    def test_a_worker_that_stops_is_not_ready(self, gateway: GatewayMaker, simulator: str) -> None:
        running = start(gateway, simulator, GRACEFUL_TIMEOUT="10")
        with requests.Session() as kept_alive:
            assert kept_alive.get(running.url + "/readyz", timeout=10).status_code == 200
            (worker,) = workers_of(running)
            os.kill(worker, signal.SIGTERM)

            def stops() -> bool:
                answer = kept_alive.get(running.url + "/readyz", timeout=10)
                return answer.status_code == 503

            wait_for(stops, within_s=3, what="the worker says that it stops")


class TestReloading:
    @pytest.mark.parametrize("count", ["1", "2"])
    def test_sighup_replaces_the_workers_and_loses_nothing(
        self, gateway: GatewayMaker, simulator: str, count: str
    ) -> None:
        running = start(gateway, simulator, GRACEFUL_TIMEOUT="20", WEB_CONCURRENCY=count)
        before = workers_of(running)
        answered: list[Outcome] = []

        async def act() -> None:
            running.process.send_signal(signal.SIGHUP)
            while workers_of(running) & before and len(answered) < 400:
                answered.append(await ask(running.url, "sim-text:tokens=3", stream=False))

        outcomes = run(with_requests(running, [(QUICK, True)] * 30, act))
        assert_whole(outcomes, 40)
        assert len(answered) > 10
        assert_whole(answered, 3)
        wait_for(lambda: not workers_of(running) & before and len(workers_of(running)) == int(count), within_s=20)

    @pytest.mark.parametrize("count", ["1", "2"])
    def test_workers_that_have_had_their_requests_are_replaced_and_nothing_is_lost(
        self, gateway: GatewayMaker, simulator: str, count: str
    ) -> None:
        running = start(gateway, simulator, GRACEFUL_TIMEOUT="20", WEB_CONCURRENCY=count, MAX_REQUESTS="60")
        before = workers_of(running)
        answered: list[Outcome] = []

        async def act() -> None:
            gone = time.monotonic() + 30
            while workers_of(running) & before and time.monotonic() < gone:
                answered.extend(
                    await asyncio.gather(*[ask(running.url, "sim-text:tokens=3", stream=False) for _ in range(4)])
                )

        outcomes = run(with_requests(running, [(QUICK, True)] * 20, act))
        assert_whole(outcomes, 40)
        assert_whole(answered, 3)
        assert not workers_of(running) & before
        assert requests.get(running.url + "/v1", timeout=10).ok


def test_counts_outlive_the_workers_that_made_them(gateway: GatewayMaker, simulator: str) -> None:
    running = start(gateway, simulator)
    before = workers_of(running)
    asked: dict[str, Any] = {"model": "sim-text", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    for _ in range(3):
        assert running.post("/v1/chat/completions", asked, headers=CLIENT).ok
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not workers_of(running) & before, within_s=15, what="the workers are new")
    assert running.post("/v1/chat/completions", asked, headers=CLIENT).ok

    def told() -> bool:
        text = running.get("/metrics", headers={}).text
        answers = re.search(r'dragoman_answers_total{connection="conn_\w+",ending="complete"} (\S+)', text)
        return bool(answers and answers[1] == "4.0" and "dragoman_workers 1.0" in text)

    wait_for(told, what="four answers, and one worker")


def test_a_reload_leaves_the_garbage_collector_on() -> None:
    code = (
        "import gc, runpy\n"
        "configuration = runpy.run_path('gunicorn.conf.py')\n"
        "assert not gc.isenabled()\n"
        "configuration['when_ready'](None)\n"
        "assert gc.isenabled()\n"
        "runpy.run_path('gunicorn.conf.py')\n"
        "assert gc.isenabled()\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
