"""Clients that vanish in the middle of a crowd: each is noticed upstream within two seconds, nobody else suffers."""

from __future__ import annotations

import asyncio
import random
import time

import requests

from tests.conftest import GatewayMaker, wait_for
from tests.traffic import Outcome, ask, numbered, run

STAYS = "sim-text:tokens={tokens},gap_ms=40"
PHASES = (
    ("sim-text:tokens=400,gap_ms=40", True),
    ("sim-text:tokens=400,gap_ms=40,ttft_ms=8000", True),
    ("sim-slow-headers:delay_ms=20000", True),
    ("sim-stall-4", True),
    ("sim-text:tokens=50,ttft_ms=20000", False),
    ("sim-text:tokens=2000,gap_ms=40", True),
)


def test_a_hundred_that_leave_are_noticed_and_a_hundred_that_stay_are_served(
    gateway: GatewayMaker, simulator: str
) -> None:
    running = gateway(
        ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS="sk-ant-vanishing", ANTHROPIC_API_BASE_URLS=simulator
    )
    chance = random.Random(7)

    async def crowd() -> list[Outcome]:
        tasks = []
        for number in range(100):
            model, stream = PHASES[number % len(PHASES)]
            after_s = chance.uniform(1.5, 5.0)
            tasks.append(ask(running.url, model, stream=stream, max_tokens=3000, leave_after_s=after_s))
            tasks.append(ask(running.url, STAYS.format(tokens=20 + number), max_tokens=3000))
        return await asyncio.gather(*tasks)

    before = requests.get(f"{simulator}/_sim/stats", timeout=10).json()
    offset = time.time() - time.monotonic()
    outcomes = run(crowd())
    gone, stayed = outcomes[0::2], outcomes[1::2]
    assert all(outcome.left for outcome in gone)
    for number, outcome in enumerate(stayed):
        assert outcome.was_answered
        assert outcome.is_done
        assert outcome.text == numbered(20 + number)

    def all_closed() -> bool:
        now = requests.get(f"{simulator}/_sim/stats", timeout=10).json()
        return bool(now["aborted_by_client"] - before["aborted_by_client"] == 100 and now["live"] == before["live"])

    wait_for(all_closed, within_s=3, what="the simulator has seen a hundred clients leave")
    aborts = requests.get(f"{simulator}/_sim/stats", timeout=10).json()["last_aborts"][-100:]
    left = sorted(outcome.ended + offset for outcome in gone)
    delays = [seen - told for seen, told in zip(sorted(aborts), left, strict=True)]
    assert max(delays) < 2.0, delays
    assert min(delays) > -0.2, "each is seen after it happened"
