"""The configuration form without a browser: what it saves, what it refuses, and whose values win."""

import pytest

from app.errors import InvalidRequest
from app.pages import forms
from app.pages.forms import CONFIGS, KEYS, URLS
from tests.pages.conftest import Form

ONE, TWO = "sk-ant-api03-the-first-key-of-the-tests-1111", "sk-ant-api03-the-second-key-of-the-tests-2222"
FULL = {
    "ENABLE_ANTHROPIC_API": True,
    URLS: ["https://one.example/v1", "https://two.example"],
    KEYS: [ONE, TWO],
    CONFIGS: {
        "0": {
            "name": "first",
            "enable": True,
            "weight": 1,
            "tags": [{"name": "blue", "colour": "#00f"}],
            "auto_cache": True,
            "headers": {"X-Secret": "a header value that is secret", "anthropic-beta": "x"},
            "from_the_future": {"kept": True},
        },
        "https://two.example": {"prefix_id": "two", "timeout_s": 2.5},
    },
    "ANTHROPIC_MODELS": [{"id": "claude-x", "max_tokens": 5, "of_ours": [1]}, {"id": "claude-y"}],
    "MODEL_ALIASES": {"gpt-4o": "claude-x"},
}
PAGE = "/admin/config"


@pytest.fixture
def config(visitor):
    store = visitor.app.extensions["dragoman"].config
    store.update(FULL, who="test")
    return store


def refused(answer):
    assert answer.status_code == 400
    return Form(answer.text).errors


def test_an_alias_that_differs_from_another_by_case_only_is_refused_at_its_field(visitor, config):
    config.update({"MODEL_ALIASES": {"gpt-4o": "claude-x", "gpt-5": "claude-x"}}, who="test")
    assert set(refused(visitor.post(PAGE, aliases1__alias="GPT-4o"))) == {"aliases1-alias"}


def test_the_overview_marks_an_alias_that_stands_for_what_no_connection_lists(visitor, config):
    config.update(
        {URLS: ["http://127.0.0.1:9"], KEYS: [ONE], "MODEL_ALIASES": {"a": "claude-x", "b": "claude-nope"}}, who="test"
    )
    page = visitor.get("/admin").text
    assert page.count("no connection lists it") == 1
    assert page.index("is claude-nope") < page.index("no connection lists it") < page.index("is claude-nope") + 100


def test_saving_the_form_as_it_is_shown_changes_nothing(visitor, config):
    before = config.snapshot
    assert visitor.post(PAGE).status_code == 303
    assert config.load().generation == before.generation
    assert dict(config.snapshot.values) == dict(before.values)


def test_no_secret_stands_in_the_form(visitor, config):
    html = visitor.get(PAGE).text
    for secret in (ONE, TWO, "a header value that is secret"):
        assert secret not in html
    assert "sk-ant-…1111" in html
    assert visitor.get(PAGE).headers["cache-control"] == "no-store"


def test_one_edit_changes_one_thing(visitor, config):
    before = dict(config.snapshot.values)
    assert visitor.post(PAGE, c0__priority="3", c0__headers="X-Secret: …cret\r\nX-New: 1").status_code == 303
    after = dict(config.load().values)
    assert after[CONFIGS]["0"] == {
        **before[CONFIGS]["0"],
        "priority": 3,
        "headers": {"X-Secret": "a header value that is secret", "X-New": "1"},
    }
    assert {n for n in after if after[n] != before[n]} == {CONFIGS}


def test_an_empty_key_field_keeps_the_key_and_another_replaces_it(visitor, config):
    id = config.snapshot.connections[1].id
    assert visitor.post(PAGE, c1__key="sk-ant-api03-a-new-one").status_code == 303
    assert config.load().values[KEYS] == [ONE, "sk-ant-api03-a-new-one"]
    assert config.snapshot.connections[1].id == id


def test_a_removed_connection_takes_its_settings_along(visitor, config):
    assert visitor.post(PAGE, card=["1"]).status_code == 303
    (left,) = config.load().connections
    assert (left.key, left.prefix_id, left.name) == (TWO, "two", "")


def test_without_script_buttons_add_and_remove_and_keep_what_was_typed(visitor, config):
    added = visitor.post(PAGE, do="add cards", IDLE_TIMEOUT_S="77")
    form = Form(added.text).fields
    assert form["card"] == ["0", "1", "2"]
    assert form["IDLE_TIMEOUT_S"] == ["77"]
    removed = Form(visitor.send(PAGE, form, do="remove cards 0").text).fields
    assert removed["c0-url"] == ["https://two.example"]
    assert config.load().values["IDLE_TIMEOUT_S"] == 300
    saved = visitor.send(PAGE, form, c2__key="sk-ant-api03-third", c2__name="third", c2__url="https://three.example")
    assert saved.status_code == 303
    assert [c.name for c in config.load().connections] == ["first", "", "third"]


WRONG = (
    ({"IDLE_TIMEOUT_S": "soon"}, "IDLE_TIMEOUT_S"),
    ({"IDLE_TIMEOUT_S": "0"}, "IDLE_TIMEOUT_S"),
    ({"COMPAT": "odd"}, "COMPAT"),
    ({"c0__url": "ftp://one.example"}, "c0-url"),
    ({"c0__url": ""}, "c0-url"),
    ({"c0__key": "a key with spaces"}, "c0-key"),
    ({"c1__key": ONE, "c1__url": "https://one.example"}, "c1-key"),
    ({"c1__weight": "0"}, "c1-weight"),
    ({"c0__priority": "1.5"}, "c0-priority"),
    ({"c0__headers": "no colon"}, "c0-headers"),
    ({"c0__headers": "Host: elsewhere"}, "c0-headers"),
    ({"c0__headers": "X-Other: …cret"}, "c0-headers"),
    ({"models0__id": ""}, "models0-id"),
    ({"models1__id": "claude-x"}, "models1-id"),
    ({"models0__max_tokens": "many"}, "models0-max_tokens"),
    ({"aliases0__model": ""}, "aliases0-model"),
)


def test_what_is_wrong_stands_at_its_field_with_what_was_typed(visitor, config):
    before = config.snapshot.generation
    shown = Form(visitor.get(PAGE).text).fields
    for typed, field in WRONG:
        answer = visitor.send(PAGE, shown, DEFAULT_MAX_TOKENS="17", **typed)
        assert set(refused(answer)) == {field}, typed
        kept = Form(answer.text).fields
        assert kept["DEFAULT_MAX_TOKENS"] == ["17"]
        name, text = next(iter(typed.items()))
        if not name.endswith(("key", "COMPAT")):
            assert kept[name.replace("__", "-")] == [text]
    assert config.load().generation == before


def test_errors_are_in_plain_words(visitor, config):
    answer = visitor.post(
        PAGE, c0__url="one.example", c1__key="a b", c1__weight="0", IDLE_TIMEOUT_S="0", models0__max_tokens="many"
    )
    assert refused(answer) == {
        "c0-url": "Write the whole URL, such as https://api.anthropic.com.",
        "c1-key": "A key has no spaces and no letters beyond a to z. Copy it once more.",
        "c1-weight": "Write a number above 0.",
        "IDLE_TIMEOUT_S": "Write a whole number, 1 or more.",
        "models0-max_tokens": "Write a whole number, 1 or more.",
    }


def test_a_url_of_another_host_asks_for_the_key_again(visitor, config):
    answer = visitor.post(PAGE, c0__url="https://elsewhere.example")
    assert refused(answer) == {"c0-key": forms.KEY_AGAIN}
    assert visitor.post(PAGE, c0__url="https://one.example/folder/v1").status_code == 303
    assert config.load().connections[0].base_url == "https://one.example/folder"


def test_what_storage_says_of_a_url_stands_at_its_connection(config):
    draft = forms.draft_of(config.snapshot)
    error = InvalidRequest(f"{URLS}[1] names another host; send the key too.", param=f"{URLS}[1]")
    assert forms.place_error(draft, error)
    assert set(draft.errors) == {"c1-url", "c1-key"}


def test_a_new_connection_that_does_not_work_is_saved_with_a_warning(visitor, config, simulator):
    config.update({URLS: [simulator], KEYS: [ONE], CONFIGS: {}}, who="test")
    assert visitor.post(PAGE, c0__name="mine").status_code == 303
    assert "Saved, but" not in visitor.get(PAGE).text
    assert visitor.post(PAGE, c0__key="sk-ant-invalid-key-of-the-tests").status_code == 303
    shown = visitor.get(PAGE).text
    assert "Saved, but the connection does not work: 127.0.0.1" in shown
    assert "refused the key" in shown
    assert "Saved. It is in force" not in shown


def test_verifying_an_empty_connection_says_one_thing(visitor, config):
    shown = Form(visitor.get(PAGE).text).fields
    fields = {**shown, "do": ["verify 0"], "c0-url": [""], "c0-origin": [""]}
    answer = visitor.client.post(PAGE, data=fields, headers={"accept": "application/json"})
    assert answer.json["message"] == "Write the whole URL, such as https://api.anthropic.com."


def test_all_that_is_wrong_is_said_at_once(visitor, config):
    answer = visitor.post(PAGE, c0__url="", c1__weight="x", IDLE_TIMEOUT_S="x")
    assert set(refused(answer)) == {"c0-url", "c1-weight", "IDLE_TIMEOUT_S"}


class TestSomebodyElseSavedMeanwhile:
    def test_nothing_is_saved_and_both_edits_are_in_the_form(self, visitor, config):
        mine = Form(visitor.get(PAGE).text).fields
        config.update({"IDLE_TIMEOUT_S": 55, "COMPAT": "strict"}, who="bob")
        answer = visitor.send(PAGE, mine, DEFAULT_MAX_TOKENS="17", IDLE_TIMEOUT_S="66")
        assert answer.status_code == 409
        assert "bob changed Strictness, Idle timeout (seconds)" in answer.text
        merged = Form(answer.text).fields
        assert (merged["COMPAT"], merged["DEFAULT_MAX_TOKENS"], merged["IDLE_TIMEOUT_S"]) == (
            ["strict"],
            ["17"],
            ["66"],
        )
        assert config.load().values["DEFAULT_MAX_TOKENS"] == 0
        assert visitor.send(PAGE, merged).status_code == 303
        values = config.load().values
        assert (values["COMPAT"], values["DEFAULT_MAX_TOKENS"], values["IDLE_TIMEOUT_S"]) == ("strict", 17, 66)

    def test_their_new_connection_stays_and_one_they_removed_is_named(self, visitor, config):
        mine = Form(visitor.get(PAGE).text).fields
        config.update(
            {URLS: ["https://two.example", "https://new.example"], KEYS: ["sk-ant-…2222", "sk-ant-new"]}, who="bob"
        )
        answer = visitor.send(PAGE, mine, c0__name="renamed", c1__priority="4")
        merged = Form(answer.text)
        assert merged.fields["c1-url"] == ["https://two.example"]
        assert merged.fields["c1-priority"] == ["4"]
        assert merged.fields["c2-url"] == ["https://new.example"]
        assert "removed meanwhile" in merged.errors["c0-key"]

    def test_a_new_client_key_is_no_conflict(self, visitor, config):
        mine = Form(visitor.get(PAGE).text).fields
        visitor.app.extensions["dragoman"].keys.create(name="k", who="bob")
        assert visitor.send(PAGE, mine, DEFAULT_MAX_TOKENS="17").status_code == 303
        assert config.load().values["DEFAULT_MAX_TOKENS"] == 17


def test_a_saved_key_is_never_tried_with_another_url(visitor, config, simulator):
    answer = visitor.post(PAGE, do="verify 0", c0__url=simulator)
    assert "a saved key is only ever tried with the URL it is saved with" in answer.text


def test_verifying_tries_what_is_typed_and_saves_nothing(visitor, config, simulator):
    before = config.snapshot.generation
    answer = visitor.post(PAGE, do="verify 0", c0__url=simulator, c0__key="sk-ant-api03-typed", c0__headers="")
    assert "It works" in answer.text
    assert "sk-ant-api03-typed" not in answer.text
    assert config.load().generation == before


def test_a_reset_brings_back_the_environment_and_keeps_other_edits(visitor, config):
    config.update({"IDLE_TIMEOUT_S": 55}, who="test")
    answer = visitor.post(PAGE, do="reset IDLE_TIMEOUT_S", DEFAULT_MAX_TOKENS="17")
    form = Form(answer.text).fields
    assert (form["IDLE_TIMEOUT_S"], form["DEFAULT_MAX_TOKENS"]) == (["300"], ["17"])
    assert config.load().values["IDLE_TIMEOUT_S"] == 300
    assert config.snapshot.values["DEFAULT_MAX_TOKENS"] == 0
    assert visitor.post(PAGE, do="reset MODEL_ALIASES").status_code == 303
    assert config.load().values["MODEL_ALIASES"] == {}


def test_names_are_text_and_never_markup(visitor, config):
    name = "<script>alert(1)</script>"
    assert visitor.post(PAGE, c0__name=name, models0__name=name).status_code == 303
    visitor.app.extensions["dragoman"].keys.create(name=name, owner=name, who=name)
    for path in ("", "/config", "/keys", "/history", "/audit"):
        html = visitor.get(f"/admin{path}").text
        assert "<script>alert" not in html


def test_names_of_models_that_nothing_lists_are_saved_with_a_warning(visitor, config):
    saved = visitor.post(PAGE, MODEL_ORDER="claude-haiku-5-5\r\nclaude-sonet-5-5")
    assert saved.status_code == 303
    shown = visitor.get(PAGE).text
    assert (
        "Saved, but no connection lists the model claude-sonet-5-5, which the order of models names. "
        "Did you mean claude-sonnet-5-5?" in shown
    )
    assert config.load().values["MODEL_ORDER"] == ["claude-haiku-5-5", "claude-sonet-5-5"]
    assert "these come first in the list of models" in shown
