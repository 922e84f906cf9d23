"""Signing in, client keys, history and account, without a browser."""

import re
import time
from pathlib import Path

import pytest
from flask import render_template

from app.access import login_limits
from app.errors import UpstreamError
from app.pages import compile_templates
from app.pages.page import usage_examples
from app.pages.trying import odd_key
from app.storage import audit
from app.storage.connections import to_connections
from tests.conftest import free_port
from tests.pages.conftest import PASSWORD, Form, Visitor

PAGES = ("", "/config", "/keys", "/history", "/audit", "/account", "/welcome/anthropic", "/welcome/key")


def test_pages_are_for_signed_in_admins_and_nothing_keeps_a_copy(visitor):
    stranger = Visitor(visitor.app)
    for path in PAGES:
        answer = visitor.get(f"/admin{path}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert stranger.get(f"/admin{path}").location == f"/admin/login?next=/admin{path}"


def test_signing_in_leads_back_to_the_page_asked_for_but_nowhere_else(visitor):
    visitor.post("/admin/logout", shown_at="/admin")
    assert (
        visitor.post(
            "/admin/login", shown_at="/admin/login?next=/admin/keys", username="ann", password=PASSWORD
        ).location
        == "/admin/keys"
    )
    visitor.post("/admin/logout", shown_at="/admin")
    answer = visitor.post("/admin/login", next="//evil.example", username="ann", password=PASSWORD)
    assert answer.location == "/admin"


def test_a_wrong_password_keeps_the_name(visitor):
    visitor.post("/admin/logout", shown_at="/admin")
    answer = visitor.sign_in("wrong")
    assert answer.status_code == 401
    assert "The user name or the password is wrong." in answer.text
    assert Form(answer.text).fields["username"] == ["ann"]


def test_without_a_token_no_form_does_anything(visitor):
    for path in ("/admin/keys", "/admin/config", "/admin/enable", "/admin/account", "/admin/logout"):
        answer = visitor.client.post(path, data={"name": "x"}, headers={"accept": "text/html"})
        assert answer.status_code == 403
        assert "Reload the page" in answer.text
    assert visitor.get("/admin").status_code == 200


def test_too_many_failures_are_told_with_the_time_to_wait(visitor):
    stranger = Visitor(visitor.app)
    limits = visitor.app.extensions["dragoman.login_limits"]
    for _ in range(int(login_limits.FAILED_LOGINS_PER_USERNAME.split()[0])):
        limits.count("192.0.2.1", "ann")
    answer = stranger.sign_in()
    assert answer.status_code == 429
    assert "Too many failed sign-ins. Try again in" in answer.text
    assert int(answer.headers["retry-after"]) > 0


def test_a_browser_that_has_signed_in_before_is_locked_out_by_nobody_but_itself(visitor):
    limits = visitor.app.extensions["dragoman.login_limits"]
    most = int(login_limits.FAILED_LOGINS_PER_USERNAME.split()[0])
    for _ in range(most):
        limits.count("192.0.2.1", "ann")
    visitor.post("/admin/logout", shown_at="/admin")
    assert visitor.sign_in().status_code == 303
    for _ in range(most):
        wrong = visitor.post("/admin/account", current="wrong", password="a new password", again="a new password")
        assert "not your current password" in Form(wrong.text).errors["current"]
    account = visitor.post("/admin/account", current=PASSWORD, password="a new password", again="a new password")
    assert "Too many failed sign-ins" in Form(account.text).errors["current"]


def test_a_client_key_is_made_and_revoked(visitor):
    keys = visitor.app.extensions["dragoman"].keys
    answer = visitor.post(
        "/admin/keys", name="robot", owner="ops", models="claude-a\r\nclaude-b", expires="2099-12-31", scope="client"
    )
    (made,) = keys.list()
    assert (made.name, made.owner, made.models, made.expires_at) == (
        "robot",
        "ops",
        ("claude-a", "claude-b"),
        4102444800,
    )
    secret = answer.text.split('aria-label="the key">')[1].split("<")[0]
    assert keys.authenticate(secret).id == made.id
    assert secret not in visitor.get("/admin/keys").text
    assert "cannot be undone" in visitor.get(f"/admin/keys/{made.id}/revoke").text
    visitor.post(f"/admin/keys/{made.id}/revoke")
    assert keys.authenticate(secret) is None
    assert "is revoked" in visitor.get("/admin/keys").text
    assert visitor.get("/admin/keys/key_none/revoke").status_code == 404


def test_a_key_that_cannot_be_made_keeps_what_was_typed(visitor):
    for field, typed in (("name", ""), ("expires", "1999-01-01"), ("expires", "tomorrow"), ("expires", "9999-12-31")):
        answer = visitor.post("/admin/keys", **{"name": "robot", "owner": "ops", field: typed})
        form = Form(answer.text)
        assert answer.status_code == 400
        assert set(form.errors) == {field}
        assert form.fields["owner"] == ["ops"]


def test_a_key_for_a_model_that_nothing_lists_is_made_with_a_warning(visitor):
    answer = visitor.post("/admin/keys", name="robot", models="claude-opus-5-5\r\nclaude-sonet-5-5")
    page = told(answer)
    assert "Your new key" in page
    assert "claude-sonet-5-5, which the key may use. Did you mean claude-sonnet-5-5?" in page
    assert "claude-opus-5-5, which" not in page


def told(answer):
    """The words of a page."""
    return " ".join(re.sub(r"<[^>]+>", "", answer.text).split())


def test_keys_of_the_environment_alone_are_no_contradiction(visitor):
    page = told(visitor.get("/admin/keys"))
    assert "One key comes from the environment variable GATEWAY_API_KEYS" in page
    assert "None yet" not in page


def test_history_counts_secrets_and_tells_none(visitor):
    config = visitor.app.extensions["dragoman"].config
    config.update({"ANTHROPIC_API_KEYS": ["sk-ant-api03-secret-of-the-tests"]}, who="bob")
    page = told(visitor.get("/admin/history"))
    assert "Anthropic keys: 0 → 1" in page
    assert "sk-ant" not in page


def test_numbers_beyond_the_database_are_answered_with_a_page(visitor):
    beyond = "9" * 30
    for path in (f"/admin/history/{beyond}/restore", "/admin/history/77/restore"):
        assert visitor.get(path).status_code == 404
    assert visitor.post(f"/admin/history/{beyond}/restore", shown_at="/admin/history").status_code == 404
    assert visitor.get(f"/admin/audit?before={beyond}").status_code == 400


def test_history_brings_earlier_settings_back(visitor):
    config = visitor.app.extensions["dragoman"].config
    config.update({"IDLE_TIMEOUT_S": 55}, who="bob")
    (entry,) = config.history()
    assert "Idle timeout (seconds): 300 → 55" in told(visitor.get("/admin/history"))
    asked = visitor.get(f"/admin/history/{entry.id}/restore")
    assert "Idle timeout (seconds): 55 → 300" in told(asked)
    assert config.load().values["IDLE_TIMEOUT_S"] == 55
    visitor.post(f"/admin/history/{entry.id}/restore", shown_at="/admin/history")
    assert config.load().values["IDLE_TIMEOUT_S"] == 300
    newest = told(visitor.get("/admin/history")).partition("bob")[0]
    assert re.search(r"Undo of \d{4}-.* UTC ?Idle timeout \(seconds\): 55 → 300", newest)
    assert "Nothing would change" in visitor.get(f"/admin/history/{entry.id}/restore").text
    visitor.post("/admin/history/999/restore", shown_at="/admin/history")
    assert "There is no change 999" in visitor.get("/admin/history").text


def test_the_integration_is_turned_on_where_it_is_missed(visitor):
    assert "The Anthropic integration is off" in visitor.get("/admin").text
    visitor.post("/admin/enable", shown_at="/admin")
    assert visitor.app.extensions["dragoman"].config.load().enabled


def test_a_changed_password_ends_other_sessions_only(visitor):
    other = Visitor(visitor.app)
    other.sign_in()
    wrong = visitor.post("/admin/account", current="wrong", password="a new password", again="a new password")
    assert Form(wrong.text).errors == {"current": "This is not your current password."}
    right = visitor.post("/admin/account", current=PASSWORD, password="a new password", again="a new password")
    assert right.status_code == 303
    assert visitor.get("/admin").status_code == 200
    assert other.get("/admin").status_code == 302


def test_the_audit_log_pages_back(visitor):
    for number in range(60):
        audit.record(visitor.app, who="bob", action="test", detail=f"entry {number}")
    newest = visitor.get("/admin/audit").text
    assert "entry 59" in newest
    assert "entry 5<" not in newest
    older = newest.split("/admin/audit?before=")[1].split('"')[0]
    assert "entry 5<" in visitor.get(f"/admin/audit?before={older}").text


def test_what_cannot_be_decrypted_is_said_with_the_remedy(visitor, make_app):
    visitor.app.extensions["dragoman"].config.update({"ANTHROPIC_API_KEYS": ["sk-ant-x"]}, who="test")
    Path(visitor.app.instance_path, "secret_key").write_text("another secret key, by mistake")
    other = make_app()
    stranger = Visitor(other)
    stranger.sign_in()
    assert "ANTHROPIC_API_KEYS cannot be decrypted" in stranger.get("/admin").text
    assert "Enter it anew" in stranger.get("/admin/config").text
    assert stranger.post("/admin/config", DEFAULT_MAX_TOKENS="5").status_code == 303
    assert other.extensions["dragoman"].config.load().undecryptable == ("ANTHROPIC_API_KEYS",)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_connection_is_verified_from_the_overview(visitor, simulator, accept):
    config = visitor.app.extensions["dragoman"].config
    config.update({"ANTHROPIC_API_BASE_URLS": [simulator], "ANTHROPIC_API_KEYS": ["sk-ant-forbidden-key"]}, who="test")
    token = Form(visitor.get("/admin").text).fields["csrf_token"]
    path = f"/admin/connections/{config.snapshot.connections[0].id}/verify"
    answer = visitor.client.post(path, data={"csrf_token": token}, headers={"accept": accept})
    if accept == "text/html":
        assert 'class="result bad"' in answer.text
    else:
        assert answer.json["ok"] is False
        assert answer.json["message"]


def test_an_upstream_that_cannot_be_reached_is_said_once_and_to_an_admin(visitor):
    nobody = f"http://127.0.0.1:{free_port()}"
    visitor.app.extensions["dragoman"].config.update(
        {"ENABLE_ANTHROPIC_API": True, "ANTHROPIC_API_BASE_URLS": [nobody], "ANTHROPIC_API_KEYS": ["sk-ant-x"]},
        who="test",
    )
    page = told(visitor.get("/admin"))
    assert "cannot be reached from here. Check the base URL, the network and the proxy. (" in page
    assert "could not be reached" not in page


def test_a_connection_that_is_left_out_says_why_and_until_when(visitor):
    app = visitor.app
    app.extensions["dragoman"].config.update({"ANTHROPIC_API_KEYS": ["sk-ant-x"]}, who="test")
    (connection,) = app.extensions["dragoman"].config.snapshot.connections
    health = app.extensions["dragoman.upstream"].pool.client(connection).health
    refused = UpstreamError(
        "Anthropic says: invalid x-api-key", status=503, type="server_error", code="upstream_authentication_failed"
    )
    health.failed("claude-x", refused, time.monotonic())
    page = told(visitor.get("/admin"))
    assert re.search(r"Key refused, asked again in \d+ s \(Anthropic says: invalid x-api-key\)\.", page)
    assert "1 of 1, 1 in trouble" in page
    health.began("claude-x")
    assert "Key refused" not in told(visitor.get("/admin"))


@pytest.mark.parametrize(
    ("url", "key", "hint"),
    [
        ("https://api.anthropic.com", "sk-ant-api03-x", ""),
        ("https://api.anthropic.com", "sk-proj-x", "begins with sk-ant-, and this one does not"),
        ("https://api.anthropic.com", "sk-dgm-x", "a client key of a gateway"),
        ("https://gateway.example", "sk-proj-x", ""),
    ],
)
def test_a_key_that_is_plainly_another_one_gets_a_hint(url, key, hint):
    (connection,) = to_connections([(url, key)], {}, salt="", aliases={})
    assert hint in odd_key(connection)
    assert bool(hint) == bool(odd_key(connection))


def test_a_key_of_the_environment_that_is_not_in_use_yet_is_not_asked_for_again(visitor):
    config = visitor.app.extensions["dragoman"].config
    assert "No Anthropic key is in use yet" in told(visitor.get("/admin/welcome/key"))
    config.update({"ANTHROPIC_API_KEYS": ["sk-ant-x"]}, who="test")
    assert "configured, but the integration is off" in told(visitor.get("/admin/welcome/key"))
    visitor.post("/admin/enable", shown_at="/admin/welcome/key")
    assert config.load().enabled
    assert "will not be answered" not in told(visitor.get("/admin/welcome/key"))


def test_an_undo_that_brings_back_a_connection_that_does_not_work_warns_as_saving_it_does(visitor, simulator):
    config = visitor.app.extensions["dragoman"].config
    urls = {"ANTHROPIC_API_BASE_URLS": [simulator]}
    config.update({**urls, "ANTHROPIC_API_KEYS": ["sk-ant-invalid-key-of-the-tests"]}, who="bob")
    config.update({"ANTHROPIC_API_KEYS": ["sk-ant-key-of-the-tests"]}, who="bob")
    path = f"/admin/history/{config.history()[0].id}/restore"
    visitor.post(path)
    page = told(visitor.get("/admin/history"))
    assert "They are back, but the connection does not work: 127.0.0.1" in page
    assert "refused the key" in page
    visitor.post(f"/admin/history/{config.history()[0].id}/restore")
    page = told(visitor.get("/admin/history"))
    assert "The earlier settings are back in force" in page
    assert "They are back, but" not in page


@pytest.mark.parametrize(
    ("settings", "host", "lines"),
    [
        (
            {},
            "127.0.0.1:4117",
            ["http://host.docker.internal:4117/v1", "HOST=0.0.0.0 make run", "opens port 4117", "-p 4117:4117."],
        ),
        (
            {"port": 5000},
            "localhost:5000",
            ["http://host.docker.internal:5000/v1", "HOST=0.0.0.0 PORT=5000 make run", "opens port 5000"],
        ),
        ({"host": "0.0.0.0"}, "[::1]:8080", ["http://host.docker.internal:8080/v1", "-p 8080:4117."]),
        ({"host": "0.0.0.0"}, "localhost", ["http://host.docker.internal/v1", "-p 80:4117."]),
        ({}, "ai.example.org", []),
    ],
)
def test_open_webui_in_docker_is_told_the_port_to_use_and_to_publish(make_app, settings, host, lines):
    app = make_app(**settings)
    with app.test_request_context("/admin/keys", base_url=f"http://{host}/"):
        page = render_template("usage.html", **usage_examples("sk-dgm-x", None))
    page = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert [line for line in lines if line not in page] == []
    assert ("make run" in page) == ("HOST=0.0.0.0" in " ".join(lines))
    assert ("in Docker does not reach" in page) == bool(lines)


def test_pages_are_compiled_before_anybody_asks_for_one(visitor, monkeypatch):
    compile_templates(visitor.app)
    monkeypatch.setattr(visitor.app.jinja_env, "compile", lambda *_, **__: pytest.fail("while somebody waits"))
    for path in PAGES:
        assert visitor.get(f"/admin{path}").status_code == 200
