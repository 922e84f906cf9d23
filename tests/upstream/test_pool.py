"""Which connections a conversation may go to, in which order, and what is said when none answers."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.blueprints.chat_request import conversation
from app.errors import UpstreamError
from app.settings import Settings
from app.storage.connections import Connection
from app.upstream.client import UpstreamClient
from app.upstream.health import Reason
from app.upstream.pool import MOST_ATTEMPTS, Pool, all_failed, in_order

MODEL = "claude-a"


def connection(number: int, **more: Any) -> Connection:
    return Connection(f"conn_{number}", number, "https://upstream.example", f"key-{number}", name=f"no{number}", **more)


def names(connections: Any) -> list[str]:
    return [c.name for c in connections]


def first(connections: list[Connection], affinity: bytes) -> Connection:
    return in_order([(c, MODEL) for c in connections], affinity)[0][0]


CONVERSATIONS = [f"conversation {number}".encode() for number in range(4000)]


def test_a_lower_priority_number_goes_first_whatever_the_weight() -> None:
    used = [connection(0, priority=1, weight=100.0), connection(1), connection(2, priority=2, weight=100.0)]
    for affinity in CONVERSATIONS[:100]:
        assert names(c for c, _ in in_order([(c, MODEL) for c in used], affinity)) == ["no1", "no0", "no2"]


def test_conversations_spread_by_weight() -> None:
    used = [connection(0, weight=1.0), connection(1, weight=2.0), connection(2, weight=5.0)]
    counts = Counter(first(used, affinity).name for affinity in CONVERSATIONS)
    shares = [counts[f"no{number}"] / len(CONVERSATIONS) for number in range(3)]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)


def test_a_connection_that_goes_moves_only_its_own_conversations() -> None:
    used = [connection(number) for number in range(5)]
    for affinity in CONVERSATIONS[:500]:
        before = first(used, affinity)
        after = first([c for c in used if c.name != "no2"], affinity)
        assert after == before or before.name == "no2"


def test_more_weight_takes_conversations_only_to_itself() -> None:
    used = [connection(number) for number in range(4)]
    heavier = [replace(c, weight=3.0) if c.name == "no1" else c for c in used]
    moved = [(first(used, a).name, first(heavier, a).name) for a in CONVERSATIONS[:500]]
    assert {new for old, new in moved if old != new} == {"no1"}


@given(st.lists(st.sampled_from(["system", "developer"]), max_size=2), st.integers(1, 4), st.text(max_size=50))
def test_a_conversation_begins_the_same_however_long_it_has_become(roles: list[str], turns: int, said: str) -> None:
    start = [{"role": role, "content": "Be kind."} for role in roles] + [{"role": "user", "content": said}]
    grown = start + [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "More."}] * turns
    assert conversation({"messages": start}, "key") == conversation({"messages": grown}, "key")
    assert conversation({"messages": start}, "key") != conversation({"messages": grown}, "another key")


@pytest.mark.parametrize(
    "content",
    [None, 5, [], [None], ["x"], [{"type": "text"}], [{"type": "text", "text": 5}], "\ud800", {"a": 1}],
)
def test_a_beginning_of_any_kind_is_one(content: Any) -> None:
    assert conversation({"messages": [{"role": "user", "content": content}, "no message"]}, "key").startswith(b"key")


def test_a_large_beginning_is_not_read_whole() -> None:
    parts = [{"type": "text", "text": "x" * 1_000_000}] * 100
    assert len(conversation({"messages": [{"role": "user", "content": parts}]}, "key")) < 50_000


def failure(reason: Reason) -> UpstreamError:
    status, code = {
        "cooling_down": (429, "rate_limit_exceeded"),
        "failing": (502, "upstream_unreachable"),
        "key_refused": (503, "upstream_authentication_failed"),
        "out_of_funds": (429, "insufficient_quota"),
    }[reason]
    headers = {"retry-after": "30", "retry-after-ms": "30000"} if reason == "cooling_down" else {}
    return UpstreamError(f"{reason}.", status=status, type="server_error", code=code, headers=headers)


def pool_with(**states: Reason | None) -> tuple[Pool, list[tuple[Connection, str]]]:
    """Connections no0, no1, … of one priority each, in this order, with what took them out."""
    pool = Pool(Settings())
    targets = []
    for number, reason in enumerate(states.values()):
        made = connection(number, priority=number)
        targets.append((made, MODEL))
        for _ in range(3 if reason else 0):
            assert reason
            pool.client(made).health.failed(MODEL, failure(reason), time.monotonic())
    return pool, targets


def test_those_that_fail_come_last_and_those_at_their_limit_not_at_all() -> None:
    pool, targets = pool_with(a="key_refused", b="cooling_down", c="failing", d=None)
    plan = pool.plan(targets)
    assert names(plan.connections) == ["no3", "no2", "no0"]
    assert [(c.name, e.code) for c, e in plan.left_out] == [("no1", "rate_limit_exceeded")]


def test_at_most_three_are_tried() -> None:
    pool, targets = pool_with(a=None, b=None, c=None, d=None)
    assert names(pool.plan(targets).connections) == ["no0", "no1", "no2"]
    assert MOST_ATTEMPTS == 3


def test_when_all_are_at_their_limit_nothing_is_tried() -> None:
    pool, targets = pool_with(a="cooling_down", b="cooling_down")
    with pytest.raises(UpstreamError) as caught:
        pool.plan(targets)
    assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "30")


@pytest.mark.parametrize(
    ("reasons", "status", "code", "wait", "retry"),
    [
        (["cooling_down", "cooling_down"], 429, "rate_limit_exceeded", "30", None),
        (["cooling_down", "key_refused"], 429, "rate_limit_exceeded", "30", None),
        (["cooling_down", "out_of_funds"], 429, "rate_limit_exceeded", "30", None),
        (["cooling_down", "failing"], 503, "all_connections_failed", "30", "false"),
        (["failing", "failing"], 503, "all_connections_failed", None, "false"),
        (["key_refused", "key_refused"], 503, "upstream_authentication_failed", None, "false"),
        (["out_of_funds", "out_of_funds"], 429, "insufficient_quota", None, "false"),
        (["out_of_funds", "key_refused"], 503, "all_connections_failed", None, "false"),
    ],
)
def test_what_is_said_when_all_have_failed(
    reasons: list[Reason], status: int, code: str, wait: str | None, retry: str | None
) -> None:
    told = all_failed([(connection(number), failure(reason)) for number, reason in enumerate(reasons)])
    assert (told.status, told.code) == (status, code)
    assert (told.headers.get("retry-after"), told.headers.get("x-should-retry")) == (wait, retry)
    assert told.message == f"No connection could answer. no0: {reasons[0]}; no1: {reasons[1]}."


def test_sockets_and_record_survive_a_new_name_but_not_a_new_key() -> None:
    pool = Pool(Settings())
    old = connection(1)

    def client_of(changed: Connection) -> UpstreamClient:
        pool.follow([changed])
        client = pool.client(changed)
        assert client.connection == changed
        return client

    client = client_of(old)
    renamed = client_of(replace(old, name="another name"))
    assert (renamed.transport, renamed.health) == (client.transport, client.health)
    rekeyed = client_of(replace(old, key="another"))
    assert rekeyed.transport is not client.transport
    assert rekeyed.health is not client.health
    headers = client_of(replace(old, key="another", headers=MappingProxyType({"x": "y"})))
    assert headers.transport is not rekeyed.transport


@pytest.mark.parametrize("was_used", [True, False])
def test_a_request_that_began_before_a_rotation_goes_on_with_the_new_key(was_used: bool) -> None:
    pool = Pool(Settings())
    old = connection(1)
    new = replace(old, key="the new key")
    pool.follow([old])
    if was_used:
        pool.client(old)
    pool.follow([new])
    client = pool.client(old)
    assert client.connection == new
    assert pool.client(new) is client


def test_only_configured_connections_keep_a_client() -> None:
    pool = Pool(Settings())
    used = [connection(number) for number in range(3)]
    clients = [pool.client(c) for c in used]
    pool.follow(used[1:])
    assert pool.client(used[1]) is clients[1]
    assert pool.client(used[0]) is not clients[0]
