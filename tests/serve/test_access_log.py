"""The access log: one line for each request, with ids that lead on and without secrets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from flask import Flask

from app.storage import accounts
from tests.conftest import ADMIN, CLIENT, AppMaker, Gateway, GatewayMaker, free_port, wait_for

LINE = re.compile(
    r"(?P<request>req_gw_\w+): (?P<method>[A-Z]+) (?P<route>.+) (?P<status>\d+) (?P<ms>\d+) ms "
    r"caller=(?P<caller>\S+) model=(?P<model>\S+) connection=(?P<connection>\S+)"
    r"(?: warnings=(?P<warnings>\S+))?(?: code=(?P<code>\S+) param=(?P<param>\S+))?(?: ended=(?P<ended>\S+))?$"
)
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.INFO, "app.serve.access_log")

    def found() -> list[dict[str, Any]]:
        matches = [LINE.match(r.getMessage()) for r in caplog.records if r.name == "app.serve.access_log"]
        assert all(matches)
        return [match.groupdict() for match in matches if match]

    return found


def test_each_request_has_one_line_that_says_who_asked_for_what_and_how_it_went(app: Flask, lines: Lines) -> None:
    client = app.test_client()
    key, secret = app.extensions["dragoman"].keys.create(name="laptop of ann", who="a test")
    made = [
        client.get("/v1/models?after=sk-ant-secret", headers=CLIENT),
        client.get("/v1/models/claude-x", headers={"authorization": f"Bearer {secret}"}),
        client.get("/config", headers=ADMIN),
        client.get("/v1/models"),
        client.get("/no/such place/sk-ant-secret?of=mine", headers={"authorization": f"Bearer {secret}"}),
        client.post("/v1/models" + "x" * 200),
    ]
    asked = lines()
    assert [(each["method"], each["route"], each["status"], each["caller"]) for each in asked] == [
        ("GET", "/v1/models", "503", "GATEWAY_API_KEYS[0]"),
        ("GET", "/v1/models/<path:model>", "503", key.id),
        ("GET", "/config", "200", "ADMIN_API_KEYS[0]"),
        ("GET", "/v1/models", "401", "anonymous"),
        ("GET", "/no/such?place/sk-...", "404", key.id),
        ("POST", "/v1/models" + "x" * 90, "404", "anonymous"),
    ]
    assert [each["code"] for each in asked] == [
        *("integration_disabled", "integration_disabled", None, "-", "unknown_url", "unknown_url")
    ]
    assert [each["request"] for each in asked] == [answer.headers["x-gateway-request-id"] for answer in made]
    assert {(each["model"], each["connection"], each["ended"]) for each in asked} == {("-", "-", None)}


@pytest.mark.parametrize("why", ["revoked", "expired"])
def test_a_key_that_is_valid_no_more_is_named_in_the_log_and_not_to_its_client(
    app: Flask, lines: Lines, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    keys = app.extensions["dragoman"].keys
    key, secret = keys.create(name="laptop", who="a test", expires_at=int(time.time()) + 60)
    client = app.test_client()

    def ask(secret: str) -> Any:
        return client.get("/v1/models", headers={"authorization": f"Bearer {secret}"}).json

    never = ask("sk-dgm-" + "a" * 40)
    if why == "revoked":
        keys.revoke(key.id, who="a test")
    else:
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 61)
    assert ask(secret) == ask(secret) == never
    assert [each["caller"] for each in lines()] == ["anonymous", *[f"{key.id}({why})"] * 2]
    assert {each["code"] for each in lines()} == {"invalid_api_key"}


def test_an_admins_session_is_told_as_one(app: Flask, lines: Lines) -> None:
    accounts.create_first(app, "ann", "password of ann")
    client = app.test_client()
    form = client.get("/admin/login").text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
    assert token is not None
    client.post("/admin/login", data={"csrf_token": token[1], "username": "ann", "password": "password of ann"})
    client.get("/admin/keys")
    assert [each["caller"] for each in lines()] == ["anonymous", "anonymous", "session"]


def test_what_balancers_ask_all_day_is_told_only_while_debugging(app: Flask, lines: Lines, caplog: Any) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        app.test_client().get(path)
    assert lines() == []
    caplog.set_level(logging.DEBUG, "app.serve.access_log")
    app.test_client().get("/healthz")
    assert [each["route"] for each in lines()] == ["/healthz"]


def test_without_access_log_there_are_no_lines(make_app: AppMaker, lines: Lines) -> None:
    make_app(access_log=False).test_client().get("/v1")
    assert lines() == []


def test_a_clients_model_cannot_make_lines_or_fields_of_its_own(make_app: AppMaker, lines: Lines) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-a",
            "ANTHROPIC_API_BASE_URLS": f"http://127.0.0.1:{free_port()}",
        }
    )
    model = "x caller=admin\nreq_gw_0: GET / 200 1 ms \u2028" + "y" * 150
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    assert app.test_client().post("/v1/chat/completions", json=asked, headers=CLIENT).status_code == 502
    (line,) = lines()
    assert line["model"].startswith("x?caller=admin?req_gw_0:?GET")
    assert len(line["model"]) == 100


def test_what_was_wrong_is_told_without_lines_or_fields_of_its_own(app: Flask, lines: Lines) -> None:
    app.test_client().post("/config/update", json={"no such\nfield" + "y" * 150: 1}, headers=ADMIN)
    (line,) = lines()
    assert line["status"] == "400"
    assert line["param"] == "no?such?field" + "y" * 87


@pytest.fixture(scope="module")
def running(module_gateway: GatewayMaker, simulator: str) -> Iterator[Gateway]:
    yield module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_CONFIGS='{"0": {"name": "my first"}}',
    )


def line_of(running: Gateway, id: str) -> dict[str, Any]:
    """The one line of a request, once it is there."""

    def found() -> list[re.Match[str]]:
        texts = [line.partition("[INFO] ")[2] for line in running.log.splitlines() if f"[INFO] {id}: POST" in line]
        return [match for match in map(LINE.match, texts) if match]

    (match,) = wait_for(found, what=f"a line of {id}")
    return dict(match.groupdict())


def test_an_answer_names_its_model_and_connection(running: Gateway) -> None:
    asked = {"model": "anthropic/sim-text", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "seed": 5}
    answer = running.post("/v1/chat/completions", asked, headers=CLIENT)
    line = line_of(running, answer.headers["x-gateway-request-id"])
    assert (line["status"], line["model"], line["ended"]) == ("200", "sim-text", None)
    assert (line["warnings"], line["code"]) == ("seed_ignored", None)
    assert re.fullmatch(r"my\?first\(conn_\w{20}\)", line["connection"])


HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("model", "leaves", "ended"),
    [
        ("sim-text:tokens=20,gap_ms=20", False, "complete"),
        ("sim-error-midstream-6:gap_ms=20", False, "overloaded"),
        ("sim-text:tokens=500,gap_ms=20", True, "client_gone"),
    ],
)
def test_the_line_of_a_stream_comes_when_it_has_ended_and_says_how(
    running: Gateway, model: str, leaves: bool, ended: str
) -> None:
    asked = {"model": model, "messages": HI, "stream": True}
    with running.post("/v1/chat/completions", asked, headers=CLIENT, stream=True) as answer:
        id = answer.headers["x-gateway-request-id"]
        pieces = answer.iter_content(None)
        next(pieces)
        assert f"{id}: POST" not in running.log
        for _ in () if leaves else pieces:
            pass
    line = line_of(running, id)
    assert (line["status"], line["model"], line["ended"]) == ("200", model, ended)
    assert line["connection"].startswith("my?first(conn_")
    assert leaves or int(line["ms"]) >= 100


def test_a_client_that_leaves_before_its_answer_is_made_has_a_line_too(running: Gateway) -> None:
    asked = {"model": "sim-text:tokens=200,gap_ms=50", "messages": HI}
    with pytest.raises(requests.Timeout):
        running.post("/v1/chat/completions", asked, headers=CLIENT, timeout=0.5)
    wait_for(lambda: " 499 " in running.log, what="the line of a client that has left")
    (line,) = [text for text in running.log.splitlines() if " 499 " in text]
    assert "POST /v1/chat/completions 499 " in line
    assert f"caller=GATEWAY_API_KEYS[0] model={asked['model']} connection=-" in line
