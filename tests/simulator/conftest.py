"""The simulator as a process, and the official SDK against it."""

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest

import app.simulator
from tests.conftest import wait_for

ROOT = Path(app.simulator.__file__).parents[2]
KEY = "sk-ant-test"


@dataclass
class SimulatorProcess:
    """A running simulator: where it is, and what it saw."""

    url: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def sdk(self, key: str = KEY, timeout: float = 5.0) -> anthropic.Anthropic:
        return anthropic.Anthropic(api_key=key, base_url=self.url, max_retries=0, timeout=timeout)

    def connect(self) -> http.client.HTTPConnection:
        host, port = self.address
        return http.client.HTTPConnection(host, port, timeout=5)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a plain HTTP request."""
        connection = self.connect()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def fetch(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and bytes, as they come."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def post(self, body: Any, path: str = "/v1/messages", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The same for a request to the API with the headers it needs; `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.fetch("POST", path, data, {"x-api-key": KEY, "anthropic-version": "2023-06-01", **given})

    def order(self, path: str, document: Any) -> None:
        """A control request that has to succeed."""
        assert self.call("POST", path, document)[0] == 200

    def policy(self, key: str, **policy: Any) -> None:
        self.order("/_sim/policies", {"key": key, "policy": policy})

    def messages(self, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        """`POST /v1/messages` with the headers it needs; keyword `x_api_key=` replaces the key."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        needed = {} if "authorization" in given else {"x-api-key": KEY}
        return self.call("POST", "/v1/messages", body, {**needed, "anthropic-version": "2026-10-21", **given})

    def fault(self, key: str, fault: dict[str, Any] | None, times: int | None = None) -> None:
        status, _ = self.call("POST", "/_sim/faults", {"key": key, "fault": fault, "times": times})
        assert status == 200

    def last_request(self, wait_s: float = 2.0) -> Any:
        """The newest journal entry, once it has ended."""
        return wait_for(self._ended, within_s=wait_s)

    def _ended(self) -> Any:
        entry = self.call("GET", "/_sim/requests")[1]["requests"][-1]
        return entry if entry["ended"] else None


def run_simulator(*arguments: str) -> Iterator[SimulatorProcess]:
    command = [sys.executable, "-m", "app.simulator", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield SimulatorProcess(process.stdout.readline().split()[-1])
    finally:
        process.terminate()
        process.wait(5)
        process.stdout.close()


@pytest.fixture(scope="session")
def start_simulator() -> Callable[..., Iterator[SimulatorProcess]]:
    """Starts another one, with command-line arguments of its own."""
    return run_simulator


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    yield from run_simulator()


@pytest.fixture(scope="session")
def sdk(simulator: SimulatorProcess) -> Iterator[anthropic.Anthropic]:
    with simulator.sdk() as client:
        yield client
