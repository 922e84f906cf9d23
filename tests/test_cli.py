"""The command line: every refusal is one line with the remedy."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from app.storage.accounts import SHORTEST_PASSWORD
from app.version import VERSION
from tests.conftest import free_port, wait_for

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def dragoman(tmp_path):
    def run(*arguments, stdin="", **variables):
        environment = {"PATH": os.environ["PATH"], "INSTANCE_PATH": str(tmp_path / "instance"), **variables}
        command = [sys.executable, "-m", "app.cli", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=60
        )

    return run


def refused(done):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PORT": "many"}, "PORT must be a whole number"),
        ({"PORT": "70000"}, "PORT must be from 0 to 65535"),
        ({"HOST": "no.such.host.invalid"}, "HOST"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY"),
        ({"ENABLE_ANTHROPIC_API": "perhaps"}, "ENABLE_ANTHROPIC_API must be true or false"),
        ({"ANTHROPIC_API_CONFIGS": "{"}, "ANTHROPIC_API_CONFIGS must be JSON"),
        ({"MODEL_ALIASES": "gpt-4o=claude"}, 'MODEL_ALIASES must be JSON, as in \'{"gpt-4o": "claude-sonnet-5-5"}\''),
        ({"DATABASE_URL": "mysql://host/name", "SECRET_KEY": "a long secret key"}, "DATABASE_URL names mysql"),
        ({"DATABASE_URL": "postgres://u:pw@127.0.0.1:1/n"}, "SECRET_KEY"),
        ({"DATABASE_URL": "postgres://u:pw@127.0.0.1:1/n", "SECRET_KEY": "a long secret key"}, "DATABASE_URL"),
        ({"SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY_FILE"),
    ],
)
def test_a_wrong_variable_is_said_in_one_line(dragoman, variables, words):
    said = refused(dragoman("run", **{"PORT": str(free_port()), **variables}))
    assert words in said
    assert "pw" not in said


def test_a_taken_port_is_said_with_the_remedy(dragoman):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"PORT={port + 1}" in refused(dragoman("run", PORT=str(port)))


def test_the_set_up_link_can_be_printed_again_until_there_is_an_admin(dragoman, tmp_path):
    dragoman("migrate")
    link = dragoman("setup-link", PORT="4321").stdout
    assert re.fullmatch(r"http://127\.0\.0\.1:4321/setup#token=[0-9a-f]{40}\n", link)
    for_others = dragoman("setup-link", PORT="4321", HOST="0.0.0.0")
    assert for_others.stdout == link
    assert "From another machine" in for_others.stderr
    assert dragoman("admin", "create", "ann", "--password-stdin", stdin="password of ann\n").returncode == 0
    said = refused(dragoman("setup-link"))
    assert re.search(rf"INSTANCE_PATH={tmp_path}/instance \S+/dragoman admin reset-password USERNAME", said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("setup-link",),
        ("admin", "reset-password", "ann", "--password-stdin"),
        ("admin", "list"),
        ("admin", "remove", "ann"),
        ("keys", "create", "laptop"),
        ("keys", "list"),
        ("keys", "revoke", "key_none"),
        ("secrets", "reencrypt"),
    ],
)
def test_a_command_makes_no_database_in_the_wrong_place(dragoman, tmp_path, arguments):
    said = refused(dragoman(*arguments, stdin="long enough for us\n"))
    assert f"There is no Dragoman database in {tmp_path / 'instance'}. Start the gateway once" in said
    assert not (tmp_path / "instance").exists()


def test_whoever_means_the_demo_is_told_where_its_database_is(dragoman, tmp_path):
    dragoman("migrate", INSTANCE_PATH=str(tmp_path / "instance" / "demo"))
    assert f"begin the command with INSTANCE_PATH={tmp_path}/instance/demo." in refused(dragoman("keys", "list"))


def test_without_a_terminal_there_is_a_way_to_give_a_password(dragoman):
    assert "--password-stdin" in refused(dragoman("admin", "create", "ann"))


def test_the_version_and_whole_descriptions_are_told(dragoman):
    assert dragoman("--version").stdout == f"dragoman, version {VERSION}\n"
    told = dragoman("--help").stdout
    assert "..." not in told.removeprefix(told.split("\n")[0])
    assert "free one is picked" in dragoman("simulator", "--help").stdout


def test_a_lost_password_can_be_reset(dragoman):
    dragoman("admin", "create", "ann", "--password-stdin", stdin="password of ann\n")
    done = dragoman("admin", "reset-password", "ann", "--password-stdin", stdin="another password\n")
    assert done.returncode == 0
    short = refused(dragoman("admin", "reset-password", "ann", "--password-stdin", stdin="short\n"))
    assert f"must have {SHORTEST_PASSWORD} to" in short
    said = refused(dragoman("admin", "reset-password", "nobody", "--password-stdin", stdin="short\n"))
    assert said == "Error: There is no admin called nobody.\n"


def test_keys_are_made_listed_and_revoked(dragoman):
    dragoman("migrate")
    limits = ("--days", "30", "--model", "claude-opus-5-5", "--model", "claude-haiku-5-5")
    secret = dragoman("keys", "create", "laptop", "--owner", "ann", *limits).stdout.strip()
    last_day = datetime.fromtimestamp(time.time() + 30 * 86_400 - 1, UTC).date().isoformat()
    assert re.fullmatch(r"sk-dgm-[\w-]{40}", secret)
    header, line = dragoman("keys", "list").stdout.splitlines()
    assert header.split() == ["ID", "KEY", "SCOPE", "STATE", "NAME", "OWNER", "MODELS", "EXPIRES", "USED"]
    told = ["claude-opus-5-5,claude-haiku-5-5", last_day, "never"]
    id, *rest = line.split()
    assert rest == [f"sk-dgm-…{secret[-4:]}", "client", "valid", "laptop", "ann", *told]
    assert "revoked" in dragoman("keys", "revoke", id).stdout
    assert "  revoked  " in dragoman("keys", "list").stdout
    said = refused(dragoman("keys", "revoke", "laptop"))
    assert "There is no key laptop. Give the ID that this shows: INSTANCE_PATH=" in said
    assert "GATEWAY_API_KEYS" in dragoman("keys", "list").stderr
    dragoman("keys", "create", "any")
    (line,) = [line for line in dragoman("keys", "list").stdout.splitlines() if " any " in line]
    assert line.split()[4:] == ["any", "-", "all", "never", "never"]


def test_accounts_are_listed_and_removed_but_the_last_one_stays(dragoman):
    for username in ("ann", "bob"):
        dragoman("admin", "create", username, "--password-stdin", stdin="a long password\n")
    header, *accounts = dragoman("admin", "list").stdout.splitlines()
    assert header.split() == ["USERNAME", "MADE"]
    assert [line.split()[0] for line in accounts] == ["ann", "bob"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", accounts[0].split()[1])
    assert dragoman("admin", "remove", "ann").stdout == "ann can no longer sign in.\n"
    assert refused(dragoman("admin", "remove", "ann")) == "Error: There is no admin called ann.\n"
    assert refused(dragoman("admin", "remove", "bob")) == (
        "Error: bob is the only admin. Make another account first.\n"
    )
    assert len(dragoman("admin", "list").stdout.splitlines()) == 2


def test_a_key_for_a_model_that_nothing_lists_is_made_with_a_warning(dragoman):
    dragoman("migrate")
    made = dragoman("keys", "create", "laptop", "--model", "claude-opus-5.5", "--model", "claude-sonet-5-5")
    assert made.stdout.startswith("sk-dgm-")
    assert made.stderr == (
        "Warning: No connection lists the model claude-sonet-5-5, which the key may use. "
        "Did you mean claude-sonnet-5-5?\n"
    )
    aliases = {"MODEL_ALIASES": '{"gpt-4o": "claude-opus-5-5"}'}
    assert dragoman("keys", "create", "laptop", "--model", "gpt-4o", **aliases).stderr == ""


def test_secrets_that_cannot_be_decrypted_are_named_and_left_alone(dragoman):
    dragoman("migrate")
    assert "0 values" in dragoman("secrets", "reencrypt").stdout


def test_the_first_start_prints_the_set_up_link_and_a_start_with_an_account_does_not(gateway):
    assert "/setup#token=" in gateway().log
    account = {"ADMIN_USERNAME": "ann", "ADMIN_PASSWORD": "password of ann"}
    running = gateway(**account)
    assert "/setup#token=" not in running.log
    told = (
        f"Admin pages: {running.url}/admin   For your programs: {running.url}/v1\nCtrl-C stops at once; kill (SIGTERM)"
    )
    assert told in running.log


def test_a_shells_usual_limit_of_open_files_is_no_limit_of_streams(gateway):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        running = gateway()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (min(65_536, hard), hard)


def test_the_environments_account_can_sign_in_and_a_second_start_skips_the_preparations(gateway):
    gateway(ADMIN_USERNAME="ann", ADMIN_PASSWORD="password of ann").stop()
    started = time.monotonic()
    running = gateway()
    assert time.monotonic() - started < 10
    page = requests.Session()
    form = page.get(running.url + "/admin/login", timeout=10).text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
    assert token is not None
    data = {"csrf_token": token[1], "username": "ann", "password": "password of ann"}
    page.post(running.url + "/admin/login", data=data, timeout=10)
    assert page.get(running.url + "/config", timeout=10).status_code == 200
    page.close()


def test_the_demo_needs_no_key_and_takes_its_simulator_with_it(tmp_path):
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "INSTANCE_PATH": str(tmp_path), "PORT": str(port)}
    environment["ADMIN_API_KEYS"] = "admin"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "demo"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def config():
        try:
            return requests.get(f"http://127.0.0.1:{port}/config", headers={"x-api-key": "admin"}, timeout=5).json()
        except requests.RequestException:
            return None

    try:
        shown = wait_for(config, within_s=30, what="the demo answers")
        assert shown["ENABLE_ANTHROPIC_API"]
        (simulator,) = shown["ANTHROPIC_API_BASE_URLS"]
        assert (tmp_path / "demo" / "dragoman.db").exists()
        assert f"Demo: answers come from a simulator; data is in {tmp_path / 'demo'}\n" in log.read_text()
        assert "This is the demo" in requests.get(f"http://127.0.0.1:{port}/docs", timeout=5).text
        models = requests.get(f"http://127.0.0.1:{port}/models", headers={"x-api-key": "admin"}, timeout=5).json()
        names = [model["id"].startswith("sim-") for model in models["data"]]
        assert names == sorted(names)
        assert not names[0]
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        with pytest.raises(requests.ConnectionError):
            requests.get(simulator, timeout=5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


class TestBooks:
    @pytest.fixture(autouse=True)
    def database(self, dragoman):
        assert dragoman("migrate").returncode == 0

    def test_prices_are_listed_with_what_overrides_them(self, dragoman):
        prices = '{"house-model": {"from": "2026-12-01", "input": 0.5, "output": 2}}'
        said = dragoman("prices", "list", "claude-haiku-5-5", "house-model", MODEL_PRICES=prices)
        lines = [line.split() for line in said.stdout.splitlines()]
        assert lines[0] == [
            *("MODEL", "FROM", "FOR", "INPUT", "WRITE", "5M", "WRITE", "1H", "READ", "OUTPUT", "VERSION")
        ]
        assert lines[1][:5] == ["claude-haiku-5-5", "2026-10-07", "-", "0.1", "0.125"]
        assert lines[2][2:7] == ["prompt", ">", "100,000", "0.5", "0.625"]
        assert lines[3][:8] == ["house-model", "2026-12-01", "-", "0.5", "0.625", "1", "0.05", "2"]

    def test_a_model_without_a_price_is_said(self, dragoman):
        assert "MODEL_PRICES" in refused(dragoman("prices", "list", "claude-nobody"))

    def test_recomputing_tells_what_it_came_to(self, dragoman):
        said = dragoman("prices", "recompute", "--from", "2026-11-01", "--to", "2026-11-30T12:00:00Z", "--dry-run")
        assert said.stdout == ("0 requests, and none would cost anything else; of 0 the cost is not known.\n")

    @pytest.mark.parametrize("time", ["2026-13-01", "2026-11-01T10:00", "yesterday", "9999-12-31T23:59:59-23:00"])
    def test_a_time_without_a_zone_is_refused_with_an_example(self, dragoman, time):
        said = dragoman("prices", "recompute", "--from", time, "--to", "2026-11-30")
        assert said.returncode == 2
        assert "2026-11-29T12:00:00Z" in said.stderr

    def test_what_cannot_be_reconciled_is_another_exit_status_than_a_difference(self, dragoman):
        span = ("--from", "2026-11-01", "--to", "2026-11-02")
        for variables, words in (
            ({}, "ANTHROPIC_ADMIN_KEY"),
            ({"ANTHROPIC_ADMIN_KEY": "sk-ant-admin01-x"}, "no connection"),
        ):
            said = dragoman("reconcile", *span, **variables)
            assert said.returncode == 2
            assert words in said.stderr
            assert "Traceback" not in said.stderr
