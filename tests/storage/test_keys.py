"""Client keys: made, known, revoked; and no query for a key seen before."""

import time

import pytest
from sqlalchemy import event, text

from app.errors import InvalidRequest, NotFound
from app.storage import audit, database, keys


@pytest.fixture
def ring(app):
    return app.extensions["dragoman"].keys


class Statements:
    def __init__(self, app):
        self.count = 0
        event.listen(database.engine_of(app), "before_cursor_execute", self._seen)

    def _seen(self, connection, cursor, statement, *rest):
        self.count += 1


def test_a_new_key_is_known_everywhere_at_once_and_shown_once(ring, make):
    key, secret = ring.create(name="laptop", owner="ann", who="tester", models=["claude-a"])
    assert secret.startswith("sk-dgm-")
    assert len(secret) == len("sk-dgm-") + 40
    for knowing in (ring, make().extensions["dragoman"].keys):
        found = knowing.authenticate(secret)
        assert found is not None
        assert (found.id, found.scope, found.models, found.owner) == (key.id, "client", ("claude-a",), "ann")
    assert [listed.masked for listed in ring.list()] == [f"sk-dgm-…{secret[-4:]}"]


def test_an_admin_key_says_so(ring):
    _, secret = ring.create(name="ci", scope="admin", who="tester")
    assert secret.startswith("sk-dgm-admin-")
    assert ring.authenticate(secret).scope == "admin"


def test_only_the_hash_is_stored(app, ring):
    _, secret = ring.create(name="laptop", who="tester")
    rows = database.read(app, lambda s: repr(s.execute(text("SELECT * FROM client_keys")).all()))
    assert "laptop" in rows
    assert secret[7:40] not in rows


@pytest.mark.parametrize("secret", ["", "x", "sk-dgm-short", "sk-dgm-" + "a" * 40, "sk-ant-" + "a" * 40, "é", "\udcff"])
def test_a_wrong_key_is_no_key(ring, secret):
    assert ring.authenticate(secret) is None


def test_a_key_seen_before_costs_no_query_and_neither_does_a_wrong_one(app, ring):
    _, secret = ring.create(name="laptop", who="tester")
    wrong = "sk-dgm-" + "a" * 40
    ring.authenticate(secret)
    ring.authenticate(wrong)
    statements = Statements(app)
    for _ in range(3):
        assert ring.authenticate(secret)
        assert ring.authenticate(wrong) is None
        assert ring.authenticate("not one of ours") is None
    assert statements.count == 0


def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_after_the_next_look(make):
    here, elsewhere = (app.extensions["dragoman"] for app in (make(), make()))
    key, secret = here.keys.create(name="laptop", who="tester")
    elsewhere.config.refresh()
    assert elsewhere.keys.authenticate(secret)
    here.keys.revoke(key.id, who="tester")
    assert here.keys.authenticate(secret) is None
    elsewhere.config.refresh()
    assert elsewhere.keys.authenticate(secret) is None
    assert here.keys.list()[0].revoked_at is not None


def test_a_key_made_after_it_was_refused_is_known_after_the_next_look(ring, monkeypatch):
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: "b" * 40)
    assert ring.authenticate("sk-dgm-" + "b" * 40) is None
    ring.create(name="late", who="tester")
    assert ring.authenticate("sk-dgm-" + "b" * 40)


def test_expiry_is_looked_at_on_every_call(ring, monkeypatch):
    now = time.time()
    _, secret = ring.create(name="brief", who="tester", expires_at=int(now) + 60)
    assert ring.authenticate(secret)
    monkeypatch.setattr("time.time", lambda: now + 61)
    assert ring.authenticate(secret) is None


def test_the_environments_keys_are_valid_exactly_while_listed(make):
    listed = make(gateway_api_keys=("listed key",), admin_api_keys=("other",)).extensions["dragoman"].keys
    assert listed.authenticate("listed key").scope == "client"
    assert listed.authenticate("other").scope == "admin"
    assert make(gateway_api_keys=()).extensions["dragoman"].keys.authenticate("listed key") is None


def test_the_cache_is_bounded(ring, monkeypatch):
    monkeypatch.setattr(keys, "MOST_CACHED", 3)
    for number in range(8):
        ring.authenticate(f"sk-dgm-{number:040}")
    assert len(ring._cache.unknown) == 3


@pytest.mark.parametrize(
    "bad", [{"name": ""}, {"name": "a\x00b"}, {"scope": "root"}, {"expires_at": 1}, {"models": [""]}]
)
def test_a_key_that_makes_no_sense_is_refused(ring, bad):
    with pytest.raises(InvalidRequest):
        ring.create(**{"name": "n", "who": "tester", **bad})
    assert ring.list() == []


def test_revoking_an_unknown_key_is_a_404(ring):
    with pytest.raises(NotFound):
        ring.revoke("key_none", who="tester")


def test_making_and_revoking_are_in_the_audit_log_without_the_secret(app, ring):
    key, secret = ring.create(name="laptop", who="tester")
    ring.revoke(key.id, who="tester")
    entries = audit.entries(app)
    assert [entry.action for entry in entries] == ["keys.revoke", "keys.create"]
    assert secret not in repr(entries)


def test_when_a_key_was_used_is_written_now_and_then(ring, monkeypatch):
    _, secret = ring.create(name="laptop", who="tester")
    ring.authenticate(secret)
    ring.write_use()
    assert ring.list()[0].last_used_at is None
    monkeypatch.setattr(keys, "USE_WRITTEN_EVERY_S", 0)
    ring.write_use()
    assert ring.list()[0].last_used_at is not None
