"""Many messages are parsed some at a time, and nobody can tell."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.blueprints import large_json


def nothing() -> None:
    pass


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_json, "_PARSED_AT_ONCE", 30)
        yield


TEXTS = st.text(st.sampled_from('x"\\,{}[]: é')) | st.just('},{"role":"user"},{"role":') | st.text(max_size=40)
PARTS = st.lists(st.fixed_dictionaries({"role": TEXTS, "text": TEXTS}) | st.lists(st.just({"role": 1})), max_size=4)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS | PARTS}) | st.just({"role": "x"}))
BODIES = st.fixed_dictionaries(
    {"model": TEXTS},
    optional={
        "tools": PARTS,
        "messages": MESSAGES | TEXTS | st.just({"messages": [{"role": 1}, {"role": 2}]}),
        "x": PARTS,
    },
)


@given(BODIES, st.sampled_from([(",", ":"), (", ", ": "), (",\n ", " : ")]), st.booleans())
@settings(max_examples=500)
def test_a_body_in_parts_says_the_same(body: dict[str, Any], separators: tuple[str, str], is_ascii: bool) -> None:
    raw = json.dumps(body, separators=separators, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    try:
        whole = orjson.loads(raw)
    except orjson.JSONDecodeError:
        with pytest.raises(orjson.JSONDecodeError):
            large_json.loads(raw, nothing)
    else:
        assert large_json.loads(raw, nothing) == whole


@given(BODIES, st.data())
@settings(max_examples=500)
def test_a_body_that_is_no_json_is_refused_as_a_whole(body: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(orjson.dumps(body))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b"{", b"}", b'"', b",", b"]", b'},{"role"'])
    )
    try:
        whole, fault = orjson.loads(bytes(raw)), ""
    except orjson.JSONDecodeError as error:
        whole, fault = None, str(error)
    try:
        assert large_json.loads(bytes(raw), nothing) == whole
        assert not fault
    except orjson.JSONDecodeError as error:
        assert str(error) == fault


def test_a_conversation_is_parsed_in_parts_with_turns_between() -> None:
    turns = []
    messages = [{"role": "user", "content": f"message {n}"} for n in range(100)]
    raw = json.dumps({"model": "m", "messages": messages, "tools": []}).encode()
    assert large_json.loads(raw, lambda: turns.append(1)) == orjson.loads(raw)
    assert len(turns) > 50
