"""Who may call what. EXPECTED is generated over: a route that is missing from it fails."""

import logging
import threading
import time

import pytest
from flask import Flask, g
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import text

from app.access import hook, login_limits, sessions
from app.access.endpoint import endpoint
from app.errors import DatabaseUnavailable
from app.storage import accounts, database
from tests.conftest import ADMIN, CLIENT, wait_for

PAGES = (
    *("", "/config", "/keys", "/keys/<id>/revoke", "/history", "/audit", "/account"),
    *("/welcome", "/welcome/anthropic", "/welcome/key", "/history/<int:id>/restore"),
)
FORMS = (
    *("/logout", "/enable", "/connections/<id>/verify", "/config", "/keys", "/keys/<id>/revoke"),
    *("/history/<int:id>/restore", "/account", "/welcome/anthropic", "/welcome/key"),
)
# (method, rule): status for nobody, for a client key, for an admin key; bodies are {}.
EXPECTED = {
    ("GET", "/"): (302, 302, 302),
    ("GET", "/v1"): (200, 200, 200),
    ("GET", "/healthz"): (200, 200, 200),
    ("GET", "/readyz"): (200, 200, 200),
    ("GET", "/openapi.json"): (200, 200, 200),
    ("GET", "/docs"): (200, 200, 200),
    ("GET", "/static/<path:filename>"): (404, 404, 404),
    ("GET", "/metrics"): (200, 401, 401),
    ("GET", "/models"): (401, 503, 503),
    ("GET", "/v1/models"): (401, 503, 503),
    ("GET", "/v1/models/<path:model>"): (401, 503, 503),
    ("GET", "/api/hello"): (200, 200, 200),
    ("POST", "/v1/messages"): (401, 400, 400),
    ("POST", "/v1/messages/count_tokens"): (401, 400, 400),
    ("POST", "/v1/chat/completions"): (401, 400, 400),
    ("POST", "/chat/completions"): (401, 400, 400),
    ("GET", "/config"): (401, 403, 200),
    ("POST", "/config/update"): (401, 403, 200),
    ("POST", "/verify"): (401, 403, 400),
    **{("GET", f"/usage/{what}"): (401, 403, 200) for what in ("totals", "series", "requests", "requests.csv")},
    ("GET", "/usage/requests/<id>"): (401, 403, 404),
    ("GET", "/v1/usage"): (401, 200, 200),
    ("GET", "/setup"): (200, 200, 200),
    ("POST", "/setup"): (403, 403, 403),
    ("GET", "/admin/login"): (303, 303, 303),
    ("POST", "/admin/login"): (403, 403, 403),
    **{("GET", f"/admin{page}"): (302, 302, 302) for page in PAGES},
    **{("POST", f"/admin{page}"): (401, 401, 401) for page in FORMS},
}
CALLERS = {"nobody": {}, "client": CLIENT, "admin": ADMIN}


def routes(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def call(app, method, rule, **options):
    path = rule.replace("<path:filename>", "none.css").replace("<path:model>", "claude-x").replace("<int:id>", "1")
    body: dict[str, dict[str, str]] = {"json": {}} if method == "POST" else {}
    return app.test_client().open(path, method=method, **body, **options)


def test_the_table_names_every_route_and_no_other(app):
    assert sorted(routes(app)) == sorted(EXPECTED)


@pytest.mark.parametrize(("method", "rule"), EXPECTED)
def test_every_route_admits_whom_it_declares(app, method, rule):
    answers = {name: call(app, method, rule, headers=headers) for name, headers in CALLERS.items()}
    assert tuple(answer.status_code for answer in answers.values()) == EXPECTED[method, rule]
    for answer in answers.values():
        assert answer.headers["x-gateway-request-id"].startswith("req_gw_")
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.status_code >= 400:
            openais = {"message", "type", "param", "code"}
            assert set(answer.json["error"]) >= ({"message", "type"} if "/messages" in rule else openais)


@pytest.mark.parametrize(
    "rule", [rule for (method, rule), expected in EXPECTED.items() if method == "GET" and expected[0] == 401]
)
def test_head_is_guarded_like_get(app, rule):
    assert call(app, "HEAD", rule).status_code == 401


@pytest.mark.parametrize(("method", "rule"), EXPECTED)
def test_options_answers_without_a_key_and_tells_nothing_but_methods(app, method, rule):
    answer = call(app, "OPTIONS", rule)
    assert answer.status_code in (200, 404)
    assert answer.data == b"" or answer.status_code == 404


def test_an_undeclared_view_stops_the_start(app):
    app.add_url_rule("/forgotten", "forgotten", lambda: "")
    with pytest.raises(RuntimeError, match="forgotten"):
        hook.check_declarations(app)


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": CLIENT["authorization"]},
            {"authorization": CLIENT["authorization"].replace("Bearer", "bearer")},
            {"x-api-key": "client-key-of-the-tests"},
            {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "client-key-of-the-tests"},
            {"authorization": "Bearer ", "x-api-key": "client-key-of-the-tests"},
        ],
    )
    def test_a_key_is_read_from_either_header(self, app, headers):
        assert app.test_client().get("/v1/models", headers=headers).json["error"]["code"] == "integration_disabled"

    def test_a_missing_key_is_said_in_openais_words(self, app):
        answer = app.test_client().get("/v1/models")
        assert answer.status_code == 401
        assert answer.json["error"] | {"message": ""} == {
            "message": "",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        assert answer.json["error"]["message"].startswith("You didn't provide an API key.")
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_a_wrong_key_is_not_echoed(self, app, caplog):
        with caplog.at_level(logging.DEBUG):
            answer = app.test_client().get("/v1/models", headers={"x-api-key": "sk-secret-of-another-service"})
        assert answer.status_code == 401
        assert answer.json["error"]["code"] == "invalid_api_key"
        assert "another-service" not in answer.text + caplog.text

    @pytest.mark.parametrize("secret", ["é", "\x80", "a" * 100_000, "sk-dgm-" + "%" * 40])
    def test_a_strange_key_is_a_wrong_one(self, app, secret):
        environ = {"HTTP_X_API_KEY": secret}
        assert app.test_client().get("/v1/models", environ_overrides=environ).status_code == 401

    def test_a_client_key_on_an_admin_route_is_told_so(self, app):
        assert app.test_client().get("/config", headers=CLIENT).json["error"]["code"] == "permission_denied"

    def test_the_client_does_not_choose_the_request_id(self, app):
        answer = app.test_client().get("/v1", headers={"x-gateway-request-id": "mine", "x-request-id": "mine"})
        assert "mine" not in str(answer.headers)

    def test_a_known_key_needs_no_database_and_an_unknown_one_is_503_without_it(self, app, monkeypatch):
        _, secret = app.extensions["dragoman"].keys.create(name="laptop", who="tester")
        client = app.test_client()
        assert client.get("/v1/models", headers={"x-api-key": secret}).status_code == 503

        def gone(*arguments, **options):
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(database, "_run", gone)
        known = client.get("/v1/models", headers={"x-api-key": secret})
        unknown = client.get("/v1/models", headers={"x-api-key": "sk-dgm-" + "a" * 40})
        assert known.json["error"]["code"] == "integration_disabled"
        assert unknown.json["error"]["code"] == "database_unavailable"


class TestMetrics:
    def get(self, app, headers=None, peer="127.0.0.1"):
        environ = {"REMOTE_ADDR": peer}
        return app.test_client().get("/metrics", headers=headers or {}, environ_overrides=environ).status_code

    @pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
    def test_the_machine_itself_may_read_them(self, app, peer):
        assert self.get(app, peer=peer) == 200

    @pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1", "", "::ffff:192.0.2.1"])
    def test_others_may_not(self, app, peer):
        assert self.get(app, peer=peer) == 401

    @pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-proto"])
    def test_what_came_through_a_proxy_is_not_the_machine_itself(self, app, header):
        assert self.get(app, {header: "127.0.0.1"}) == 401

    def test_a_token_opens_from_everywhere_and_a_wrong_one_from_nowhere(self, make_app):
        app = make_app(metrics_token="the-token")
        assert self.get(app, {"authorization": "Bearer the-token"}, peer="192.0.2.1") == 200
        assert self.get(app, {"authorization": "Bearer other"}) == 401

    def test_details_of_readiness_are_for_admins_and_the_token(self, make_app):
        app = make_app(metrics_token="the-token")
        for headers, told in [
            ({}, False),
            (CLIENT, False),
            ({"x-api-key": "wrong"}, False),
            (ADMIN, True),
            ({"authorization": "Bearer the-token"}, True),
        ]:
            assert ("generation" in app.test_client().get("/readyz", headers=headers).json) is told


class TestCors:
    ORIGIN = "https://chat.example"

    @pytest.fixture
    def client(self, make_app):
        return make_app(cors_allow_origins=(self.ORIGIN,)).test_client()

    def preflight(self, client, path="/v1/chat/completions", origin=ORIGIN):
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, x-stainless-os",
        }
        return client.options(path, headers=headers)

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/models", "/chat/completions"])
    def test_a_browser_is_told_that_its_page_may_call(self, client, path):
        answer = self.preflight(client, path)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == self.ORIGIN
        assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "origin" in answer.headers["vary"].lower()

    @pytest.mark.parametrize(("path", "origin"), [("/v1/models", "https://evil.example"), ("/config", ORIGIN)])
    def test_other_origins_and_the_admins_routes_are_not_opened(self, client, path, origin):
        for answer in (self.preflight(client, path, origin), client.get(path, headers={"origin": origin})):
            assert "access-control-allow-origin" not in answer.headers

    def test_errors_can_be_read_by_the_page_too(self, client):
        answer = client.get("/v1/models", headers={"origin": self.ORIGIN})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == self.ORIGIN
        assert "x-gateway-request-id" in answer.headers["access-control-expose-headers"]
        assert client.get("/v1/nowhere", headers={"origin": self.ORIGIN}).headers["access-control-allow-origin"]

    def test_a_star_opens_to_every_origin(self, make_app):
        answer = self.preflight(make_app(cors_allow_origins=("*",)).test_client())
        assert answer.headers["access-control-allow-origin"] == "*"

    def test_by_default_nothing_is_opened(self, app):
        assert "access-control-allow-origin" not in self.preflight(app.test_client()).headers


class Site:
    """The application with a sign-in view and a page, whatever the web interface looks like."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.admin = accounts.create_first(app, "ann", "password of ann")

        def sign_in():
            from flask import request

            sessions.sign_in(request.form["username"], request.form["password"])
            return "welcome"

        def page():
            return f"<p>{g.caller.username}"

        app.add_url_rule("/admin/test-sign-in", "test_sign_in", endpoint("anyone")(sign_in), methods=["POST"])
        app.add_url_rule("/admin/test-page", "test_page", endpoint("session")(page), methods=["GET", "POST"])
        app.add_url_rule("/setup/test", "test_setup", endpoint("setup")(lambda: "set up"))
        hook.check_declarations(app)
        self.client = app.test_client()

    def sign_in(self, password="password of ann", username="ann", **options):
        form = {"username": username, "password": password}
        return self.client.post("/admin/test-sign-in", data=form, **options)

    def csrf_token(self):
        with self.client.session_transaction() as session:
            session["csrf_token"] = "raw"
        keys = self.app.config["WTF_CSRF_SECRET_KEY"]
        return URLSafeTimedSerializer(keys, salt="wtf-csrf-token").dumps("raw")


@pytest.fixture
def site(app):
    return Site(app)


class TestSessions:
    def test_a_signed_in_admin_sees_pages_and_admin_routes(self, site):
        assert site.sign_in().status_code == 200
        assert site.client.get("/admin/test-page").text == "<p>ann"
        assert site.client.get("/config").status_code == 200
        assert site.client.get("/models").status_code == 503
        assert site.client.get("/v1/models").status_code == 401

    def test_nobody_is_sent_to_the_sign_in_page_and_back(self, site):
        answer = site.client.get("/admin/test-page?a=1&b=2")
        assert answer.status_code == 302
        assert answer.headers["location"] == "/admin/login?next=/admin/test-page%3Fa%3D1%26b%3D2"

    def test_a_program_without_a_session_gets_a_401(self, site):
        answer = site.client.post("/admin/test-page", json={})
        assert answer.status_code == 401
        assert answer.json["error"]["code"] == "not_signed_in"

    def test_an_api_key_is_no_session(self, site):
        assert site.client.get("/admin/test-page", headers=ADMIN).status_code == 302

    @pytest.mark.parametrize("path", ["/config/update", "/verify", "/admin/test-page"])
    def test_a_write_with_a_session_needs_the_csrf_token(self, site, path):
        site.sign_in()
        for headers in ({}, {"x-csrftoken": "wrong"}):
            answer = site.client.post(path, json={}, headers=headers)
            assert answer.status_code == 403
            assert answer.json["error"]["code"] == "csrf_failed"
        answer = site.client.post(path, json={}, headers={"x-csrftoken": site.csrf_token()})
        assert answer.status_code in (200, 400)

    def test_the_token_is_taken_from_a_form_too(self, site):
        site.sign_in()
        answer = site.client.post("/admin/test-page", data={"csrf_token": site.csrf_token()})
        assert answer.text == "<p>ann"

    def test_a_new_password_ends_the_session_at_once(self, site):
        site.sign_in()
        accounts.set_password(site.app, "ann", "new password of ann", who="tester")
        assert site.client.get("/config").status_code == 401

    def test_a_kept_cookie_is_worth_nothing_after_signing_out_and_other_browsers_stay(self, site, make_app):
        other = site.app.test_client()
        other.post("/admin/test-sign-in", data={"username": "ann", "password": "password of ann"})
        site.sign_in()
        kept = site.client.get_cookie("session").value
        assert site.client.post("/admin/logout", headers={"x-csrftoken": site.csrf_token()}).status_code < 400
        assert other.get("/config").status_code == 200
        for app in (site.app, make_app()):  # another worker or node
            thief = app.test_client()
            thief.set_cookie("session", kept)
            assert thief.get("/config").status_code == 401

    def test_ended_sessions_are_forgotten_when_their_cookies_have_expired(self, app):
        for lifetime_s in (-7200, -7200, 60):
            accounts.end_session(app, f"session of {lifetime_s}", lifetime_s=lifetime_s)
        accounts.end_session(app, "the last", lifetime_s=60)
        accounts.end_session(app, "the last", lifetime_s=60)
        count = text("SELECT count(*) FROM ended_sessions")
        assert database.read(app, lambda session: session.scalar(count)) == 2

    @pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "multipart/form-data"])
    def test_a_write_with_a_session_needs_no_json_content_type(self, site, content_type):
        site.sign_in()
        headers = {"x-csrftoken": site.csrf_token()}
        body = b'{"COMPAT": "strict"}'
        answer = site.client.post("/config/update?all=true", data=body, content_type=content_type, headers=headers)
        assert (answer.status_code, answer.json.get("COMPAT")) == (200, "strict")

    def test_a_changed_secret_key_ends_the_session_and_a_fallback_keeps_it(self, make_app):
        site = Site(make_app(secret_key="the first secret key"))
        site.sign_in()
        cookie = site.client.get_cookie("session")
        assert cookie is not None
        options = {"secret_key": "the second secret key"}
        for fallbacks, status in (((), 401), (("the first secret key",), 200)):
            client = make_app(**options, secret_key_fallbacks=fallbacks).test_client()
            client.set_cookie("session", cookie.value)
            assert client.get("/config").status_code == status

    def test_the_cookie_is_for_us_alone_and_secure_behind_tls(self, site):
        cookie = site.sign_in().headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie
        assert "Secure" in site.sign_in(base_url="https://gateway.example").headers["set-cookie"]

    def test_api_answers_neither_set_nor_vary_by_cookie(self, site):
        answer = site.client.get("/v1/models", headers=CLIENT)
        assert "set-cookie" not in answer.headers
        assert "vary" not in answer.headers

    def test_pages_carry_the_security_headers(self, site):
        site.sign_in()
        headers = site.client.get("/admin/test-page").headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"

    def test_set_up_is_over_once_an_admin_exists(self, make_app, site):
        assert site.client.get("/setup/test", headers={"accept": "application/json"}).status_code == 404

    @pytest.mark.parametrize(
        ("target", "safe"),
        [
            ("/admin/keys?x=1", "/admin/keys?x=1"),
            ("/admin", "/admin"),
            (None, "/admin"),
            ("https://evil.example/admin", "/admin"),
            ("//evil.example", "/admin"),
            ("/\\evil.example", "/admin"),
            ("/admin\\..", "/admin"),
            ("/admin\n", "/admin"),
            ("javascript:alert(1)", "/admin"),
            ("/admin/login", "/admin"),
            ("/config", "/admin"),
        ],
    )
    def test_next_leads_nowhere_but_to_our_pages(self, target, safe):
        assert sessions.safe_next(target) == safe


class TestThrottling:
    def test_many_wrong_passwords_close_the_account_for_a_while(self, site, monkeypatch):
        monkeypatch.setattr(accounts, "verify", lambda app, name, password: None)
        limit = int(login_limits.FAILED_LOGINS_PER_USERNAME.split()[0])
        assert {site.sign_in("wrong").status_code for _ in range(limit)} == {401}
        answer = site.sign_in("wrong")
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 300

    def test_many_names_from_one_address_are_stopped_too_and_other_addresses_are_not(self, site, monkeypatch):
        monkeypatch.setattr(accounts, "verify", lambda app, name, password: None)
        limit = int(login_limits.FAILED_LOGINS_PER_ADDRESS.split()[0])
        for number in range(limit):
            assert site.sign_in("wrong", username=f"name-{number}").status_code == 401
        assert site.sign_in("wrong", username="another").status_code == 429
        elsewhere = {"REMOTE_ADDR": "192.0.2.9"}
        assert site.sign_in("wrong", username="another", environ_overrides=elsewhere).status_code == 401

    def test_signing_in_does_not_count_as_failing(self, site):
        for _ in range(3):
            assert site.sign_in("wrong").status_code == 401
            assert site.sign_in().status_code == 200

    def test_attempts_that_come_at_once_count_before_a_password_is_looked_at(self, site, monkeypatch):
        limit = int(login_limits.FAILED_LOGINS_PER_USERNAME.split()[0])
        looked, all_here = [], threading.Event()

        def verify(app, name, password):
            looked.append(name)
            all_here.wait(5)

        monkeypatch.setattr(accounts, "verify", verify)
        statuses = []

        def attempt():
            form = {"username": "ann", "password": "wrong"}
            statuses.append(site.app.test_client().post("/admin/test-sign-in", data=form).status_code)

        threads = [threading.Thread(target=attempt) for _ in range(limit + 6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(statuses) == 6 or len(looked) > limit, what="six attempts are refused")
        all_here.set()
        for thread in threads:
            thread.join(10)
        assert len(looked) == limit
        assert sorted(statuses) == [401] * limit + [429] * 6

    def test_an_attempt_that_the_database_cut_short_is_not_counted(self, site, monkeypatch):
        def gone(app, name, password):
            raise DatabaseUnavailable("gone")

        with monkeypatch.context() as patch:
            patch.setattr(accounts, "verify", gone)
            assert {site.sign_in().status_code for _ in range(30)} == {503}
        assert site.sign_in().status_code == 200

    def test_a_failed_sign_in_does_not_tell_whether_the_name_exists(self, site):
        unknown, wrong = site.sign_in(username="nobody"), site.sign_in("wrong")
        assert unknown.json == wrong.json


def test_the_hook_costs_a_chat_request_next_to_nothing(app):
    """Whole round trips of Flask; generous, since machines differ: the hook itself takes about 0.01 ms."""
    environ = {"HTTP_AUTHORIZATION": CLIENT["authorization"]}
    with app.test_request_context("/v1/chat/completions", method="POST", environ_overrides=environ):
        hook._admit()
        started = time.process_time()
        for _ in range(1000):
            hook._admit()
        assert (time.process_time() - started) / 1000 < 0.000_05
