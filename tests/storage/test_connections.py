"""Which connection is which: ids, and index entries that follow their pairs."""

import pytest

from app.storage.connections import came_from, entry_of, kept_ids, moved_configs, to_connections

SALT = "salt"
U, V = "https://one.example", "https://two.example"
A, B, C, D = (U, "a"), (U, "b"), (U, "c"), (U, "d")


def ids(pairs, aliases):
    return [connection.id for connection in to_connections(pairs, {}, salt=SALT, aliases=aliases)]


def test_an_id_tells_nothing_of_the_key_and_depends_on_url_and_key():
    made = ids([A, B, (V, "a")], {})
    assert len(set(made)) == 3
    assert all(id.startswith("conn_") and len(id) == 25 for id in made)


def test_an_id_survives_rotations_of_its_key_in_place():
    first = ids([A, B], {})
    aliases = kept_ids([A, B], [C, B], salt=SALT, aliases={})
    assert ids([C, B], aliases) == first
    aliases = kept_ids([C, B], [D, B], salt=SALT, aliases=aliases)
    assert ids([D, B], aliases) == first


def test_ids_follow_their_pairs_when_these_are_reordered_or_removed():
    first = ids([A, B, C], {})
    aliases = kept_ids([A, B, C], [C, A], salt=SALT, aliases={})
    assert ids([C, A], aliases) == [first[2], first[0]]


def test_a_key_that_comes_back_beside_its_rotated_connection_gets_an_id_of_its_own():
    aliases = kept_ids([A], [B], salt=SALT, aliases={})
    again = kept_ids([B], [B, A], salt=SALT, aliases=aliases)
    made = ids([B, A], again)
    assert made[0] == ids([A], {})[0]
    assert made[1] != made[0]


def test_a_new_url_makes_a_new_connection():
    aliases = kept_ids([A], [(V, "a")], salt=SALT, aliases={})
    assert ids([(V, "a")], aliases) != ids([A], {})


@pytest.mark.parametrize(
    ("old", "new", "origins"),
    [
        ([A, B], [A, B], {0: 0, 1: 1}),
        ([A, B], [B, A], {0: 1, 1: 0}),
        ([A, B], [B], {0: 1}),
        ([A, B], [A, C], {0: 0, 1: 1}),
        ([A, B], [A, B, C], {0: 0, 1: 1}),
        ([A], [(V, "a")], {0: 0}),
        ([A, B], [C], {}),
        ([A, B, C], [C, A], {0: 2, 1: 0}),
    ],
)
def test_a_changed_list_is_matched_with_the_one_before(old, new, origins):
    assert came_from(old, new) == origins


def test_index_entries_move_with_their_pairs_and_go_with_removed_ones():
    configs = {"0": {"name": "a"}, "1": {"name": "b"}, "2": {"name": "c"}, U: {"name": "all"}}
    assert moved_configs(configs, [A, B, C], [C, A]) == {"0": {"name": "c"}, "1": {"name": "a"}, U: {"name": "all"}}


def test_an_entry_that_had_no_connection_waits_for_the_one_at_its_place():
    configs = {"0": {"name": "first"}, "1": {"name": "second"}}
    assert moved_configs(configs, [], [A]) == configs


def test_an_index_entry_wins_over_a_url_entry_and_urls_are_compared_as_used():
    configs = {"0": {"name": "by index"}, f"{U}/v1/": {"name": "by url"}}
    assert entry_of(0, U, configs) == {"name": "by index"}
    assert entry_of(1, U, configs) == {"name": "by url"}
    assert entry_of(1, V, configs) == {}


def test_neither_key_nor_headers_show_in_a_connections_repr():
    made = to_connections([(U, "the-key")], {"0": {"headers": {"x-token": "the-token"}}}, salt=SALT, aliases={})
    assert "the-key" not in repr(made)
    assert "the-token" not in repr(made)
