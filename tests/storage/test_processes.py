"""What only real processes show: gunicorn's gevent workers, two nodes, kill -9, a lock held by somebody else."""

import contextlib
import functools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from typing import Any

import psycopg
import pytest
import requests

from tests.conftest import ADMIN, wait_for

KILLS = int(os.environ.get("DRAGOMAN_KILLS", "10"))
KEY = "sk-ant-api03-" + "x" * 40 + "wxyz"
WITHIN_S = 1.0  # what the design promises


@pytest.fixture(params=["sqlite", "postgresql"])
def variables(request, tmp_path):
    """The environment of gateways that share a database."""
    if request.param == "sqlite":
        return {"INSTANCE_PATH": str(tmp_path / "instance")}
    server = request.getfixturevalue("postgresql")
    return {"DATABASE_URL": server.new_database(), "SECRET_KEY": "a secret key of the tests alone"}


def workers(gateway, count):
    """Generation by worker, seen over fresh connections until each of `count` workers answered."""
    seen: dict[int, int] = {}

    def all_seen():
        try:
            details = gateway.get("/readyz", timeout=2).json()
        except requests.RequestException:
            return False
        seen[details["worker"]["pid"]] = details["generation"]
        return len(seen) == count

    wait_for(all_seen, within_s=20, what=f"{count} workers answer")
    return seen


def test_a_change_reaches_every_worker_within_a_second(gateway, variables):
    running = gateway(**variables, WEB_CONCURRENCY="2")
    workers(running, 2)
    generation = running.post("/config/update", {"ENABLE_ANTHROPIC_API": True}).json()["generation"]

    def published():  # by each worker when it has followed; the one that answers does so at once
        return [worker["generation"] for worker in running.get("/readyz").json()["workers"]]

    wait_for(lambda: published() == [generation] * 2, within_s=WITHIN_S, what="both workers have followed")


def test_two_nodes_see_each_others_changes_and_revocations_within_a_second(gateway, variables):
    one, other = gateway(**variables), gateway(**variables)
    one.post("/config/update", {"ENABLE_ANTHROPIC_API": True})

    def is_enabled():
        return other.get("/models").json().get("error", {}).get("code") != "integration_disabled"

    wait_for(is_enabled, within_s=WITHIN_S, what="the other node follows")


def test_a_change_survives_a_restart(gateway, variables):
    first = gateway(**variables)
    first.post("/config/update", {"ANTHROPIC_API_KEYS": [KEY], "COMPAT": "strict"})
    first.stop()
    shown = gateway(**variables, ANTHROPIC_API_KEYS="from-the-environment").get("/config?all=true&reveal=true").json()
    assert shown["ANTHROPIC_API_KEYS"] == [KEY]
    assert shown["COMPAT"] == "strict"


def test_an_acknowledged_change_survives_kill_9(gateway, variables):
    """Two settings change together; whatever was acknowledged is there after the kill, and never half of it. The worker
    is killed (its successor comes in a moment), and at last the whole service."""
    running = gateway(**variables)
    acknowledged, number = 0, 0

    def change() -> None:
        nonlocal acknowledged, number
        number += 1
        values = {"IDLE_TIMEOUT_S": number, "MODEL_ALIASES": {"alias": str(number)}}
        assert running.post("/config/update", values, timeout=5).status_code == 200
        acknowledged = number

    for kill in range(KILLS):
        change()  # a worker that dies before it has answered anything would show the defaults
        (worker,) = workers(running, 1)
        last = kill == KILLS - 1
        blow = running.kill if last else functools.partial(os.kill, worker, signal.SIGKILL)
        killer = threading.Timer(random.uniform(0.05, 0.3), blow)
        killer.start()
        with contextlib.suppress(requests.RequestException):
            while killer.is_alive():
                change()
        killer.join()
        running = gateway(**variables) if last else running
        found = wait_for(functools.partial(answer_of, running), what="the successor answers")
        assert acknowledged <= found["IDLE_TIMEOUT_S"] <= number
        assert found["MODEL_ALIASES"] == {"alias": str(found["IDLE_TIMEOUT_S"])}
    assert acknowledged >= KILLS


def answer_of(running):
    with contextlib.suppress(requests.RequestException):
        return running.get("/config?all=true", timeout=2).json()
    return None


def test_a_held_sqlite_lock_stops_the_writer_and_nobody_else(gateway):
    running = gateway()
    running.get("/config")
    with contextlib.closing(sqlite3.connect(running.instance / "dragoman.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        answers: list[requests.Response] = []
        writer = threading.Thread(
            target=lambda: answers.append(running.post("/config/update", {"COMPAT": "strict"})), daemon=True
        )
        writer.start()
        slowest, until = 0.0, time.monotonic() + 3
        while time.monotonic() < until:
            started = time.monotonic()
            assert running.get("/healthz").status_code == 200
            assert running.get("/config").status_code == 200  # reads the database
            slowest = max(slowest, time.monotonic() - started)
        assert not answers
        assert slowest < 0.5
        holder.execute("ROLLBACK")
        writer.join(10)
    assert answers[0].status_code == 200


def test_a_lock_held_too_long_is_a_503_and_nothing_is_saved(gateway, variables):
    running = gateway(**variables)
    holder: Any
    if "DATABASE_URL" in variables:
        holder = psycopg.connect(variables["DATABASE_URL"])
        holder.execute("SELECT * FROM generation FOR UPDATE")
    else:
        holder = sqlite3.connect(running.instance / "dragoman.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
    try:
        answer = running.post("/config/update", {"COMPAT": "strict"})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert "locked" in answer.json()["error"]["message"]
        assert running.get("/config?all=true").json()["COMPAT"] == "lenient"
    finally:
        holder.close()
    assert running.post("/config/update", {"COMPAT": "strict"}).status_code == 200


def test_a_revoked_key_is_refused_by_every_worker_within_a_second(gateway, variables, make_settings):
    from app import create_storage_app
    from app.storage import database

    running = gateway(**variables, WEB_CONCURRENCY="2")
    outside = create_storage_app(
        make_settings(database_url=variables.get("DATABASE_URL", ""), secret_key=variables.get("SECRET_KEY", ""))
    )
    ring = outside.extensions["dragoman"].keys
    key, secret = ring.create(name="laptop", who="tester")

    def statuses():
        return {running.get("/v1/models", headers={"x-api-key": secret}).status_code for _ in range(12)}

    assert statuses() == {503}  # known; the integration is disabled
    ring.revoke(key.id, who="tester")
    wait_for(lambda: statuses() == {401}, within_s=WITHIN_S, what="both workers refuse the key")
    database.engine_of(outside).dispose()


def test_secret_keys_are_rotated_while_the_service_runs(gateway, variables, tmp_path):
    file = tmp_path / "keys"
    file.write_text("first secret key of the tests\n")
    variables = {**variables, "SECRET_KEY": "", "SECRET_KEY_FILE": str(file)}
    running = gateway(**variables, WEB_CONCURRENCY="2")
    running.post("/config/update", {"ANTHROPIC_API_KEYS": [KEY]})

    def stored():
        return running.get("/config?reveal=true").json()["ANTHROPIC_API_KEYS"]

    for content in (
        "first secret key of the tests\nsecond secret key of the tests\n",
        "second secret key of the tests\nfirst secret key of the tests\n",
    ):
        file.write_text(content)
        time.sleep(WITHIN_S)  # the promise is about time
        assert stored() == [KEY]
    command = [sys.executable, "-m", "app.cli", "secrets", "reencrypt"]
    said = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert said.startswith("2 values")
    file.write_text("second secret key of the tests\n")
    time.sleep(WITHIN_S)  # the promise is about time
    workers(running, 2)
    for _ in range(6):
        assert stored() == [KEY]
        assert running.get("/readyz").status_code == 200


def test_a_worker_outlives_its_database(gateway, postgresql):
    variables = {"DATABASE_URL": postgresql.new_database(), "SECRET_KEY": "a secret key of the tests alone"}
    running = gateway(**variables)
    assert running.get("/config").status_code == 200
    name = variables["DATABASE_URL"].rsplit("/", 1)[1]
    with psycopg.connect(variables["DATABASE_URL"].replace(name, "postgres"), autocommit=True) as other:
        other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        answer = running.get("/config")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert running.get("/v1/models", headers=ADMIN).json()["error"]["code"] == "integration_disabled"
        other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert running.get("/config").status_code == 200
