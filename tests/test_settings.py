"""The environment: what is read from it, and what may not be meant as it is set."""

from __future__ import annotations

import pytest

from app.settings import SHORTEST_KEY, Settings, demo_environment
from tests.conftest import CLIENT, AppMaker, GatewayMaker, wait_for

SDKS, OURS = {"ANTHROPIC_API_KEY": "sk-ant-of-the-sdk"}, {"ANTHROPIC_API_KEYS": "sk-ant-one,sk-ant-two"}
LONG = "k" * SHORTEST_KEY
NOT_ENABLED = "the environment has Anthropic keys, but no chat is answered: set ENABLE_ANTHROPIC_API=true"


def test_the_key_that_anthropics_sdks_read_counts_as_a_list_of_one_and_that_is_told() -> None:
    settings = Settings.from_environment(SDKS)
    assert settings.runtime["ANTHROPIC_API_KEYS"] == "sk-ant-of-the-sdk"
    (told,) = settings.doubts
    assert told.startswith("ANTHROPIC_API_KEY is used")
    assert "sk-ant" not in told + repr(settings)


def test_a_list_of_keys_wins_over_the_key_of_anthropics_sdks() -> None:
    settings = Settings.from_environment({**SDKS, **OURS})
    assert settings.runtime["ANTHROPIC_API_KEYS"] == OURS["ANTHROPIC_API_KEYS"]
    assert settings.doubts == []


def test_the_demo_takes_no_key_of_anthropics(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SDKS, **OURS}.items():
        monkeypatch.setenv(name, value)
    environment = demo_environment("http://127.0.0.1:1")
    assert "ANTHROPIC_API_KEY" not in environment
    assert Settings.from_environment(environment).runtime["ANTHROPIC_API_KEYS"] == "sk-ant-simulator"


def test_keys_that_might_be_guessed_are_told_by_their_place() -> None:
    environment = {"GATEWAY_API_KEYS": f"{LONG},secret", "ADMIN_API_KEYS": "k" * (SHORTEST_KEY - 1)}
    told = Settings.from_environment(environment).doubts
    assert [each.split()[0] for each in told] == ["GATEWAY_API_KEYS[1]", "ADMIN_API_KEYS[0]"]
    assert "secret" not in " ".join(told)


def test_a_client_key_that_is_an_admin_key_too_is_told() -> None:
    settings = Settings.from_environment({"GATEWAY_API_KEYS": f"{LONG}1,{LONG}", "ADMIN_API_KEYS": LONG})
    (told,) = settings.doubts
    assert told.startswith("GATEWAY_API_KEYS[1] stands in ADMIN_API_KEYS, too")
    assert LONG not in told


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        (None, ["ANTHROPIC_API_KEYS[1]"]),
        ("https://relay.example", []),
        ("https://relay.example,https://api.anthropic.com/v1", ["ANTHROPIC_API_KEYS[1]"]),
    ],
)
def test_a_key_that_cannot_be_anthropics_is_told_where_it_is_sent_to_anthropic(
    urls: str | None, told: list[str]
) -> None:
    urls_too = {} if urls is None else {"ANTHROPIC_API_BASE_URLS": urls}
    doubts = Settings.from_environment({"ANTHROPIC_API_KEYS": "sk-ant-one,sk-proj-two", **urls_too}).doubts
    assert [each.split()[0] for each in doubts] == told
    assert "sk-proj" not in "".join(doubts)


def test_a_start_tells_once_what_may_not_be_meant(gateway: GatewayMaker) -> None:
    running = gateway(WEB_CONCURRENCY="2", GATEWAY_API_KEYS="short", ADMIN_API_KEYS=LONG, **SDKS)
    wait_for(lambda: NOT_ENABLED in running.log, what="the integration that is off is told")
    told = [line for line in running.log.splitlines() if "[WARNING] settings: " in line]
    assert len(told) == 2
    assert "sk-ant" not in running.log


@pytest.mark.parametrize(
    ("environment", "is_told"),
    [
        ({"ANTHROPIC_API_KEYS": "sk-ant-a"}, True),
        ({"ANTHROPIC_API_KEYS": "sk-ant-a", "ENABLE_ANTHROPIC_API": "false"}, False),
        ({"ANTHROPIC_API_KEYS": "sk-ant-a", "ENABLE_ANTHROPIC_API": "true"}, False),
        ({}, False),
    ],
)
def test_keys_that_nothing_makes_use_of_are_told_at_the_start(
    make_storage_app: AppMaker, caplog: pytest.LogCaptureFixture, environment: dict[str, str], is_told: bool
) -> None:
    make_storage_app(runtime=environment).extensions["dragoman"].config.load()
    assert (NOT_ENABLED in caplog.text) == is_told


def test_once_an_admin_has_turned_the_integration_on_or_off_nothing_is_told(
    make_storage_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"ANTHROPIC_API_KEYS": "sk-ant-a"}
    config = make_storage_app(runtime=environment).extensions["dragoman"].config
    config.update({"ENABLE_ANTHROPIC_API": True}, who="a test")
    caplog.clear()
    make_storage_app(runtime=environment).extensions["dragoman"].config.load()
    assert NOT_ENABLED not in caplog.text


def test_lists_of_the_environment_that_do_not_pair_up_are_told_to_whoever_chats(make_app: AppMaker) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-a,sk-ant-b,sk-ant-c",
            "ANTHROPIC_API_BASE_URLS": "https://a.example,https://b.example",
        }
    )
    asked = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "hi"}]}
    refused = app.test_client().post("/v1/chat/completions", json=asked, headers=CLIENT)
    assert refused.status_code == 503
    assert refused.json is not None
    assert refused.json["error"]["code"] == "no_connection"
    assert refused.json["error"]["message"] == (
        "No Anthropic connection can be used. ANTHROPIC_API_BASE_URLS holds 2 URLs and ANTHROPIC_API_KEYS 3 keys: give "
        "one URL for all keys, or one for each."
    )
