"""Masks: what is shown of a secret, and what a mask stands for when it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.storage.masking import is_mask, mask, mask_configs, unmask_header, unmask_keys

LONG = "sk-ant-api03-" + "x" * 40
A, B, C = LONG + "aaaa", LONG + "bbbb", LONG + "cccc"
KEY = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


def test_a_long_key_shows_its_kind_and_its_last_four_characters():
    assert mask(A) == "sk-ant-…aaaa"


def test_a_long_key_of_another_kind_shows_its_last_four_only():
    assert mask("gateway-key-0123456789-wxyz") == "…wxyz"


@pytest.mark.parametrize("short", ["k", "sk-ant-short", "x" * 19])
def test_a_short_key_is_masked_as_a_whole(short):
    assert mask(short) == "…"


@given(st.lists(KEY, max_size=6, unique=True))
def test_what_is_shown_can_be_posted_back_unchanged(keys):
    assert unmask_keys([mask(key) for key in keys], keys, "KEYS") == keys


@given(st.lists(KEY, max_size=5, unique=True), st.lists(KEY | st.just("…") | st.just("sk-ant-…aaaa"), max_size=5))
def test_a_mask_never_becomes_a_key(stored, posted):
    try:
        keys = unmask_keys(posted, stored, "KEYS")
    except InvalidRequest:
        return
    assert not any(is_mask(key) for key in keys)
    assert all(key in stored or key in posted for key in keys)


def test_masks_can_be_reordered_and_removed():
    assert unmask_keys([mask(C), "new", mask(A)], [A, B, C], "KEYS") == [C, "new", A]


def test_a_foreign_mask_is_refused_by_its_place():
    with pytest.raises(InvalidRequest) as error:
        unmask_keys([mask(A), "sk-ant-…zzzz"], [A, B], "KEYS")
    assert error.value.param == "KEYS[1]"


def test_keys_that_look_alike_are_told_apart_by_their_place():
    assert unmask_keys(["…", "…", "third"], ["one", "two"], "KEYS") == ["one", "two", "third"]


def test_removing_one_of_two_keys_that_look_alike_is_refused():
    with pytest.raises(InvalidRequest, match="2 stored keys look like"):
        unmask_keys(["…"], ["one", "two"], "KEYS")


def test_moving_a_key_that_looks_like_another_is_refused():
    with pytest.raises(InvalidRequest, match="2 stored keys look like"):
        unmask_keys([A, "…", "…"], ["one", "two", A], "KEYS")


def test_header_values_are_masked_unless_they_are_no_secrets():
    configs = {"0": {"name": "x", "headers": {"x-token": "t" * 30 + "wxyz", "Anthropic-Beta": "files-api"}}, "1": {}}
    masked = mask_configs(configs)
    assert masked == {"0": {"name": "x", "headers": {"x-token": "…wxyz", "Anthropic-Beta": "files-api"}}, "1": {}}


def test_a_masked_header_stands_for_its_own_connections_value_first():
    here, elsewhere = {"headers": {"X-Token": "short"}}, {"headers": {"X-Token": "other"}}
    assert unmask_header("…", "x-token", here, [here, elsewhere], "p") == "short"


def test_a_masked_header_that_matches_several_values_is_refused():
    here, elsewhere = {"headers": {"X-Token": "short"}}, {"headers": {"X-Token": "other"}}
    with pytest.raises(InvalidRequest, match="matches 2 stored values"):
        unmask_header("…", "x-token", None, [here, elsewhere], "p")


def test_a_masked_header_that_matches_nothing_is_refused():
    with pytest.raises(InvalidRequest, match="matches no stored value"):
        unmask_header("…abcd", "x-token", {"headers": {}}, [], "p")
