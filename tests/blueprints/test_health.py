"""/readyz says whether requests can be served: from the database that is configured, with the secrets in it."""

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool
from sqlalchemy import text

from app.serve import worker_state
from app.storage import database
from tests.conftest import ADMIN


@pytest.fixture
def client(app):
    return app.test_client()


def test_a_gateway_without_connections_is_ready_but_degraded(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"status": "degraded"})


def test_a_database_file_that_is_gone_is_a_503(client, tmp_path):
    assert client.get("/readyz").status_code == 200
    away = (tmp_path / "instance").rename(tmp_path / "away")
    answer = client.get("/readyz", headers=ADMIN)
    assert (answer.status_code, answer.json["status"]) == (503, "unavailable")
    assert "was removed or replaced" in answer.json["reasons"][0]
    away.rename(tmp_path / "instance")
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("damage", ["DELETE FROM generation", "DROP TABLE generation"])
@pytest.mark.parametrize("loaded_before", [True, False])
def test_a_database_without_our_rows_is_a_503(app, client, damage, loaded_before):
    if loaded_before:
        assert client.get("/readyz").status_code == 200
    database.write(app, lambda session: session.execute(text(damage)).close())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (503, {"status": "unavailable"})


def test_secrets_that_cannot_be_decrypted_are_a_503(make_app):
    first = make_app(secret_key="the first secret key of the tests")
    first.extensions["dragoman"].config.update({"ANTHROPIC_API_KEYS": ["sk-ant-x"]}, who="tester")
    answer = make_app(secret_key="the second secret key of the tests").test_client().get("/readyz", headers=ADMIN)
    assert answer.status_code == 503
    assert "ANTHROPIC_API_KEYS cannot be decrypted" in answer.json["reasons"][0]


def test_the_count_of_greenlets_is_of_those_that_serve_not_of_threads_of_a_pool(client):
    worker_state.begin()

    def count():
        return client.get("/readyz", headers=ADMIN).json["worker"]["greenlets"]

    gevent.sleep(0)  # begins the hub, which is one
    before = count()
    pool = ThreadPool(3)
    assert pool.apply(int, ["7"]) == 7
    may_end = Event()
    waiting = [gevent.spawn(may_end.wait) for _ in range(2)]
    assert count() == before + 2
    may_end.set()
    gevent.joinall(waiting)
    pool.kill()
    assert count() == before


def test_a_worker_tells_how_much_of_its_memory_is_in_use(client):
    def count():
        return client.get("/readyz", headers=ADMIN).json["worker"]["memory_blocks"]

    before = count()
    kept = [object() for _ in range(50_000)]
    assert before + 45_000 < count() < before + 60_000
    del kept
