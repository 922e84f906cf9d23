"""What is read of a request for the Messages API, and the one thing in it that changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.translate.messages.body import asked_of, check_names, with_model

HELLO = [{"role": "user", "content": "hi"}]


def asked(**fields: Any) -> Any:
    body = {"model": "claude-opus-5", "messages": HELLO, **fields}
    return asked_of(body, orjson.dumps(body))


NASTY = st.sampled_from(
    ['"model":"x"', "model", '\\"model\\": \\"x\\"', '{"model":"a"}', '"', "\\", "é\u2028", "\x1b[1m"]
)
TEXT = st.one_of(NASTY, st.text(st.characters(codec="utf-8"), max_size=20))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        TEXT, st.integers(-(2**53), 2**53), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.just("model"), TEXT), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(TEXT.filter(lambda name: name != "model"), VALUES, max_size=4),
    st.dictionaries(TEXT.filter(lambda name: name != "model"), VALUES, max_size=4),
    TEXT.filter(bool),
    st.sampled_from([b"", b" ", b"\n  "]),
)
def test_only_the_value_of_the_top_levels_model_differs(
    before: dict[str, Any], behind: dict[str, Any], name: str, space: bytes
) -> None:
    behind = {key: value for key, value in behind.items() if key not in before}
    pieces = [orjson.dumps(key) + space + b":" + space + orjson.dumps(value) for key, value in before.items()]
    at = [orjson.dumps("model") + space + b":" + space]
    last = [orjson.dumps(key) + b": " + orjson.dumps(value) for key, value in behind.items()]

    def body_with(model: str) -> bytes:
        member = at[0] + orjson.dumps(model)
        return space + b"{" + space + (b"," + space).join([*pieces, member, *last]) + b"}" + space

    raw = body_with(name)
    assert with_model(raw, name, "claude-of-the-connection", orjson.loads) == body_with("claude-of-the-connection")


def test_the_spelling_of_everything_else_stays() -> None:
    raw = b' {"a":1e3,"b":1.0, "c":12345678901234567890,\t"d":"\\u00e9","e":{"x":1,"x":2},"model":"fast" ,"f":[ ]}\n'
    check_names(raw, orjson.loads, all_of_them=False)
    assert with_model(raw, "fast", "claude-opus-5", orjson.loads) == raw.replace(b'"fast"', b'"claude-opus-5"')


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","messages":[],"model":"a"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"a"}',
        b'{"messages":[{"model":"a"}],"mod\\u0065l":"a"}',
    ],
)
def test_a_model_that_stands_there_twice_or_in_disguise_is_never_renamed(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        with_model(raw, "a", "claude-opus-5", orjson.loads)
    assert refused.value.param == "model"


def test_a_doubled_model_is_refused_and_other_doubled_names_only_where_a_list_must_be_obeyed() -> None:
    with pytest.raises(InvalidRequest):
        check_names(b'{"model":"a","messages":[],"model":"b"}', orjson.loads, all_of_them=False)
    nested = b'{"model":"a","tools":[{"model":"b","model":"c"}]}'
    check_names(nested, orjson.loads, all_of_them=False)
    with pytest.raises(InvalidRequest, match="twice"):
        check_names(nested, orjson.loads, all_of_them=True)
    with pytest.raises(InvalidRequest, match="twice"):
        check_names(b'{"model":"a","mod\\u0065l":"b"}', orjson.loads, all_of_them=True)


def test_nested_models_are_no_second_one() -> None:
    said = b'{"messages":[{"content":"\\"model\\":\\"x\\""}],'
    raw = said + b'"tools":[{"model":"b"}],"fallbacks":[{"model":"c"}],"model":"a"}'
    check_names(raw, orjson.loads, all_of_them=True)
    assert with_model(raw, "a", "z", orjson.loads) == raw.removesuffix(b'"a"}') + b'"z"}'


@pytest.mark.parametrize("model", [None, "", 5, ["x"], {}])
def test_without_a_model_nothing_can_be_sent(model: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^model: ") as refused:
        asked(model=model)
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("sent", "model"),
    [("fast", "fast"), ("fast[1m]", "fast"), ("claude-x[1M][1m]", "claude-x"), ("[1m]", "[1m]"), ("a[1m]b", "a[1m]b")],
)
def test_the_mark_of_a_larger_window_is_for_clients_alone(sent: str, model: str) -> None:
    assert (asked(model=sent).model, asked(model=sent).sent) == (model, sent)


def test_what_routes_a_request_is_read_and_nothing_else_is_judged() -> None:
    odd: dict[str, Any] = {"tools": 5, "fallbacks": "default", "metadata": [], "messages": "x", "stream": "yes"}
    found = asked(**odd)
    assert (found.others, found.hosted, found.is_bound, found.session, found.stream) == ((), None, False, "", False)


def test_other_models_are_those_of_fallbacks_and_tools() -> None:
    found = asked(fallbacks=[{"model": "b"}, 5], tools=[{"name": "x"}, {"type": "advisor_20260301", "model": "c"}])
    assert found.others == (("fallbacks.0.model", "b"), ("tools.1.model", "c"))


@pytest.mark.parametrize(
    ("fields", "hosted", "is_bound"),
    [
        ({}, None, False),
        ({"tools": [{"name": "f"}, {"type": "bash_20250124", "name": "bash"}]}, None, False),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0", False),
        ({"tools": [{"name": "f"}, {"type": "code_execution_20250825"}]}, "tools.1", False),
        ({"tools": [{"type": "web_fetch_20250910"}]}, "tools.0", False),
        ({"mcp_servers": [{"url": "https://x.example"}]}, "mcp_servers", False),
        ({"container": "container_1"}, "container", True),
        ({"messages": [{"content": [{"source": {"type": "file", "file_id": "file_1"}}]}]}, "file_id", True),
        ({"fallback_credit_token": "x"}, None, True),
    ],
)
def test_what_lies_or_runs_at_anthropic_is_told_apart(fields: Any, hosted: str | None, is_bound: bool) -> None:
    found = asked(**fields)
    assert (found.hosted, found.is_bound) == (hosted, is_bound)


def test_a_conversation_is_known_by_its_user_id_else_by_what_it_begins_with() -> None:
    grown = [*HELLO, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "more"}]
    assert asked().session == asked(messages=grown).session == "hi"
    assert asked(metadata={"user_id": "u"}).session == asked(metadata={"user_id": "u"}, messages=grown).session == "u"
    assert (
        asked(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]).session == "a"
    )


@pytest.mark.parametrize(
    ("user_id", "user"),
    [
        ("somebody", "somebody"),
        ('{"device_id":"d","account_uuid":"a","session_id":"s"}', "a"),
        ('{"device_id":"d","account_uuid":"","session_id":"s"}', "d"),
        ("{broken", "{broken"),
        ('{"session_id":"s"}', '{"session_id":"s"}'),
    ],
)
def test_the_user_of_an_agent_is_not_its_session(user_id: str, user: str) -> None:
    assert asked(metadata={"user_id": user_id}).user == user


def test_message_threads_are_refused_with_the_code_on_which_the_sdk_goes_on_without() -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        with pytest.raises(InvalidRequest) as refused:
            asked(thread=thread)
        assert (refused.value.code, refused.value.param) == ("thread_unsupported_request", "thread")
