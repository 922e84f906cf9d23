"""Admin accounts."""

import subprocess
import sys
import threading

import pytest
from werkzeug.security import check_password_hash

from app.errors import ConfigError, Conflict, InvalidRequest, NotFound
from app.storage import accounts, audit


def test_the_first_admin_is_made_once(app):
    assert not accounts.any_exists(app)
    accounts.create_first(app, "ann", "password of ann")
    assert accounts.any_exists(app)
    with pytest.raises(Conflict):
        accounts.create_first(app, "bob", "password of bob")


def test_of_many_set_ups_at_once_one_wins(make):
    apps = [make() for _ in range(4)]
    results: list[str | None] = []

    def attempt(app, name):
        try:
            results.append(accounts.create_first(app, name, "a good password").username)
        except Conflict:
            results.append(None)

    threads = [threading.Thread(target=attempt, args=(app, f"admin-{n}")) for n, app in enumerate(apps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4
    assert len([name for name in results if name]) == 1
    assert len(accounts.everyone(apps[0])) == 1


def test_only_the_right_password_opens(app):
    made = accounts.create_first(app, "ann", "password of ann")
    assert accounts.verify(app, "ann", "password of ann") == made
    for name, password in [("ann", "wrong"), ("bob", "password of ann"), ("ann", ""), ("", ""), ("a\x00", "x")]:
        assert accounts.verify(app, name, password) is None


def test_an_unknown_name_takes_as_much_work_as_a_wrong_password(app, monkeypatch):
    accounts.create_first(app, "ann", "password of ann")
    compared = []

    def compare(hashed, password):
        compared.append(hashed.split("$")[0])
        return check_password_hash(hashed, password)

    monkeypatch.setattr(accounts, "check_password_hash", compare)
    accounts.verify(app, "ann", "wrong")
    accounts.verify(app, "nobody", "wrong")
    assert compared[0] == compared[1]
    assert compared[0].startswith("scrypt:")


def test_a_new_password_ends_the_sessions(app):
    before = accounts.create_first(app, "ann", "password of ann")
    assert accounts.by_session_id(app, before.session_id, "a name") == before
    after = accounts.set_password(app, "ann", "new password of ann", who="tester")
    assert accounts.by_session_id(app, before.session_id, "a name") is None
    assert accounts.by_session_id(app, after.session_id, "a name") == after
    assert accounts.verify(app, "ann", "password of ann") is None
    assert accounts.verify(app, "ann", "new password of ann")


def test_an_ended_session_is_nobodys_and_a_session_without_a_name_too(app):
    ann = accounts.create_first(app, "ann", "password of ann")
    accounts.end_session(app, "one", lifetime_s=60)
    assert accounts.by_session_id(app, ann.session_id, "one") is None
    assert accounts.by_session_id(app, ann.session_id, "") is None
    assert accounts.by_session_id(app, ann.session_id, "two") == ann


@pytest.mark.parametrize("session_id", ["", "1", "1.", "x.y", "99.1", "1.1.1", "-1.1", "1." + "1" * 5000])
def test_a_session_of_nobody_is_none(app, session_id):
    assert accounts.by_session_id(app, session_id, "a name") is None


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "too short"), ("ann", "x" * 1001), ("", "long enough"), ("a\nb", "long enough")]
)
def test_poor_names_and_passwords_are_refused(app, name, password):
    with pytest.raises(InvalidRequest):
        accounts.create_first(app, name, password)
    assert not accounts.any_exists(app)


def test_a_name_is_taken_once_however_it_is_written(app):
    accounts.create(app, "ann", "password of ann", who="tester")
    for name in ("ann", "Ann"):
        with pytest.raises(Conflict, match=r"There is an admin ann already\."):
            accounts.create(app, name, "password of ann", who="tester")
    assert [admin.username for admin in accounts.everyone(app)] == ["ann"]


def test_an_unknown_admin_has_no_password_to_set(app):
    with pytest.raises(NotFound):
        accounts.set_password(app, "nobody", "long enough", who="tester")


def test_the_environment_makes_the_account_once_and_never_resets_it(make):
    def start(password):
        app = make(admin_username="ann", admin_password=password)
        accounts.create_from_environment(app, app.extensions["dragoman"].settings)
        return app

    start("first password")
    app = start("second password")
    assert accounts.verify(app, "ann", "first password")
    assert accounts.verify(app, "ann", "second password") is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"admin_username": "ann"}, "ADMIN_PASSWORD"), ({"admin_password": "password of ann"}, "ADMIN_USERNAME")],
)
def test_half_an_account_in_the_environment_is_said(make, caplog, given, missing):
    app = make(**given)
    assert accounts.create_from_environment(app, app.extensions["dragoman"].settings) is None
    assert f"{missing} is missing" in caplog.text


@pytest.mark.parametrize(
    ("given", "at_fault"),
    [
        ({"admin_username": "ann", "admin_password": "short"}, "ADMIN_PASSWORD"),
        ({"admin_username": "a\x07", "admin_password": "long enough"}, "ADMIN_USERNAME"),
    ],
)
def test_a_poor_account_in_the_environment_stops_the_start(make, given, at_fault):
    app = make(**given)
    with pytest.raises(ConfigError, match=at_fault):
        accounts.create_from_environment(app, app.extensions["dragoman"].settings)


def test_passwords_are_hashed_in_threads_of_their_own():
    """In the hub's own, sign-ins would hold up name resolution. In a process of its own, since it patches threads."""
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent, time\n"
        "from app.storage import accounts\n"
        "sign_ins = [gevent.spawn(accounts._slowly, lambda: monkey.get_original('time', 'sleep')(0.3)) "
        "for _ in range(12)]\n"
        "gevent.sleep(0.05)\n"
        "started = time.monotonic()\n"
        "gevent.get_hub().threadpool.apply(lambda: None)\n"
        "print(time.monotonic() - started < 0.2)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_the_set_up_token_is_the_same_each_time_and_another_with_another_key(make):
    one, two = (make().extensions["dragoman"].vault for _ in range(2))
    token = accounts.setup_token(one)
    assert token == accounts.setup_token(two)
    assert accounts.is_setup_token(one, token)
    assert not accounts.is_setup_token(one, token[:-1])
    assert not accounts.is_setup_token(one, "")
    assert not accounts.is_setup_token(make(secret_key="another secret key").extensions["dragoman"].vault, token)


def test_accounts_are_in_the_audit_log(app):
    accounts.create_first(app, "ann", "password of ann", ip="192.0.2.1")
    accounts.set_password(app, "ann", "new password of ann", who="ann")
    assert [entry.action for entry in audit.entries(app)] == ["admin.password", "admin.create"]


def test_a_removed_accounts_sessions_end_at_once_and_are_not_those_of_the_next_account(app):
    accounts.create_first(app, "ann", "password of ann")
    bob = accounts.create(app, "bob", "password of bob", who="ann")
    assert accounts.by_session_id(app, bob.session_id, "a session") == bob
    accounts.remove(app, " bob ", who="ann")
    assert accounts.by_session_id(app, bob.session_id, "a session") is None
    assert accounts.verify(app, "bob", "password of bob") is None
    newest = audit.entries(app)[0]
    assert (newest.who, newest.action, newest.detail) == ("ann", "admin.remove", "bob")
    again = accounts.create(app, "bob", "password of bob", who="ann")
    assert again.session_id != bob.session_id
    assert accounts.by_session_id(app, bob.session_id, "a session") is None


def test_the_last_account_cannot_be_removed(app):
    accounts.create_first(app, "ann", "password of ann")
    with pytest.raises(NotFound):
        accounts.remove(app, "bob", who="ann")
    with pytest.raises(Conflict, match="ann is the only admin"):
        accounts.remove(app, "ann", who="ann")
    assert len(accounts.everyone(app)) == 1


def test_of_many_removals_at_once_one_account_is_left(make):
    apps = [make() for _ in range(4)]
    names = [f"admin-{number}" for number in range(4)]
    for name in names:
        accounts.create(apps[0], name, "a good password", who="a test")
    refused = []

    def attempt(app, name):
        try:
            accounts.remove(app, name, who="a test")
        except Conflict:
            refused.append(name)

    threads = [threading.Thread(target=attempt, args=pair) for pair in zip(apps, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [admin.username for admin in accounts.everyone(apps[0])] == refused
    assert len(refused) == 1
