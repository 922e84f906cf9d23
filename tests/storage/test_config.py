"""PersistentConfig, on SQLite and PostgreSQL."""

import logging
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from app.errors import ConfigError, Conflict, InvalidRequest, NotFound, PreconditionFailed
from app.storage import audit, database
from app.storage import config as config_module

LONG = "sk-ant-api03-" + "x" * 40
A, B, C = LONG + "aaaa", LONG + "bbbb", LONG + "cccc"
URLS, KEYS, CONFIGS = "ANTHROPIC_API_BASE_URLS", "ANTHROPIC_API_KEYS", "ANTHROPIC_API_CONFIGS"


@pytest.fixture
def make(make_storage_app, either_database):
    def make(**values):
        return make_storage_app(**{**either_database, **values}).extensions["dragoman"].config

    return make


@pytest.fixture
def config(make):
    return make()


def update(config, changes, **options):
    return config.update(changes, who="tester", **options)


def test_an_empty_database_leaves_environment_and_defaults_in_force(make):
    snapshot = make(runtime={KEYS: "one, two"}).snapshot
    assert snapshot.values[KEYS] == ["one", "two"]
    assert snapshot.sources[KEYS] == "environment"
    assert snapshot.sources[URLS] == "default"
    assert [connection.base_url for connection in snapshot.connections] == ["https://api.anthropic.com"] * 2
    assert not snapshot.enabled


def test_the_database_overrides_the_environment_and_outlives_the_process(make):
    update(make(runtime={KEYS: "one"}), {KEYS: ["two"], "ENABLE_ANTHROPIC_API": True})
    snapshot = make(runtime={KEYS: "three"}).snapshot
    assert snapshot.values[KEYS] == ["two"]
    assert snapshot.sources[KEYS] == "database"
    assert snapshot.enabled


def test_a_start_says_which_variables_the_database_overrides_and_not_their_values(make, caplog):
    update(make(), {KEYS: ["stored-key"]})
    with caplog.at_level(logging.WARNING):
        make(runtime={KEYS: "environment-key", "COMPAT": "strict"}).load()
    assert "overrides what the environment says of ANTHROPIC_API_KEYS" in caplog.text
    assert "environment-key" not in caplog.text
    assert "COMPAT" not in caplog.text


def test_a_misspelt_setting_of_a_connection_is_told_when_it_is_made_and_only_then(config, caplog):
    caplog.set_level(logging.WARNING)
    update(config, {"ANTHROPIC_API_KEYS": ["sk-ant-a"], "ANTHROPIC_API_CONFIGS": {"0": {"priorty": 5}}})
    update(config, {"COMPAT": "strict"})
    config.load()
    assert caplog.text.count("0.priorty means nothing; did you mean priority?") == 1


def test_writing_the_effective_value_back_makes_no_override_and_no_generation(make):
    config = make(runtime={KEYS: "one"})
    before = config.snapshot.generation
    snapshot = update(config, _settings(config))
    assert snapshot.generation == before
    assert set(snapshot.sources.values()) == {"environment", "default"}
    assert config.history() == []


def _settings(config):
    shown = config.public(all=True)
    shown.pop("generation")
    return shown


def test_true_is_not_taken_for_one(config):
    update(config, {CONFIGS: {"0": {"flag": 1}}})
    before = config.snapshot.generation
    assert update(config, {CONFIGS: {"0": {"flag": True}}}).generation == before + 1


def test_reset_brings_the_environments_value_back(make):
    config = make(runtime={"COMPAT": "strict"})
    update(config, {"COMPAT": "lenient"})
    snapshot = config.reset("COMPAT", who="tester")
    assert (snapshot.values["COMPAT"], snapshot.sources["COMPAT"]) == ("strict", "environment")


def test_a_reset_that_leaves_lists_unpaired_is_refused(config):
    update(config, {URLS: ["https://a", "https://b"], KEYS: ["one", "two"]})
    with pytest.raises(InvalidRequest, match="2 URLs"):
        config.reset(KEYS, who="tester")
    assert config.load().values[KEYS] == ["one", "two"]


def test_keys_and_header_secrets_are_masked_and_shown_on_demand(config):
    update(config, {KEYS: [A, "short"], CONFIGS: {"0": {"headers": {"x-token": "t" * 30 + "wxyz"}}}})
    shown = config.public()
    assert shown[KEYS] == ["sk-ant-…aaaa", "…"]
    assert shown[CONFIGS] == {"0": {"headers": {"x-token": "…wxyz"}}}
    assert config.public(reveal=True)[KEYS] == [A, "short"]


def test_what_was_shown_can_be_posted_back_and_changes_nothing(config):
    update(config, {KEYS: [A, "short"], CONFIGS: {"0": {"headers": {"x-token": "short"}}, "1": {"name": "n"}}})
    before = config.snapshot
    assert update(config, _settings(config)) == before


def test_removing_a_pair_keeps_the_others_their_entries_and_their_ids(config):
    update(config, {KEYS: [A, B, C], CONFIGS: {"0": {"name": "a"}, "2": {"name": "c", "headers": {"x": "short"}}}})
    before = {connection.key: connection.id for connection in config.snapshot.connections}
    after = update(config, {KEYS: [config.public()[KEYS][2], config.public()[KEYS][0]]}).connections
    assert [(c.key, c.name, c.id) for c in after] == [(C, "c", before[C]), (A, "a", before[A])]


def test_posted_configs_refer_to_the_posted_keys_order(config):
    update(config, {KEYS: [A, B], CONFIGS: {"0": {"headers": {"x": "of a"}}, "1": {"headers": {"x": "of b"}}}})
    posted = {KEYS: [B, A], CONFIGS: {"0": {"headers": {"x": "…"}}, "1": {"headers": {"x": "…"}}}}
    after = update(config, posted).connections
    assert [(c.key, c.headers["x"]) for c in after] == [(B, "of b"), (A, "of a")]


def test_a_connection_keeps_its_id_when_its_key_is_rotated_in_place_even_across_restarts(make):
    config = make()
    first = update(config, {KEYS: [A, B]}).connections
    update(config, {KEYS: [C, "sk-ant-…bbbb"]})
    after = make().snapshot.connections
    assert [c.id for c in after] == [c.id for c in first]
    assert [c.key for c in after] == [C, B]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"ENABLE_ANTHROPIC_API": True, "NO_SUCH": 1}, "NO_SUCH"),
        ({"ENABLE_ANTHROPIC_API": True, KEYS: ["sk-ant-…zzzz"]}, f"{KEYS}[0]"),
        ({"ENABLE_ANTHROPIC_API": True, URLS: ["https://a", "https://b"]}, URLS),
        ({"ENABLE_ANTHROPIC_API": True, KEYS: [A, A]}, f"{KEYS}[1]"),
        ({"ENABLE_ANTHROPIC_API": True, CONFIGS: {"0": {"headers": {"x": "…"}}}}, f"{CONFIGS}.0.headers.x"),
        ({"ENABLE_ANTHROPIC_API": True, CONFIGS: {"0": {"weight": -1}}}, f"{CONFIGS}.0.weight"),
    ],
)
def test_one_wrong_field_saves_nothing(config, changes, param):
    before = config.snapshot
    with pytest.raises(InvalidRequest) as error:
        update(config, changes)
    assert error.value.param == param
    assert config.load() == before
    assert config.history() == []


def test_a_fault_in_the_middle_saves_nothing(config, monkeypatch):
    update(config, {KEYS: [A]})
    before = config.load()

    def fail(*arguments, **options):
        raise RuntimeError("power cut")

    monkeypatch.setattr(audit, "add", fail)
    with pytest.raises(RuntimeError):
        update(config, {KEYS: [B], "COMPAT": "strict"})
    assert config.load() == before
    assert len(config.history()) == 1


def test_a_stale_generation_is_refused_even_when_nothing_would_change(config):
    stale = config.snapshot.generation
    update(config, {"COMPAT": "strict"})
    for changes in ({"COMPAT": "lenient"}, {}):
        with pytest.raises(PreconditionFailed, match=f"generation {stale + 1}"):
            update(config, changes, expected_generation=stale)
    assert update(config, {"COMPAT": "lenient"}, expected_generation=stale + 1).generation == stale + 2


def test_another_process_sees_a_change_at_its_next_look(make):
    one, other = make(), make()
    assert other.refresh()
    update(one, {"COMPAT": "strict"})
    assert other.snapshot.values["COMPAT"] == "lenient"
    assert other.refresh()
    assert other.snapshot.values["COMPAT"] == "strict"
    assert not other.refresh()


def test_many_writers_at_once_lose_no_change(make):
    configs = [make() for _ in range(4)]
    first = configs[0].snapshot.generation

    def append(config, number):
        for _ in range(50):
            try:
                now = config.load()
                aliases = {**now.values["MODEL_ALIASES"], f"alias-{number}": "claude"}
                config.update({"MODEL_ALIASES": aliases}, who=f"writer {number}", expected_generation=now.generation)
                return
            except PreconditionFailed:
                continue

    threads = [threading.Thread(target=append, args=(config, n)) for n, config in enumerate(configs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    after = configs[0].load()
    assert sorted(after.values["MODEL_ALIASES"]) == [f"alias-{n}" for n in range(4)]
    assert after.generation == first + 4


def test_the_history_names_who_changed_what_and_goes_back(config):
    update(config, {KEYS: [A], "COMPAT": "strict"})
    update(config, {KEYS: [B]})
    newest, oldest = config.history()
    assert (newest.who, newest.fields) == ("tester", (KEYS,))
    assert oldest.fields == (KEYS, "COMPAT")
    restored = config.restore(newest.id, who="tester")
    assert (restored.values[KEYS], restored.values["COMPAT"]) == ([A], "strict")
    assert set(config.restore(oldest.id, who="tester").sources.values()) == {"default"}
    assert len(config.history()) == 4


def test_restoring_what_is_not_there_is_a_404(config):
    with pytest.raises(NotFound):
        config.restore(99, who="tester")


def test_the_history_does_not_grow_for_ever(config, monkeypatch):
    monkeypatch.setattr(config_module, "HISTORY_KEPT", 3)
    for number in range(1, 7):
        update(config, {"IDLE_TIMEOUT_S": number})
    assert len(config.history()) == 3


def test_changes_are_in_the_audit_log_without_values(config, make):
    update(config, {KEYS: [A]}, ip="192.0.2.7")
    (entry,) = audit.entries(make()._app)
    assert (entry.who, entry.action, entry.detail, entry.ip) == ("tester", "config.update", KEYS, "192.0.2.7")


def test_secrets_are_encrypted_at_rest(config):
    update(config, {KEYS: [A], CONFIGS: {"0": {"headers": {"x-token": "header-secret-of-ours"}}}})
    update(config, {KEYS: [B]})
    app = config._app
    dump = database.read(
        app, lambda s: repr([s.execute(text(f"SELECT * FROM {t}")).all() for t in ("settings", "history", "audit")])
    )
    assert KEYS in dump
    for secret in (A, B, A[:20], "header-secret"):
        assert secret not in dump


def test_no_secret_stands_in_the_bytes_of_the_sqlite_file(make_storage_app, tmp_path):
    config = make_storage_app().extensions["dragoman"].config
    update(config, {KEYS: [A]})
    written = b"".join(path.read_bytes() for path in (tmp_path / "instance").glob("dragoman.db*"))
    assert b"ANTHROPIC_API_KEYS" in written
    assert A.encode() not in written


def test_lists_that_do_not_pair_up_any_more_make_no_connection_and_are_a_problem(make):
    update(make(runtime={URLS: "https://a,https://b"}), {KEYS: ["one", "two"]})
    snapshot = make(runtime={URLS: "https://a,https://b,https://c"}).snapshot
    assert snapshot.connections == ()
    assert "3 URLs" in snapshot.problems[0]


def test_a_wrong_variable_stops_the_start(make):
    with pytest.raises(ConfigError, match="ENABLE_ANTHROPIC_API"):
        make(runtime={"ENABLE_ANTHROPIC_API": "perhaps"})


class TestLostSecretKey:
    @pytest.fixture
    def lost(self, make):
        update(make(), {KEYS: [A], "COMPAT": "strict"})
        return make(secret_key="another secret key of the tests", runtime={KEYS: "environment-key"})

    def test_the_setting_is_named_and_the_environment_does_not_step_in(self, lost):
        snapshot = lost.snapshot
        assert snapshot.undecryptable == (KEYS,)
        assert snapshot.connections == ()
        assert "cannot be decrypted" in snapshot.problems[0]
        assert snapshot.values["COMPAT"] == "strict"

    def test_other_changes_and_posting_everything_back_leave_the_stored_value_alone(self, lost, make):
        update(lost, {"COMPAT": "lenient"})
        update(lost, _settings(lost))
        found = make()
        assert found.snapshot.values[KEYS] == [A]
        assert found.snapshot.values["COMPAT"] == "lenient"

    def test_a_mask_does_not_replace_it(self, lost):
        with pytest.raises(InvalidRequest):
            update(lost, {KEYS: ["sk-ant-…aaaa"]})

    def test_an_explicit_new_value_does(self, lost, make):
        assert update(lost, {KEYS: [B]}).undecryptable == ()
        assert make(secret_key="another secret key of the tests").snapshot.values[KEYS] == [B]

    def test_so_does_a_reset(self, lost):
        snapshot = lost.reset(KEYS, who="tester")
        assert snapshot.undecryptable == ()
        assert snapshot.values[KEYS] == ["environment-key"]

    def test_the_history_cannot_be_restored_but_does_not_crash(self, lost):
        with pytest.raises(Conflict):
            lost.restore(lost.history()[0].id, who="tester")

    def test_the_old_key_as_a_fallback_brings_it_back(self, lost, make):
        options = {"secret_key": "another secret key of the tests"}
        found = make(**options, secret_key_fallbacks=("a secret key of the tests alone",))
        assert found.snapshot.values[KEYS] == [A]
        done, unreadable = found.reencrypt(who="tester")
        assert (done, unreadable) == (2, [])
        assert make(**options).snapshot.values[KEYS] == [A]


def test_a_secret_key_file_is_rotated_while_everything_runs(make, tmp_path):
    file = Path(tmp_path / "keys")
    file.write_text("first key of the tests\n")
    one, other = (make(secret_key="", secret_key_file=str(file)) for _ in range(2))
    update(one, {KEYS: [A]})
    other.refresh()
    sessions = one._app.config["SECRET_KEY"]
    file.write_text("first key of the tests\nsecond key of the tests\n")
    assert one.refresh()
    assert other.refresh()
    file.write_text("second key of the tests\nfirst key of the tests\n")
    one.refresh()
    update(one, {KEYS: [A, B]})  # with the new key
    other.refresh()
    assert other.snapshot.values[KEYS] == [A, B]
    assert other._app.config["SECRET_KEY"] != sessions
    assert other._app.config["SECRET_KEY_FALLBACKS"] == [sessions]
    assert one.reencrypt(who="tester")[1] == []
    file.write_text("second key of the tests\n")
    for config in (one, other):
        config.refresh()
        config.load()
        assert config.snapshot.undecryptable == ()
        assert config.snapshot.values[KEYS] == [A, B]
    assert one.restore(one.history()[0].id, who="tester").values[KEYS] == [A]


def test_a_trial_connection_needs_nothing_stored(config):
    made = config.trial_connection("https://h/v1/", " key ", {"auth": "bearer"})
    assert (made.base_url, made.key, made.auth) == ("https://h", "key", "bearer")


def test_a_masked_key_is_only_used_with_the_url_it_is_stored_with(config):
    update(config, {KEYS: [A], CONFIGS: {"0": {"headers": {"x": "short"}}}})
    stored = config.trial_connection("https://api.anthropic.com/v1", "sk-ant-…aaaa", {})
    assert stored == config.snapshot.connections[0]
    with pytest.raises(InvalidRequest) as error:
        config.trial_connection("https://evil.example", "sk-ant-…aaaa", {})
    assert error.value.param == "key"
    with pytest.raises(InvalidRequest) as error:
        config.trial_connection("https://evil.example", "key", {"headers": {"x": "…"}})
    assert error.value.param == "config.headers.x"
