"""For how long what was learned of models is kept."""

from __future__ import annotations

import gevent
from gevent.event import Event

from app import start_background_work
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
    config, catalogue = app.extensions["dragoman"].config, app.extensions["dragoman.upstream"].catalogue
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
    was_seen = Event()
    watching = start_background_work(app)
    config.on_watch.append(was_seen.set)
    assert was_seen.wait(10)
    gevent.killall(watching)

    assert [catalogue.status(each)[0] > 0 for each in before] == [True, False, False]
    assert [bool(catalogue.lessons(each)) for each in before] == [True, True, False]
