"""Fixtures that several test modules share: settings, applications, databases, and real processes."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import requests
from flask import Flask

from app import create_app, create_storage_app
from app.settings import Settings
from app.storage import database
from app.storage.migrate import upgrade

hypothesis.settings.register_profile("long", max_examples=20_000)  # pytest --hypothesis-profile=long tests/translate
ROOT = Path(__file__).resolve().parents[1]
ADMIN = {"authorization": "Bearer admin-key-of-the-tests"}
CLIENT = {"authorization": "Bearer client-key-of-the-tests"}
ADMIN_KEY, CLIENT_KEY = "admin-key-of-the-tests", "client-key-of-the-tests"


def needs(program: str, *, install: str) -> str:
    """The program's path; without it the test is skipped by name, or fails under CI=true."""
    found = shutil.which(program) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"))), None)
    if found is None:
        message = f"{program} is missing; install it with: apt-get install -y {install}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return os.path.realpath(found)


def wait_for(claim: Callable[[], Any], *, within_s: float = 5.0, what: str = "") -> Any:
    """The first true answer of `claim`."""
    deadline = time.monotonic() + within_s
    while True:
        answer = claim()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or claim}"
        time.sleep(0.02)  # other processes are watched, which announce nothing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class PostgreSQL:
    """A server of the tests' own."""

    port: int
    user: str
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self.numbers)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    initdb = needs("initdb", install="postgresql")
    server = str(Path(initdb).with_name("postgres"))
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    # Not under pytest's own folder, which a user other than root may not enter.
    folder = tempfile.mkdtemp(prefix="dragoman-pg-")
    as_user: dict[str, Any] = {"user": user, "extra_groups": []} if os.getuid() == 0 else {}
    if as_user:
        shutil.chown(folder, user)
    port = free_port()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **as_user}
    subprocess.run([initdb, "-D", f"{folder}/data", "-U", user, "-A", "trust", "--no-sync"], check=True, **quiet)
    options = ["listen_addresses=127.0.0.1", "fsync=off", f"unix_socket_directories={folder}", "max_connections=60"]
    arguments = [argument for option in options for argument in ("-c", option)]
    process = subprocess.Popen([server, "-D", f"{folder}/data", "-p", str(port), *arguments], **quiet)

    def answers() -> bool:
        assert process.poll() is None, "PostgreSQL did not start"
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://{user}@127.0.0.1:{port}/postgres").close()
            return True
        return False

    try:
        wait_for(answers, within_s=20, what="PostgreSQL answers")
        yield PostgreSQL(port, user)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "instance_path": tmp_path / "instance",
            "admin_api_keys": (ADMIN_KEY,),
            "gateway_api_keys": (CLIENT_KEY,),
        }
        return Settings(**{**defaults, **values})

    return make


AppMaker = Callable[..., Flask]


@contextlib.contextmanager
def _apps(make: Callable[[Settings], Flask], make_settings: Callable[..., Settings]) -> Iterator[AppMaker]:
    made: list[Flask] = []

    def make_one(**values: Any) -> Flask:
        app = make(make_settings(**values))
        made.append(app)
        upgrade(app)
        return app

    yield make_one
    for app in made:
        database.engine_of(app).dispose()


@pytest.fixture
def make_app(make_settings: Callable[..., Settings]) -> Iterator[AppMaker]:
    """The whole application on a migrated database; called twice it is two processes' worth on the same one."""
    with _apps(create_app, make_settings) as maker:
        yield maker


@pytest.fixture
def make_storage_app(make_settings: Callable[..., Settings]) -> Iterator[AppMaker]:
    """The application without its routes."""
    with _apps(create_storage_app, make_settings) as maker:
        yield maker


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app()


@pytest.fixture(params=["sqlite", "postgresql"])
def either_database(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of an empty database: every test that asks for this runs on both."""
    if request.param == "sqlite":
        return {"secret_key": "a secret key of the tests alone"}
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return {"database_url": server.new_database(), "secret_key": "a secret key of the tests alone"}


@dataclass
class Gateway:
    """A running gateway: `dragoman run`, which becomes gunicorn."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path
    instance: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"headers": ADMIN, "timeout": 30, **options})

    def post(self, path: str, json: Any, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=json, **{"headers": ADMIN, "timeout": 30, **options})

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Master and workers at once, as when the power goes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


GatewayMaker = Callable[..., Gateway]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayMaker]:
    """Starts `dragoman run` with the given variables and waits until it answers; stopped after the test."""
    with _gateways(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayMaker]:
    """The same for gateways that the tests of a module share; each has a folder of its own."""
    folder = tmp_path_factory.mktemp("gateways")
    with _gateways(folder) as start:
        numbers = itertools.count()
        yield lambda **variables: start(**{"INSTANCE_PATH": str(folder / f"instance-{next(numbers)}"), **variables})


@contextlib.contextmanager
def _gateways(tmp_path: Path) -> Iterator[GatewayMaker]:
    running: list[Gateway] = []

    def start(**variables: str) -> Gateway:
        port = free_port()
        instance = Path(variables.get("INSTANCE_PATH", str(tmp_path / "instance")))
        log_path = tmp_path / f"gateway-{len(running)}.log"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PORT": str(port),
            "INSTANCE_PATH": str(instance),
            "ADMIN_API_KEYS": ADMIN_KEY,
            "GATEWAY_API_KEYS": CLIENT_KEY,
            "GRACEFUL_TIMEOUT": "5",
            **variables,
        }
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "run"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        made = Gateway(f"http://127.0.0.1:{port}", process, log_path, instance)
        running.append(made)

        def answers() -> bool:
            assert process.poll() is None, made.log
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(made.url + "/v1", timeout=10).status_code == 200
            return False

        try:
            wait_for(answers, within_s=30, what="the gateway answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{made.log}") from None
        return made

    try:
        yield start
    finally:
        for each in running:
            each.stop()


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    """The base URL of a running simulator, which lists its scenarios as models."""
    command = [sys.executable, "-m", "app.cli", "simulator", "--port", "0", "--scenarios"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "http" in line, f"the simulator said {line!r}"
        yield line[line.index("http") :].split()[0].rstrip("/")
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
