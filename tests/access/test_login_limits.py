"""Throttled sign-ins with a real Redis: processes agree, and sign-in still works while Redis is away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.access.login_limits import LoginLimits
from app.errors import TooManyRequests
from tests.conftest import free_port, needs, wait_for


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    program = needs("redis-server", install="redis-server")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    # The program goes by the name it is called by.
    process = subprocess.Popen(["redis-server", *arguments], executable=program, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"

    def answers() -> bool:
        client = redis.Redis.from_url(url)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()

    try:
        wait_for(answers, what="Redis answers")
        yield url, process
    finally:
        process.terminate()
        process.wait(10)


def test_processes_agree_on_failed_sign_ins(redis_server: tuple[str, subprocess.Popen[bytes]]) -> None:
    one, other = LoginLimits(redis_server[0]), LoginLimits(redis_server[0])
    for _ in range(10):
        one.count("192.0.2.1", "ann")
    with pytest.raises(TooManyRequests) as caught:
        other.count("192.0.2.2", "ann")
    assert int(caught.value.headers["retry-after"]) > 0
    other.count("192.0.2.2", "bob")
    other.forget("ann")
    one.count("192.0.2.1", "ann")


def test_an_attempt_that_is_taken_back_was_none(redis_server: tuple[str, subprocess.Popen[bytes]]) -> None:
    for url in (redis_server[0], ""):
        limits = LoginLimits(url)
        for _ in range(30):
            limits.count("192.0.2.1", "ann")
            limits.take_back("192.0.2.1", "ann")
        for _ in range(10):
            limits.count("192.0.2.1", "ann")
        with pytest.raises(TooManyRequests):
            limits.count("192.0.2.1", "ann")


def test_sign_in_works_while_redis_is_away(redis_server: tuple[str, subprocess.Popen[bytes]]) -> None:
    limits = LoginLimits(redis_server[0])
    limits.forget("ann")
    redis_server[1].kill()
    redis_server[1].wait(10)
    for _ in range(10):
        limits.count("192.0.2.1", "ann")
    with pytest.raises(TooManyRequests):
        limits.count("192.0.2.1", "ann")
