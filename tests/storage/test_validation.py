"""What a runtime setting may be; each refusal names the field and what is accepted."""

import pytest

from app.errors import ConfigError, InvalidRequest
from app.settings import RUNTIME_SETTINGS, Settings
from app.storage.validation import base_url, check, from_environment, misspelt, pairs

CONFIGS = "ANTHROPIC_API_CONFIGS"


@pytest.mark.parametrize("setting", RUNTIME_SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_valid(setting):
    assert check(setting.name, setting.default) == setting.default


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com"),
        ("https://api.anthropic.com/", "https://api.anthropic.com"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com"),
        ("HTTPS://API.anthropic.com:443/v1", "https://api.anthropic.com"),
        ("http://127.0.0.1:8080/proxy/v1", "http://127.0.0.1:8080/proxy"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_is_used_without_its_trailing_slash_and_version(given, used):
    assert base_url(given, "url") == used


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.anthropic.com",
        "ftp://host",
        "https://",
        "https://user:password@host",
        "https://host/?q=1",
        "https://host/#f",
        "https://host:99999",
        "https://ho st",
        "https://host\\@evil",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://hóst",
        7,
        None,
    ],
)
def test_a_base_url_that_is_none_is_refused_by_its_place(url):
    with pytest.raises(InvalidRequest) as error:
        check("ANTHROPIC_API_BASE_URLS", ["https://ok.example", url])
    assert error.value.param == "ANTHROPIC_API_BASE_URLS[1]"


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("ENABLE_ANTHROPIC_API", 1, "ENABLE_ANTHROPIC_API"),
        ("ENABLE_ANTHROPIC_API", "true", "ENABLE_ANTHROPIC_API"),
        ("ENABLE_ANTHROPIC_API", None, "ENABLE_ANTHROPIC_API"),
        ("ANTHROPIC_API_BASE_URLS", [], "ANTHROPIC_API_BASE_URLS"),
        ("ANTHROPIC_API_BASE_URLS", "https://a,https://b", "ANTHROPIC_API_BASE_URLS"),
        ("ANTHROPIC_API_KEYS", "key", "ANTHROPIC_API_KEYS"),
        ("ANTHROPIC_API_KEYS", ["ok", ""], "ANTHROPIC_API_KEYS[1]"),
        ("ANTHROPIC_API_KEYS", ["has space"], "ANTHROPIC_API_KEYS[0]"),
        ("ANTHROPIC_API_KEYS", ["new\nline"], "ANTHROPIC_API_KEYS[0]"),
        ("ANTHROPIC_API_KEYS", ["ключ"], "ANTHROPIC_API_KEYS[0]"),
        ("ANTHROPIC_API_KEYS", [5], "ANTHROPIC_API_KEYS[0]"),
        (CONFIGS, [], CONFIGS),
        (CONFIGS, {"0": 5}, f"{CONFIGS}.0"),
        (CONFIGS, {"00": {}}, f"{CONFIGS}.00"),
        (CONFIGS, {"first": {}}, f"{CONFIGS}.first"),
        (CONFIGS, {"0": {"priority": "5"}}, f"{CONFIGS}.0.priority"),
        (CONFIGS, {"0": {"priority": 1.5}}, f"{CONFIGS}.0.priority"),
        (CONFIGS, {"0": {"priority": True}}, f"{CONFIGS}.0.priority"),
        (CONFIGS, {"0": {"weight": 0}}, f"{CONFIGS}.0.weight"),
        (CONFIGS, {"0": {"weight": float("inf")}}, f"{CONFIGS}.0.weight"),
        (CONFIGS, {"0": {"enable": None}}, f"{CONFIGS}.0.enable"),
        (CONFIGS, {"0": {"auth": "basic"}}, f"{CONFIGS}.0.auth"),
        (CONFIGS, {"0": {"timeout_s": -1}}, f"{CONFIGS}.0.timeout_s"),
        (CONFIGS, {"0": {"model_ids": ["a", 1]}}, f"{CONFIGS}.0.model_ids"),
        (CONFIGS, {"0": {"tags": [1]}}, f"{CONFIGS}.0.tags"),
        (CONFIGS, {"0": {"headers": {"x": 1}}}, f"{CONFIGS}.0.headers.x"),
        (CONFIGS, {"0": {"headers": {"x": "a\r\nb"}}}, f"{CONFIGS}.0.headers.x"),
        (CONFIGS, {"0": {"headers": {"a b": "c"}}}, f"{CONFIGS}.0.headers.a b"),
        (CONFIGS, {"0": {"headers": {"Host": "evil"}}}, f"{CONFIGS}.0.headers.Host"),
        (CONFIGS, {"0": {"headers": []}}, f"{CONFIGS}.0.headers"),
        (CONFIGS, {"https://a": {}, "https://a/v1": {}}, f"{CONFIGS}.https://a/v1"),
        ("ANTHROPIC_MODELS", [{}], "ANTHROPIC_MODELS[0].id"),
        ("ANTHROPIC_MODELS", [{"id": "a"}, {"id": "a"}], "ANTHROPIC_MODELS[1].id"),
        ("ANTHROPIC_MODELS", [{"id": "a", "max_tokens": "5"}], "ANTHROPIC_MODELS[0].max_tokens"),
        ("ANTHROPIC_MODELS", ["a"], "ANTHROPIC_MODELS[0]"),
        ("MODEL_ALIASES", {"gpt-4o": 5}, "MODEL_ALIASES.gpt-4o"),
        ("COMPAT", "loose", "COMPAT"),
        ("IDLE_TIMEOUT_S", 0, "IDLE_TIMEOUT_S"),
        ("IDLE_TIMEOUT_S", 1.0, "IDLE_TIMEOUT_S"),
        ("NO_SUCH_SETTING", 1, "NO_SUCH_SETTING"),
    ],
)
def test_a_wrong_value_is_refused_by_the_path_of_its_field(name, value, param):
    with pytest.raises(InvalidRequest) as error:
        check(name, value)
    assert error.value.param == param
    assert error.value.message.startswith(param)


def test_aliases_that_differ_by_case_only_are_refused_and_both_are_named():
    aliases = {"gpt-4o": "claude-opus-5-5", "GPT-4o": "claude-haiku-5-5"}
    with pytest.raises(InvalidRequest, match="'gpt-4o' and 'GPT-4o' are the same name") as error:
        check("MODEL_ALIASES", aliases)
    assert error.value.param == "MODEL_ALIASES"
    setting = next(s for s in RUNTIME_SETTINGS if s.name == "MODEL_ALIASES")
    with pytest.raises(ConfigError, match="'gpt-4o' and 'GPT-4o'"):
        from_environment(setting, Settings(runtime={"MODEL_ALIASES": '{"gpt-4o": "a", "GPT-4o": "b"}'}))


def test_a_secret_in_the_wrong_field_is_not_told_in_the_error():
    with pytest.raises(InvalidRequest) as error:
        check("COMPAT", "sk-ant-api03-secret")
    assert "secret" not in error.value.message


def test_unknown_inner_fields_are_kept():
    entry = {"enable": True, "connection_type": "external", "nested": {"a": [1]}, "tags": [{"name": "t"}]}
    assert check(CONFIGS, {"0": entry}) == {"0": entry}
    assert check("ANTHROPIC_MODELS", [{"id": "m", "x": {"y": 1}}]) == [{"id": "m", "x": {"y": 1}}]


def test_white_space_around_keys_and_urls_is_dropped():
    assert check("ANTHROPIC_API_KEYS", [" key\n"]) == ["key"]
    assert check("ANTHROPIC_API_BASE_URLS", [" https://host "]) == ["https://host"]


def test_a_value_of_more_than_a_megabyte_is_refused():
    with pytest.raises(InvalidRequest, match="the most is"):
        check("ANTHROPIC_MODELS", [{"id": "m", "x": "y" * 1_000_001}])


def test_one_url_serves_all_keys():
    assert pairs(["https://h/v1"], ["a", "b"]) == [("https://h", "a"), ("https://h", "b")]


def test_several_urls_pair_with_as_many_keys():
    assert pairs(["https://h", "https://i"], ["a", "b"]) == [("https://h", "a"), ("https://i", "b")]


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b", "c"]])
def test_lists_that_do_not_pair_up_are_refused(keys):
    with pytest.raises(InvalidRequest, match="2 URLs") as error:
        pairs(["https://h", "https://i"], keys)
    assert error.value.param == "ANTHROPIC_API_BASE_URLS"


def test_the_same_pair_twice_is_refused():
    with pytest.raises(InvalidRequest) as error:
        pairs(["https://h", "https://h/v1/"], ["a", "a"])
    assert error.value.param == "ANTHROPIC_API_KEYS[1]"


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("ENABLE_ANTHROPIC_API", "True", True),
        ("ANTHROPIC_API_KEYS", " a , b,, ", ["a", "b"]),
        ("ANTHROPIC_API_CONFIGS", '{"0": {"name": "x"}}', {"0": {"name": "x"}}),
        ("IDLE_TIMEOUT_S", "60", 60),
    ],
)
def test_the_environment_is_read_by_type(name, raw, value):
    setting = next(s for s in RUNTIME_SETTINGS if s.name == name)
    assert from_environment(setting, Settings(runtime={name: raw})) == value


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("ENABLE_ANTHROPIC_API", "perhaps"),
        ("ANTHROPIC_API_CONFIGS", "{"),
        ("ANTHROPIC_API_CONFIGS", "[]"),
        ("IDLE_TIMEOUT_S", "ten"),
        ("ANTHROPIC_API_BASE_URLS", "api.anthropic.com"),
    ],
)
def test_a_wrong_variable_stops_the_start_by_its_name(name, raw):
    setting = next(s for s in RUNTIME_SETTINGS if s.name == name)
    with pytest.raises(ConfigError, match=name):
        from_environment(setting, Settings(runtime={name: raw}))


def test_a_misspelt_setting_of_a_connection_is_noticed_and_others_are_left_alone():
    configs = {"0": {"priorty": 5, "name": "main", "connection_type": "external"}, "https://a.example": {"wieght": 2}}
    assert misspelt(configs) == [
        "0.priorty means nothing; did you mean priority?",
        "https://a.example.wieght means nothing; did you mean weight?",
    ]
