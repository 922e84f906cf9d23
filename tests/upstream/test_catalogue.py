"""For how long what was learned of models is kept, and who has the last word; what a worker does beside requests."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest
from gevent.event import Event

from app import start_background_work
from app.errors import DatabaseUnavailable
from app.storage.config import ConfigSnapshot
from app.translate.facts import ModelFacts
from app.translate.learning import Lesson
from tests.conftest import CLIENT_KEY, AppMaker

MODEL = "claude-opus-5-5"


def test_what_was_learned_of_a_rotated_key_or_a_removed_connection_is_forgotten(
    make_app: AppMaker, simulator: str
) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-stays,sk-ant-old,sk-ant-goes",
            "ANTHROPIC_API_BASE_URLS": ",".join([simulator] * 3),
        }
    )
    config, claude = app.extensions["dragoman"].config, app.extensions["dragoman.upstream"]
    catalogue = claude.catalogue
    listed = app.test_client().get("/v1/models", headers={"authorization": f"Bearer {CLIENT_KEY}"})
    assert listed.status_code == 200
    stays, rotated, _ = before = config.snapshot.connections
    for each in before:
        catalogue.learn(each, MODEL, Lesson("no_prefill"))
        assert catalogue.status(each)[0] > 0

    for change in (
        {"ANTHROPIC_API_KEYS": [stays.key, rotated.key], "ANTHROPIC_API_BASE_URLS": [simulator]},
        {"ANTHROPIC_API_KEYS": [stays.key, "sk-ant-new"]},
    ):
        config.update(change, who="a test")

    assert [catalogue.status(each)[0] > 0 for each in before] == [True, False, False]
    assert [bool(catalogue.lessons(each)) for each in before] == [True, False, False]
    assert claude.pool.client(rotated).connection.key == "sk-ant-new"


def test_what_a_worker_does_beside_requests_goes_on_while_the_database_is_away_or_one_thing_fails(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(runtime={"ANTHROPIC_API_KEYS": "sk-ant-a"})
    config, pool = app.extensions["dragoman"].config, app.extensions["dragoman.upstream"].pool
    (connection,) = config.snapshot.connections
    before = pool.client(connection)

    def refresh() -> bool:
        raise DatabaseUnavailable("It is away.")

    monkeypatch.setattr(config, "refresh", refresh)
    monkeypatch.setattr(config, "_snapshot", replace(config.snapshot, connections=()))
    was_seen = Event()
    config.on_watch.append(lambda: 1 / 0)
    watching = start_background_work(app)
    config.on_watch.append(was_seen.set)
    assert was_seen.wait(10)
    gevent.killall(watching)
    assert pool.client(connection) is not before


def test_the_operator_has_the_last_word_on_what_a_model_takes(make_app: AppMaker) -> None:
    app = make_app(runtime={"ANTHROPIC_API_KEYS": "sk-ant-a"})
    config, catalogue = app.extensions["dragoman"].config, app.extensions["dragoman.upstream"].catalogue

    def facts(snapshot: ConfigSnapshot) -> ModelFacts:
        found: ModelFacts = catalogue.facts(snapshot.connections[0], MODEL, snapshot)
        return found

    catalogue.learn(config.snapshot.connections[0], MODEL, Lesson("fast_mode", {"fast_mode": True}))
    assert facts(config.snapshot).fast_mode is True
    changed = config.update({"ANTHROPIC_MODELS": [{"id": MODEL, "fast_mode": False}]}, who="a test")
    assert facts(changed).fast_mode is False
