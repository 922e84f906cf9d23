"""Whoever has an answer whole has it in the books: real gateways, of which workers are killed at any moment."""

from __future__ import annotations

import collections
import os
import random
import re
import signal
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import requests

from app.storage import ledger
from tests.conftest import CLIENT, Gateway, GatewayMaker, wait_for

MODELS = ("sim-text:tokens=9", "sim-text:tokens=60,gap_ms=2", "sim-thinking", "sim-cut-6", "sim-error-529", "sim-pause")
SUMS = "requests, input_tokens, output_tokens, cost_micros"
TOKENS = tuple(name for name in ledger.TOKENS if name.endswith("_tokens"))
COUNTED = re.compile(
    r'dragoman_(?P<name>booked_requests|tokens|cost_micros)_total{(?:class="(?P<kind>\w+)",)?.*} (?P<value>\S+)'
)


class Asking:
    """Clients that ask until they are told to stop. `whole` has what each answer that came whole said of its usage."""

    def __init__(self, running: Gateway) -> None:
        self._running = running
        self._stop = threading.Event()
        self.whole: dict[str, tuple[int, int]] = {}
        self.asked = 0
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in range(6)]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self) -> None:
        seen = len(self.whole)
        wait_for(lambda: len(self.whole) > seen + 15, within_s=20, what="whole answers")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            is_stream = chance.random() < 0.5
            body = {
                "model": chance.choice(MODELS),
                "messages": [{"role": "user", "content": "hi"}],
                "stream": is_stream,
                "stream_options": {"include_usage": True},
                "n": chance.choice((1, 1, 1, 2)),
            }
            self.asked += 1
            with suppress(requests.RequestException):
                url = f"{self._running.url}/v1/chat/completions"
                with requests.post(url, json=body, headers=CLIENT, stream=is_stream, timeout=20) as answer:
                    if chance.random() < 0.1:
                        continue  # the client is gone
                    usage = self._usage(answer, is_stream)
                    if answer.status_code == 200 and usage is not None:
                        counts = (usage["prompt_tokens"], usage["completion_tokens"])
                        self.whole[answer.headers["x-gateway-request-id"]] = counts

    def _usage(self, answer: requests.Response, is_stream: bool) -> Any:
        if not is_stream:
            return answer.json().get("usage")
        text = answer.content.decode()
        if not text.endswith("data: [DONE]\n\n"):
            return None
        return next(chunk["usage"] for line in text.splitlines() if (chunk := _chunk(line)).get("usage"))


def _chunk(line: str) -> Any:
    return orjson.loads(line[6:]) if line.startswith("data: {") else {}


def rows(running: Gateway, variables: dict[str, str], query: str) -> list[tuple[Any, ...]]:
    url = variables.get("DATABASE_URL")
    if url is None:
        with closing(sqlite3.connect(running.instance / "dragoman.db")) as database:
            return database.execute(query).fetchall()
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(params=["sqlite", "postgresql"])
def variables(request: pytest.FixtureRequest, simulator: str) -> dict[str, str]:
    made = {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
        "ANTHROPIC_API_BASE_URLS": simulator,
        "WEB_CONCURRENCY": "2",
        "IDLE_TIMEOUT_S": "5",
        "MODEL_PRICES": orjson.dumps({model.partition(":")[0]: {"input": 1, "output": 5} for model in MODELS}).decode(),
    }
    if request.param == "postgresql":
        made.update(
            DATABASE_URL=request.getfixturevalue("postgresql").new_database(),
            SECRET_KEY="a secret key of the tests alone",
        )
    return made


def workers(running: Gateway) -> list[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_each_whole_answer_is_one_row_whatever_is_killed_meanwhile(
    gateway: GatewayMaker, variables: dict[str, str]
) -> None:
    running = gateway(**variables)
    asking = Asking(running)
    chance = random.Random(7)
    for _ in range(6):
        asking.wait_for_more()
        os.kill(chance.choice(workers(running)), signal.SIGKILL)
    wait_for(lambda: len(workers(running)) == 2, within_s=10)
    asking.wait_for_more()
    running.kill()
    asking.stop()
    assert list((running.instance / "journal").iterdir())
    again = gateway(**variables, INSTANCE_PATH=str(running.instance))
    wait_for(lambda: again.get("/healthz").status_code == 200)
    wait_for(lambda: len(list((running.instance / "journal").iterdir())) <= 2, within_s=15, what="nothing is left")
    again.stop()

    booked = rows(running, variables, "SELECT id, input_tokens, output_tokens, ending FROM requests")
    by_id = {id: (tokens_in, tokens_out) for id, tokens_in, tokens_out, _ in booked}
    assert len(by_id) == len(booked)
    assert {id: by_id.get(id) for id in asking.whole} == asking.whole
    endings = collections.Counter(ending for *_, ending in booked)
    assert endings["worker_lost"] > 0
    assert endings["complete"] >= len(asking.whole)
    assert len(booked) <= asking.asked
    told = "count(*), sum(input_tokens), sum(output_tokens), sum(coalesce(cost_micros, 0))"
    sums = ", ".join(f"sum({name})" for name in SUMS.split(", "))
    (of_rows,) = rows(running, variables, f"SELECT {told} FROM requests")
    for table in ("usage_hours", "usage_keys"):
        assert rows(running, variables, f"SELECT {sums} FROM {table}") == [of_rows]
    assert not Path(running.instance / "journal" / "left-out.jsonl").exists()


def test_metrics_say_what_the_rows_say_when_the_workers_have_been_replaced(
    gateway: GatewayMaker, variables: dict[str, str]
) -> None:
    running = gateway(**variables)
    asking = Asking(running)
    asking.wait_for_more()
    before = workers(running)
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(workers(running)) == 2 and not {*workers(running)} & {*before}, within_s=20, what="the reload")
    asking.wait_for_more()
    asking.stop()
    columns = ", ".join(f"sum({name})" for name in (*TOKENS, "coalesce(cost_micros, 0)"))

    def told() -> tuple[int, ...]:
        """Of what /metrics counts: rows, each kind of tokens, micro-dollars."""
        found: collections.Counter[str] = collections.Counter()
        for line in running.get("/metrics", headers={}).text.splitlines():
            match = COUNTED.match(line)
            if match:
                found[match["kind"] or match["name"]] += int(float(match["value"]))
        kinds = [name.removesuffix("_tokens") for name in TOKENS]
        return found["booked_requests"], *(found[kind] for kind in kinds), found["cost_micros"]

    def booked() -> tuple[int, ...]:
        ((count, *sums),) = rows(running, variables, f"SELECT count(*), {columns} FROM requests")
        return count, *map(int, sums)

    wait_for(lambda: told() == booked(), what=f"{told()} is {booked()}")
    assert told()[0] >= len(asking.whole) > 30
