"""For how long what was learned of models is kept, and who has the last word; what a worker does beside requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from app import start_background_work
from app.errors import DatabaseUnavailable, ModelNotFound
from app.storage.config import ConfigSnapshot
from app.translate.facts import ModelFacts
from app.translate.learning import Lesson
from app.upstream.catalogue import Catalogue, Route
from tests.conftest import CLIENT_KEY, AppMaker, free_port, wait_for

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

    def all_are_listed() -> bool:
        gevent.sleep(0.01)  # what was too slow for the request goes on meanwhile
        return all(catalogue.status(each)[0] > 0 for each in before)

    wait_for(all_are_listed, what="the models of all connections")

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


@pytest.fixture
def make_catalogue(make_app: AppMaker) -> Callable[..., tuple[Catalogue, ConfigSnapshot]]:
    """With connections that answer nobody: what is listed is what we know by ourselves."""

    def make(keys: int = 1, **values: Any) -> tuple[Catalogue, ConfigSnapshot]:
        app = make_app()
        started = {
            "ENABLE_ANTHROPIC_API": True,
            "ANTHROPIC_API_BASE_URLS": [f"http://127.0.0.1:{free_port()}"],
            "ANTHROPIC_API_KEYS": [f"sk-ant-{number}" for number in range(keys)],
        }
        snapshot = app.extensions["dragoman"].config.update({**started, **values}, who="a test")
        return app.extensions["dragoman.upstream"].catalogue, snapshot

    return make


def upstream_ids(route: Route) -> list[str]:
    return [id for _, id in route.targets]


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("Claude-Sonnet-5-5", "claude-sonnet-5-5"),
        ("Anthropic/CLAUDE-opus-4.6", "claude-opus-4-6"),
        ("GPT-4O", "claude-opus-5-5"),
        ("anthropic/Gpt-4o", "claude-opus-5-5"),
        ("o3", "claude-sonnet-5-5"),
        ("claude-Mine", "claude-Mine"),
        ("claude-mine", "claude-mine"),
        ("Claude-Mine", "claude-mine"),
        ("claude-opus-4-7", "claude-sonnet-5-5"),
        ("claude-opus-4-8", "claude-opus-4-8"),
        ("Claude-Opus-4-8", "claude-haiku-5-5"),
        ("Not-Listed-Anywhere", "Not-Listed-Anywhere"),
    ],
)
def test_a_name_that_differs_from_a_listed_one_by_case_only_is_taken_and_an_exact_one_wins(
    make_catalogue: Any, asked: str, model: str
) -> None:
    catalogue, snapshot = make_catalogue(
        MODEL_ALIASES={
            "gpt-4o": "claude-opus-5-5",
            "O3": "Claude-Sonnet-5-5",
            "Claude-Opus-4-8": "claude-haiku-5-5",
            "claude-opus-4-7": "claude-sonnet-5-5",
        },
        ANTHROPIC_MODELS=[{"id": "claude-Mine"}, {"id": "claude-mine"}],
    )
    route = catalogue.route(asked, snapshot)
    assert (route.model, upstream_ids(route)) == (model, [model])


def test_prefixes_and_lists_of_a_connection_are_understood_in_any_case_too(make_catalogue: Any) -> None:
    catalogue, snapshot = make_catalogue(keys=2, ANTHROPIC_API_CONFIGS={"0": {"prefix_id": "Team"}})
    for asked in ("Team.claude-opus-4.6", "team.Claude-Opus-4-6"):
        route = catalogue.route(asked, snapshot)
        assert (route.model, upstream_ids(route)) == ("Team.claude-opus-4-6", ["claude-opus-4-6"])
    both = {"0": {"prefix_id": "Team"}, "1": {"prefix_id": "team"}}
    catalogue, snapshot = make_catalogue(keys=2, ANTHROPIC_API_CONFIGS=both)
    assert [c.prefix_id for c in catalogue.route("team.claude-opus-5-5", snapshot).connections] == ["team"]
    limited = {"0": {"model_ids": ["claude-opus-5-5", "vendor/claude-opus-4.6"]}}
    catalogue, snapshot = make_catalogue(ANTHROPIC_API_CONFIGS=limited)
    assert upstream_ids(catalogue.route("CLAUDE-opus-5.5", snapshot)) == ["claude-opus-5-5"]
    assert upstream_ids(catalogue.route("Vendor/Claude-Opus-4.6", snapshot)) == ["vendor/claude-opus-4.6"]
    with pytest.raises(ModelNotFound):
        catalogue.route("claude-fable-5", snapshot)


@pytest.mark.parametrize("asked", ["claude-opus-5-5", "Claude-Opus-5.5", "GPT-4o", "gpt-5"])
def test_a_keys_models_count_however_they_are_written(make_catalogue: Any, asked: str) -> None:
    catalogue, snapshot = make_catalogue(MODEL_ALIASES={"gpt-4o": "claude-opus-5-5", "gpt-5": "claude-haiku-5-5"})
    allowed = ("Claude-Opus-5-5", "GPT-5")
    assert catalogue.route(asked, snapshot, allowed).targets
    assert {m["id"] for m in catalogue.models(snapshot, allowed)} == {"claude-opus-5-5", "gpt-4o", "gpt-5"}
    with pytest.raises(ModelNotFound):
        catalogue.route("claude-haiku-5-5", snapshot, allowed)


def test_a_key_for_a_short_name_sees_and_may_use_the_dated_one(make_catalogue: Any) -> None:
    catalogue, snapshot = make_catalogue()
    allowed = ("claude-haiku-4-5",)
    assert [m["id"] for m in catalogue.models(snapshot, allowed)] == ["claude-haiku-4-5-20251001"]
    for asked in ("claude-haiku-4-5", "claude-haiku-4-5-20251001"):
        assert upstream_ids(catalogue.route(asked, snapshot, allowed)) == [asked]


def test_what_is_refused_is_told_by_the_name_asked_for_and_by_what_it_stands_for(make_catalogue: Any) -> None:
    catalogue, snapshot = make_catalogue(
        MODEL_ALIASES={"gpt-4o": "claude-fable-5"}, ANTHROPIC_API_CONFIGS={"0": {"model_ids": ["claude-opus-5-5"]}}
    )
    with pytest.raises(ModelNotFound, match="The model `claude-fable-5`, which `gpt-4o` stands for, does not exist"):
        catalogue.route("gpt-4o", snapshot)
    with pytest.raises(ModelNotFound, match="The model `claude-fable-5` does not exist"):
        catalogue.route("claude-fable-5", snapshot)


def test_the_nearest_name_is_one_that_the_key_may_use_and_another_than_was_asked_for(make_catalogue: Any) -> None:
    catalogue, snapshot = make_catalogue(MODEL_ALIASES={"gpt-4o": "claude-opus-5-5"})
    assert catalogue.nearest("claude-haiku-5.4", snapshot) == "claude-haiku-5-5"
    assert catalogue.nearest("claude-haiku-5.4", snapshot, ("claude-sonnet-5-5",)) == "claude-sonnet-5-5"
    assert catalogue.nearest("gpt-4", snapshot, ("claude-opus-5-5",)) == "gpt-4o"
    assert catalogue.nearest("gpt-4", snapshot, ("claude-sonnet-5-5",)) is None
    assert catalogue.nearest("claude-opus-5-5", snapshot) is None


def test_an_alias_is_listed_also_when_its_model_is_not(make_catalogue: Any) -> None:
    aliases = {"a": "claude-nope", "b": "claude-opus-5-5", "c": "claude-haiku-4-5", "d": "Claude-Opus-5-5"}
    configs = {"0": {"model_ids": ["claude-opus-5-5"]}}
    catalogue, snapshot = make_catalogue(MODEL_ALIASES=aliases, ANTHROPIC_API_CONFIGS=configs)
    listed = {m["id"]: m for m in catalogue.models(snapshot)}
    assert {alias: listed[alias]["alias_of"] for alias in aliases} == aliases
    known = [listed[alias].get("max_tokens") for alias in aliases]
    assert known == [None, 128_000, 64_000, 128_000]


def test_the_list_begins_with_the_newest_sonnet_and_goes_on_with_the_newest_models(make_catalogue: Any) -> None:
    catalogue, snapshot = make_catalogue(MODEL_ALIASES={"a-sonnet": "claude-sonnet-5-5"})
    first, *others = catalogue.models(snapshot)
    assert first["id"] == "claude-sonnet-5-5"
    dated = [m["created"] for m in others[1:] if m["created"]]
    assert dated == sorted(dated, reverse=True)
    assert others[0]["id"] == "a-sonnet"


def test_an_alias_stands_right_behind_its_model_and_changes_no_other_place(make_catalogue: Any) -> None:
    aliases = {"o1": "claude-opus-5-5", "gpt-5": "Claude-Opus-5.5", "mini": "claude-haiku-4-5", "z": "claude-nope"}
    order = ["claude-haiku-5-5", "o1"]
    catalogue, snapshot = make_catalogue(MODEL_ORDER=order[:1])
    without = [m["id"] for m in catalogue.models(snapshot)]
    catalogue, snapshot = make_catalogue(MODEL_ALIASES=aliases, MODEL_ORDER=order)
    ids = [m["id"] for m in catalogue.models(snapshot)]
    assert [id for id in ids if id not in aliases] == without
    assert (ids[1], ids[-1]) == ("o1", "z")
    assert ids[ids.index("claude-opus-5-5") + 1] == "gpt-5"
    assert ids[ids.index("claude-haiku-4-5-20251001") + 1] == "mini"


def test_a_model_of_unknown_age_stands_in_its_line_by_its_version(make_catalogue: Any) -> None:
    added = ["claude-opus-6", "claude-opus-6-1", "claude-opus-5-2", "claude-opus-3", "my-own"]
    catalogue, snapshot = make_catalogue(ANTHROPIC_MODELS=[{"id": id} for id in added])
    ids = [m["id"] for m in catalogue.models(snapshot)]
    line = [id for id in ids if "opus" in id]
    assert line[:5] == ["claude-opus-6-1", "claude-opus-6", "claude-opus-5-5", "claude-opus-5-2", "claude-opus-5"]
    assert ids[-3:] == ["claude-opus-3", "claude-mythos-preview", "my-own"]
    assert ids.index("claude-opus-6-1") == ids.index("claude-opus-5-5") - 2


def test_what_model_order_names_is_listed_first_in_that_order(make_catalogue: Any) -> None:
    order = ["Claude-Haiku-5-5", "gpt-4o", "claude-nope", "claude-haiku-4-5", "claude-haiku-5-5"]
    catalogue, snapshot = make_catalogue(MODEL_ORDER=order, MODEL_ALIASES={"GPT-4o": "claude-opus-5-5"})
    ids = [m["id"] for m in catalogue.models(snapshot)]
    assert ids[:4] == ["claude-haiku-5-5", "GPT-4o", "claude-haiku-4-5-20251001", "claude-sonnet-5-5"]
    assert len(ids) == len(set(ids))


def test_names_that_nothing_lists_are_told_in_the_log_once_the_models_of_all_connections_are_known(
    make_app: AppMaker, simulator: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-a",
            "ANTHROPIC_API_BASE_URLS": simulator,
            "MODEL_ALIASES": '{"gpt-4o": "claude-sonet-5-5", "gpt-5": "claude-opus-5-5"}',
        }
    )
    services, claude = app.extensions["dragoman"], app.extensions["dragoman.upstream"]
    claude.follow(services.config.snapshot)
    assert "sonet" not in caplog.text
    claude.catalogue.models(services.config.snapshot)
    for _ in range(2):
        claude.follow(services.config.snapshot)
    services.keys.create(name="laptop", who="a test")
    told = "No connection lists the model claude-sonet-5-5, which gpt-4o stands for. Did you mean claude-sonnet-5-5?"
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [f"configuration: {told}"]
    assert claude.catalogue.unlisted_aliases(services.config.snapshot) == {"gpt-4o"}
