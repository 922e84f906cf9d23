"""Several connections, one of which fails in every way: clients see no failure that could be avoided."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.conftest import ADMIN, ROOT, Gateway, GatewayMaker, free_port, wait_for
from tests.traffic import Outcome, ask, numbered, run


class Upstream:
    """A simulator at a port of its own, which can be stopped and started again there."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "app.cli", "simulator", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "http" in self.process.stdout.readline()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def fault(self, fault: dict[str, Any] | None, times: int | None = None) -> None:
        order = {"key": "*", "fault": fault, "times": times}
        assert requests.post(f"{self.url}/_sim/faults", json=order, timeout=10).ok

    @property
    def asked(self) -> int:
        """Messages asked for so far."""
        entries = requests.get(f"{self.url}/_sim/requests", timeout=10).json()["requests"]
        return sum(entry["path"] == "/v1/messages" for entry in entries)


@contextmanager
def upstreams(count: int) -> Iterator[list[Upstream]]:
    made = [Upstream() for _ in range(count)]
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.stop()


@pytest.fixture
def two() -> Iterator[list[Upstream]]:
    with upstreams(2) as made:
        yield made


def start(gateway: GatewayMaker, used: list[Upstream], **variables: str) -> Gateway:
    """A gateway that prefers the first."""
    configs = ", ".join(f'"{i}": {{"name": "no{i + 1}", "priority": {i}}}' for i in range(len(used)))
    return gateway(
        **{
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": ",".join(f"sk-ant-account-{i + 1}" for i in range(len(used))),
            "ANTHROPIC_API_BASE_URLS": ",".join(each.url for each in used),
            "ANTHROPIC_API_CONFIGS": "{" + configs + "}",
            **variables,
        }
    )


def many(running: Gateway, count: int, *, stream: bool | None = None, at_once: int = 8) -> list[Outcome]:
    """Streams and JSON answers in turn."""

    async def all_of_them() -> list[Outcome]:
        free = asyncio.Semaphore(at_once)

        async def one(number: int) -> Outcome:
            async with free:
                streamed = number % 2 == 0 if stream is None else stream
                return await ask(running.url, f"sim-text:tokens={5 + number % 7}", stream=streamed)

        return await asyncio.gather(*[one(number) for number in range(count)])

    return run(all_of_them())


def served(running: Gateway) -> dict[str, int]:
    """How many attempts each connection answered."""
    ready = running.get("/readyz").json()
    names = {connection["id"]: connection["name"] for connection in ready["connections"]}
    text = running.get("/metrics", headers={}).text
    found = re.findall(r'dragoman_attempts_total{connection="(\w+)",outcome="answered"} (\S+)', text)
    return {names[id]: int(float(count)) for id, count in found}


def connection(running: Gateway, number: int) -> dict[str, Any]:
    found: dict[str, Any] = running.get("/readyz").json()["connections"][number]
    return found


def assert_all_answered(outcomes: list[Outcome]) -> None:
    wrong = [o for o in outcomes if not o.was_answered or o.text != numbered(int(o.model.split("=")[1]))]
    assert wrong == []


def test_a_rate_limit_sends_clients_elsewhere_until_its_time_has_come(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    first, second = two
    running = start(gateway, two)
    first.fault({"status": 429, "retry_after": 3})
    assert_all_answered(many(running, 12, at_once=1))
    assert (first.asked, second.asked) == (7, 12), "each of the seven models is tried there once"
    first.fault(None)
    assert [out["reason"] for out in connection(running, 0)["out"]] == ["cooling_down"] * 7
    assert running.get("/readyz").json()["status"] == "degraded"
    wait_for(lambda: connection(running, 0)["out"] == [], within_s=5, what="the cool-down is over")
    assert_all_answered(many(running, 12))
    assert (first.asked, second.asked) == (19, 12)
    assert served(running) == {"no1": 12, "no2": 12}


def test_an_attempt_that_failed_stands_in_the_log_with_the_id_that_the_client_has(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    first, _ = two
    running = start(gateway, two)
    first.fault({"status": 429, "retry_after": 3})
    answered = run(ask(running.url, "sim-text:tokens=5"))
    assert_all_answered([answered])
    assert f"{answered.headers['x-gateway-request-id']}: no1 failed (429): " in running.log


@pytest.mark.parametrize("fault", [{"status": 529}, {"status": 500}, {"reset": True}])
def test_a_connection_that_fails_again_and_again_is_left_out_and_tried_by_one(
    gateway: GatewayMaker, two: list[Upstream], fault: dict[str, Any]
) -> None:
    first, second = two
    running = start(gateway, two)
    first.fault(fault)
    outcomes = [run(ask(running.url, "sim-text:tokens=5")) for _ in range(10)]
    assert_all_answered(outcomes)
    # A connection that was kept open and turns out to be closed is not the upstream's failure: it is asked once more.
    tried = first.asked
    assert tried == 3 or ("reset" in fault and tried == 4)
    assert second.asked == 10
    first.fault(None)
    wait_for(lambda: connection(running, 0)["out"] == [], within_s=8, what="its pause is over")
    assert_all_answered([run(ask(running.url, "sim-text:tokens=5")) for _ in range(5)])
    assert (first.asked, second.asked) == (tried + 5, 10)


def test_a_host_that_refuses_connections_costs_no_answer_and_is_used_once_it_is_back(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    first, second = two
    running = start(gateway, two)
    assert_all_answered(many(running, 10))
    first.stop()
    assert_all_answered(many(running, 20))
    assert second.asked == 20
    assert connection(running, 0)["out"][0]["reason"] == "failing"
    first.start()
    wait_for(lambda: connection(running, 0)["out"] == [], within_s=8, what="its pause is over")
    assert_all_answered(many(running, 1))
    assert_all_answered(many(running, 10))
    assert (first.asked, second.asked) == (11, 20)


def test_answers_cut_before_the_client_has_a_byte_come_from_elsewhere(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    first, second = two
    running = start(gateway, two)
    first.fault({"cut_after": 4})
    whole = many(running, 2, stream=False, at_once=1)
    assert_all_answered(whole)
    assert (first.asked, second.asked) == (2, 2)
    streamed = many(running, 6, stream=True, at_once=1)
    assert [o.was_refused for o in streamed] == [True] + [False] * 5, "a stream that has begun cannot be saved"
    assert streamed[0].error is not None
    assert streamed[0].error["code"] == "upstream_disconnected"
    assert_all_answered(streamed[1:])
    assert connection(running, 0)["out"][0]["reason"] == "failing"


def test_when_all_are_at_their_limit_it_is_a_429_with_the_shortest_wait(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    running = start(gateway, two)
    for upstream, wait in zip(two, (40, 20), strict=True):
        upstream.fault({"status": 429, "retry_after": wait})
    for _ in range(2):
        outcome = run(ask(running.url, "sim-text"))
        assert outcome.error is not None
        assert (outcome.status, outcome.error["code"]) == (429, "rate_limit_exceeded")
        assert 18 <= int(outcome.headers["retry-after"]) <= 20
        assert "x-should-retry" not in outcome.headers
        assert "no1: " in outcome.error["message"]
        assert "no2: " in outcome.error["message"]
    assert [upstream.asked for upstream in two] == [1, 1], "they are not asked again before their time"


def test_what_is_told_to_one_client_is_not_told_to_the_next(gateway: GatewayMaker) -> None:
    with upstreams(1) as (only,):
        running = start(gateway, [only])
        only.fault({"status": 429, "retry_after": 12})
        asked, spared = (run(ask(running.url, "sim-text")) for _ in range(2))
        assert (asked.status, spared.status, only.asked) == (429, 429, 1)
        assert asked.headers["x-request-id"].startswith("req_")
        assert asked.headers["x-request-id"] != spared.headers["x-request-id"]
        assert spared.error is not None
        assert spared.error["upstream"]["request_id"] is None
        assert not [name for name in spared.headers if "ratelimit" in name]


@pytest.mark.parametrize("stream", [True, False])
def test_of_several_choices_each_may_come_from_where_it_is_to_be_had(
    gateway: GatewayMaker, two: list[Upstream], stream: bool
) -> None:
    running = start(gateway, two)
    # The first call finds the first connection well, the second one does not.
    two[0].fault({"delay_s": 0.2}, times=1)

    async def both() -> Outcome:
        asked = asyncio.create_task(ask(running.url, "sim-text:tokens=3,ttft_ms=300", stream=stream, n=2, max_tokens=5))
        while two[0].asked < 1:
            await asyncio.sleep(0.01)  # the simulator announces nothing
        two[0].fault({"status": 500})
        return await asked

    outcome = run(both())
    assert outcome.was_answered
    assert (two[0].asked, two[1].asked) == (2, 1)


def test_when_all_fail_the_message_names_each_and_no_secret(gateway: GatewayMaker) -> None:
    with upstreams(3) as three:
        running = start(gateway, three)
        three[0].fault({"status": 529})
        three[1].fault({"status": 401, "message": "invalid x-api-key sk-ant-account-2"})
        three[2].stop()
        for stream in (True, False):
            outcome = run(ask(running.url, "sim-text", stream=stream))
            assert outcome.error is not None
            assert (outcome.status, outcome.error["code"]) == (503, "all_connections_failed")
            assert outcome.headers["x-should-retry"] == "false"
            message = outcome.error["message"]
            assert all(f"{name}: " in message for name in ("no1", "no2", "no3"))
            assert "could not be reached" in message
            assert "sk-ant-account" not in message
        reasons = " ".join(running.get("/readyz").json()["reasons"])
        assert "no2: key refused" in reasons
        assert "sk-ant-account" not in reasons


def test_the_only_connection_is_asked_a_second_time_when_it_breaks(gateway: GatewayMaker) -> None:
    with upstreams(1) as (only,):
        running = start(gateway, [only])
        only.fault({"status": 500}, times=1)
        assert run(ask(running.url, "sim-text:tokens=3")).text == numbered(3)
        assert only.asked == 2
        only.fault({"reset": True}, times=1)
        assert run(ask(running.url, "sim-text:tokens=3", stream=False)).text == numbered(3)
        only.fault({"status": 500})
        outcome = run(ask(running.url, "sim-text"))
        assert (outcome.status, outcome.headers["x-should-retry"]) == (500, "false")


def test_the_only_connection_is_asked_however_often_it_failed(gateway: GatewayMaker) -> None:
    with upstreams(1) as (only,):
        running = start(gateway, [only])
        only.fault({"status": 401}, times=6)
        for _ in range(6):
            assert run(ask(running.url, "sim-text")).status == 503
        assert run(ask(running.url, "sim-text:tokens=3")).text == numbered(3)
        assert connection(running, 0)["out"] == []


def test_a_key_that_is_changed_is_asked_at_once(gateway: GatewayMaker, two: list[Upstream]) -> None:
    running = start(gateway, two, ANTHROPIC_API_KEYS="sk-ant-invalid-key,sk-ant-good-key")
    assert_all_answered(many(running, 5))
    assert connection(running, 0)["out"][0]["reason"] == "key_refused"
    assert running.post("/config/update", {"ANTHROPIC_API_KEYS": ["sk-ant-new-key", "sk-ant-good-key"]}).ok
    wait_for(lambda: connection(running, 0)["out"] == [], what="the new key has a clean record")
    before = two[1].asked
    assert_all_answered(many(running, 5))
    assert two[1].asked == before


def test_a_conversation_stays_on_its_connection_and_conversations_spread_by_weight(
    gateway: GatewayMaker, two: list[Upstream]
) -> None:
    configs = '{"0": {"name": "no1", "weight": 3}, "1": {"name": "no2"}}'
    running = start(gateway, two, ANTHROPIC_API_CONFIGS=configs)

    def turn(number: int, turns: int) -> None:
        messages = [{"role": "user", "content": f"conversation {number}"}]
        for _ in range(turns):
            messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on."}]
        outcome = run(ask(running.url, "sim-text:tokens=2", stream=False, messages=messages))
        assert outcome.was_answered

    for number in range(40):
        turn(number, 0)
    first = served(running)
    assert 20 <= first["no1"] <= 38
    assert first["no1"] + first["no2"] == 40
    for turns in (1, 2):
        for number in range(40):
            turn(number, turns)
    assert served(running) == {name: 3 * count for name, count in first.items()}


def test_every_worker_answers_for_all(gateway: GatewayMaker, two: list[Upstream]) -> None:
    running = start(gateway, two, WEB_CONCURRENCY="2")
    two[0].fault({"status": 401})
    assert_all_answered(many(running, 40, at_once=20))

    def told() -> bool:
        answers = [requests.get(f"{running.url}/readyz", headers=ADMIN, timeout=10).json() for _ in range(6)]
        return all(
            len(answer["workers"]) == 2 and {out["worker"] for out in answer["connections"][0]["out"]} == pids
            for answer in answers
        )

    pids = {worker["pid"] for worker in wait_for(lambda: _both(running), what="both workers have published")}
    wait_for(told, what="each worker tells of both")
    out = f'dragoman_connection_out{{connection="{connection(running, 0)["id"]}"'
    text = wait_for(lambda: _told(running, f'{out},reason="key_refused"}} 2.0'), what="the metrics tell of both")
    assert f'{out},reason="failing"}} 0.0' in text


def _told(running: Gateway, line: str) -> str | None:
    text = running.get("/metrics", headers={}).text
    return text if line in text else None


def _both(running: Gateway) -> list[dict[str, Any]] | None:
    workers: list[dict[str, Any]] = running.get("/readyz").json()["workers"]
    return workers if len(workers) == 2 else None


def test_a_connection_that_is_removed_leaves_no_socket_behind(gateway: GatewayMaker, two: list[Upstream]) -> None:
    running = start(gateway, two)
    assert_all_answered(many(running, 20))
    assert sockets_to(two[0].port)
    assert running.post(
        "/config/update",
        {"ANTHROPIC_API_KEYS": ["sk-ant-account-2"], "ANTHROPIC_API_BASE_URLS": [two[1].url]},
    ).ok
    wait_for(lambda: not sockets_to(two[0].port), what="its sockets are closed")


def sockets_to(port: int) -> int:
    """Established connections of this machine to a port of its own."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
