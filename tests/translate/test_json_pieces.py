"""How many values JSON holds is counted without making them, in steps."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.translate.json_pieces import are_more_than
from app.translate.pause import no_pause

TEXTS = st.text(st.sampled_from('"\\,[{:aü'), max_size=12)
JSON = st.recursive(
    TEXTS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def counted(value: Any) -> int:
    """Arrays and objects, and their members beyond the first."""
    if not isinstance(value, list | dict):
        return 0
    members = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(len(members) - 1, 0) + sum(map(counted, members))


@given(st.lists(JSON, min_size=1, max_size=5), st.integers(0, 40), st.booleans())
def test_it_counts_as_a_parser_would(value: list[Any], most: int, is_ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert are_more_than(most, raw, no_pause) == (len(raw) > most and counted(value) > most)


@pytest.mark.parametrize("piece", [b"\\\\", b'\\"', b"a", b"\\u0020", b"\xc3\xbc", b"\\"])
@pytest.mark.parametrize("end", [b'"]', b""])
def test_within_a_long_string_others_get_their_turn(piece: bytes, end: bytes) -> None:
    raw = b'["' + piece * (1024 * 1024 // len(piece)) + b'","' + b"," * 1000 + end
    pauses: list[None] = []
    assert not are_more_than(500, raw, lambda: pauses.append(None))
    assert len(pauses) > 16


def test_what_is_no_json_is_not_looked_through_string_by_string() -> None:
    pauses: list[None] = []
    assert are_more_than(500, b'["' + b"," * 1000 + b'"' + b'""' * 100_000, lambda: pauses.append(None))
    assert len(pauses) < 2_000
