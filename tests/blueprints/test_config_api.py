"""GET /config and POST /config/update, as an admin's program meets them."""

import pytest

from app.storage import audit
from tests.conftest import ADMIN

KEY = "sk-ant-api03-" + "x" * 40 + "wxyz"
PUBLIC = {
    "ENABLE_ANTHROPIC_API": False,
    "ANTHROPIC_API_BASE_URLS": ["https://api.anthropic.com"],
    "ANTHROPIC_API_KEYS": [],
    "ANTHROPIC_API_CONFIGS": {},
    "ANTHROPIC_MODELS": [],
}


@pytest.fixture
def client(app):
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = ADMIN["authorization"]
    return client


def update(client, body, **options):
    return client.post("/config/update", json=body, **options)


def test_an_empty_gateway_answers_exactly_five_names_and_the_generation(client):
    answer = client.get("/config")
    assert answer.json == {**PUBLIC, "generation": 1}
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["cache-control"] == "no-store"


def test_all_settings_are_shown_on_demand(client):
    assert set(client.get("/config?all=true").json) > {*PUBLIC, "generation", "COMPAT", "MODEL_ALIASES"}


def test_it_is_told_where_each_value_comes_from(make_app):
    app = make_app(runtime={"COMPAT": "strict", "IDLE_TIMEOUT_S": "100"})
    client = app.test_client()
    update(client, {"COMPAT": "lenient", "EXPOSE_REASONING": False}, headers=ADMIN)
    sources = client.get("/config?all=true", headers=ADMIN).json["sources"]
    assert {sources[name] for name in ("COMPAT", "EXPOSE_REASONING")} == {"database"}
    assert sources["IDLE_TIMEOUT_S"] == "environment"
    assert sources["MODEL_ALIASES"] == "default"
    assert "sources" not in client.get("/config", headers=ADMIN).json


def test_a_change_answers_with_what_the_body_named(client):
    answer = update(client, {"COMPAT": "strict", "ENABLE_ANTHROPIC_API": True}).json
    assert answer == {**PUBLIC, "ENABLE_ANTHROPIC_API": True, "COMPAT": "strict", "warnings": [], "generation": 2}


class TestAKeyStaysAtItsHost:
    """Whoever may change a base URL need not know the key, and could else have it sent to them."""

    OTHER = "sk-ant-api03-" + "y" * 40 + "other"

    @pytest.fixture(autouse=True)
    def two_connections(self, client):
        urls = ["https://api.anthropic.com", "https://proxy.example/anthropic"]
        assert (
            update(client, {"ANTHROPIC_API_BASE_URLS": urls, "ANTHROPIC_API_KEYS": [KEY, self.OTHER]}).status_code
            == 200
        )

    @pytest.mark.parametrize("keys", [None, ["sk-ant-…wxyz", "sk-ant-…ther"]])
    @pytest.mark.parametrize(
        ("urls", "place"),
        [
            (["https://api.anthropic.com", "https://evil.example/anthropic"], 1),
            (["https://evil.example", "https://proxy.example/anthropic"], 0),
            (["https://proxy.example/anthropic", "https://api.anthropic.com"], 0),
            (["https://api.anthropic.com:8443", "https://proxy.example/anthropic"], 0),
            (["https://api.anthropic.com.", "https://proxy.example"], 0),
            (["https://evil.example"], 0),
        ],
    )
    def test_another_host_needs_the_key_itself(self, client, urls, place, keys):
        body = {"ANTHROPIC_API_BASE_URLS": urls, **({"ANTHROPIC_API_KEYS": keys} if keys else {})}
        answer = update(client, body)
        assert (answer.status_code, answer.json["error"]["param"]) == (400, f"ANTHROPIC_API_BASE_URLS[{place}]")
        assert client.get("/config").json["generation"] == 2

    @pytest.mark.parametrize(
        "body",
        [
            {"ANTHROPIC_API_BASE_URLS": ["https://api.anthropic.com/v1/", "https://proxy.example/elsewhere"]},
            {
                "ANTHROPIC_API_BASE_URLS": ["https://api.anthropic.com", "https://new.example"],
                "ANTHROPIC_API_KEYS": ["sk-ant-…wxyz", OTHER],
            },
            {"ANTHROPIC_API_BASE_URLS": ["https://proxy.example"], "ANTHROPIC_API_KEYS": ["sk-ant-…ther"]},
            {
                "ANTHROPIC_API_BASE_URLS": [
                    "https://proxy.example",
                    "https://api.anthropic.com",
                    "https://new.example",
                ],
                "ANTHROPIC_API_KEYS": ["sk-ant-…ther", "sk-ant-…wxyz", "sk-ant-new"],
            },
        ],
    )
    def test_the_same_host_or_the_key_itself_will_do(self, client, body):
        answer = update(client, body)
        assert answer.status_code == 200, answer.json

    def test_lists_that_do_not_pair_up_can_be_mended_with_the_hosts_they_name(self, make_app, tmp_path):
        app = make_app(
            instance_path=tmp_path / "another",
            runtime={"ANTHROPIC_API_BASE_URLS": "https://one.example,https://two.example", "ANTHROPIC_API_KEYS": "key"},
        )
        client = app.test_client()
        for host, status in (("evil.example", 400), ("two.example", 200)):
            body = {"ANTHROPIC_API_BASE_URLS": [f"https://{host}"]}
            assert update(client, body, headers=ADMIN).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"x" * 10_000: 1},
        {"ANTHROPIC_API_CONFIGS": {"x" * 10_000: {}}},
        {"ANTHROPIC_API_CONFIGS": {"1" * 5000: {}}},
        {"ANTHROPIC_API_CONFIGS": {"0": {"headers": {"é" * 5000: "x"}}}},
        {"ANTHROPIC_API_KEYS": ["…" * 5000]},
        {"ANTHROPIC_API_BASE_URLS": ["x" * 5000]},
        {"ANTHROPIC_MODELS": [{"id": "x" * 400}, {"id": "x" * 400}]},
        {"MODEL_ALIASES": {"x" * 5000: 1}},
    ],
)
def test_what_was_wrong_is_not_echoed_at_length(client, body):
    answer = update(client, body)
    assert answer.status_code == 400
    assert len(answer.text) < 900


@pytest.mark.parametrize("query", ["all=maybe", "reveal=2"])
def test_a_flag_is_true_or_false(client, query):
    answer = client.get(f"/config?{query}")
    assert answer.status_code == 400
    assert answer.json["error"]["param"] == query.partition("=")[0]


def test_a_part_of_the_document_can_be_changed_and_comes_back_masked(client):
    answer = update(client, {"ENABLE_ANTHROPIC_API": True, "ANTHROPIC_API_KEYS": [KEY]})
    expected = {**PUBLIC, "ENABLE_ANTHROPIC_API": True, "ANTHROPIC_API_KEYS": ["sk-ant-…wxyz"], "generation": 2}
    assert (answer.status_code, answer.json) == (200, {**expected, "warnings": []})
    assert client.get("/config").json == expected
    assert KEY not in answer.text


def test_what_get_answered_can_be_posted_back_as_it_is(client):
    update(client, {"ANTHROPIC_API_KEYS": [KEY, "short"], "ANTHROPIC_API_CONFIGS": {"0": {"headers": {"x": "secret"}}}})
    for query in ("", "?all=true", "?reveal=true"):
        shown = client.get(f"/config{query}").json
        answer = update(client, shown)
        assert answer.status_code == 200
        assert answer.json["generation"] == shown["generation"]
    assert client.get("/config?reveal=true").json["ANTHROPIC_API_KEYS"] == [KEY, "short"]


def test_revealing_keys_is_written_to_the_audit_log(app, client):
    update(client, {"ANTHROPIC_API_KEYS": [KEY]})
    assert client.get("/config?reveal=true").json["ANTHROPIC_API_KEYS"] == [KEY]
    newest = audit.entries(app)[0]
    assert (newest.action, newest.who, newest.ip) == ("config.reveal", "key ADMIN_API_KEYS[0]", "127.0.0.1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"NO_SUCH_SETTING": 1}, "NO_SUCH_SETTING"),
        ({"ENABLE_ANTHROPIC_API": "true"}, "ENABLE_ANTHROPIC_API"),
        ({"ENABLE_ANTHROPIC_API": None}, "ENABLE_ANTHROPIC_API"),
        ({"ANTHROPIC_API_KEYS": "a,b"}, "ANTHROPIC_API_KEYS"),
        ({"ANTHROPIC_API_KEYS": ["a", 1]}, "ANTHROPIC_API_KEYS[1]"),
        ({"ANTHROPIC_API_KEYS": ["sk-ant-…wxyz"]}, "ANTHROPIC_API_KEYS[0]"),
        ({"ANTHROPIC_API_BASE_URLS": ["ftp://x"]}, "ANTHROPIC_API_BASE_URLS[0]"),
        ({"ANTHROPIC_API_BASE_URLS": ["http://x", "http://y"]}, "ANTHROPIC_API_BASE_URLS"),
        ({"ANTHROPIC_API_CONFIGS": []}, "ANTHROPIC_API_CONFIGS"),
        ({"ANTHROPIC_API_CONFIGS": {"0": {"priority": "1"}}}, "ANTHROPIC_API_CONFIGS.0.priority"),
        ({"ANTHROPIC_MODELS": [{"name": "x"}]}, "ANTHROPIC_MODELS[0].id"),
        ({"generation": "1"}, "generation"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it_and_saves_nothing(client, body, param):
    answer = update(client, {"COMPAT": "strict", **body})
    assert answer.status_code == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["param"] == param
    assert param in answer.json["error"]["message"]
    assert client.get("/config?all=true").json["COMPAT"] == "lenient"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b'{"a":' * 300])
def test_a_body_that_is_no_json_object_is_a_400(client, body):
    answer = client.post("/config/update", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stale", [{"headers": {"if-match": '"1"'}}, {"json": {"generation": 1}}])
def test_a_stale_generation_is_a_412(client, stale):
    update(client, {"COMPAT": "strict"})
    answer = client.post("/config/update", **{"json": {"COMPAT": "lenient"}, **stale})
    assert answer.status_code == 412
    assert answer.json["error"]["code"] == "stale_generation"
    assert client.get("/config?all=true").json["COMPAT"] == "strict"


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', "*"])
def test_a_current_etag_lets_the_change_through(client, etag):
    assert update(client, {"COMPAT": "strict"}, headers={"if-match": etag}).status_code == 200


def test_an_etag_that_is_none_of_ours_is_a_412(client):
    assert update(client, {"COMPAT": "strict"}, headers={"if-match": '"abc"'}).status_code == 412


def test_body_and_header_must_not_name_different_generations(client):
    assert update(client, {"generation": 1}, headers={"if-match": '"2"'}).status_code == 400


def test_an_admin_key_made_here_may_change_the_configuration(app):
    _, secret = app.extensions["dragoman"].keys.create(name="ci", scope="admin", who="tester")
    answer = app.test_client().post("/config/update", json={"COMPAT": "strict"}, headers={"x-api-key": secret})
    assert answer.status_code == 200
    assert audit.entries(app)[0].who == "key ci"


def test_names_that_no_connection_lists_are_saved_with_a_warning_and_the_answer_can_be_posted_back(client):
    wrong = {"MODEL_ALIASES": {"gpt-4o": "claude-sonet-5-5"}, "MODEL_ORDER": ["claude-opus-5-5", "claude-opos-5-5"]}
    answer = update(client, wrong).json
    assert {name: answer[name] for name in wrong} == wrong
    assert answer["warnings"] == [
        "No connection lists the model claude-sonet-5-5, which gpt-4o stands for. Did you mean claude-sonnet-5-5?",
        "No connection lists the model claude-opos-5-5, which the order of models names. Did you mean claude-opus-5-5?",
    ]
    assert update(client, answer).json == answer
    assert update(client, {"COMPAT": "strict"}).json["warnings"] == []
    assert "warnings" not in client.get("/config").json
