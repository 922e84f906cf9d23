"""The gateway that client programs talk to, what the simulator received of them, and Node for the JavaScript ones."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from app.simulator.signatures import check, prefix_digest
from tests.conftest import CLIENT_KEY, Gateway, GatewayMaker, needs, wait_for

HERE = Path(__file__).resolve().parent
INSTALL_PACKAGES = "npm ci --prefix tests/clients"


@pytest.fixture(scope="module")
def running(module_gateway: GatewayMaker, simulator: str) -> Gateway:
    """A gateway whose simulator answers at once, and piece by piece where the model's name begins with `paced.`.

    Two workers, so that nothing may live in one of them.
    """
    return module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-test-at-once,sk-ant-test-paced",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_CONFIGS='{"0": {"headers": {"x-sim-gap-ms": "0"}}, "1": {"prefix_id": "paced"}}',
        MODEL_ALIASES='{"gpt-4o": "sim-text"}',
        WEB_CONCURRENCY="2",
    )


@dataclass
class Upstream:
    """What the simulator received since the test began."""

    url: str

    def forget(self) -> None:
        requests.delete(f"{self.url}/_sim/requests", timeout=5).raise_for_status()

    def bodies(self, count: int) -> list[dict[str, Any]]:
        """The bodies of `count` messages, in the order they came, each answered to its end with 200."""

        def ended() -> list[dict[str, Any]]:
            entries = requests.get(f"{self.url}/_sim/requests", timeout=5).json()["requests"]
            messages = [entry for entry in entries if entry["path"] == "/v1/messages"]
            return messages if len(messages) >= count and all(entry["ended"] for entry in messages) else []

        messages = wait_for(ended, what=f"{count} requests that the simulator is done with")
        assert [(entry["status"], entry["ended"]) for entry in messages] == [(200, "finished")] * count
        return [entry["body"] for entry in messages]


@pytest.fixture
def upstream(simulator: str) -> Upstream:
    made = Upstream(simulator)
    made.forget()
    return made


def without_breakpoints(value: Any) -> Any:
    """The same without the breakpoints of the prompt cache, which move from call to call."""
    if isinstance(value, dict):
        return {key: without_breakpoints(item) for key, item in value.items() if key != "cache_control"}
    return [without_breakpoints(item) for item in value] if isinstance(value, list) else value


def assistant_turns(body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The content of each assistant message, without breakpoints."""
    return [without_breakpoints(m["content"]) for m in body["messages"] if m["role"] == "assistant"]


def replayed_thinking(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The thinking blocks that came back, each proved to be as it was signed, for the conversation before its turn.

    The simulator refuses altered text by itself, but leaves out a block whose conversation differs when told to.
    """
    found = []
    for place, message in enumerate(body["messages"]):
        if message["role"] != "assistant":
            continue
        for block in message["content"]:
            if block["type"] != "thinking":
                continue
            bound = check(block["thinking"], block["signature"])
            assert bound is not None, "the signature is not that of the text"
            assert bound.prefix in ("", prefix_digest(body, body["messages"][:place])), "another conversation"
            found.append(block)
    return found


NodeRunner = Callable[..., Any]


@pytest.fixture(scope="session")
def node_program() -> str:
    """Node's path, once the packages are there too."""
    program = needs("node", install="nodejs npm")
    _need_packages()
    return program


@pytest.fixture
def node(node_program: str, running: Gateway) -> NodeRunner:
    """Runs a script of this folder with the gateway's address and the given values; what it says, as JSON."""

    def run(script: str, **values: Any) -> Any:
        given = {"baseURL": f"{running.url}/v1", "apiKey": CLIENT_KEY, **values}
        done = subprocess.run(
            [node_program, str(HERE / script)],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _need_packages() -> None:
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    missing = [name for name in wanted if not (HERE / "node_modules" / name / "package.json").exists()]
    if not missing:
        return
    message = f"{', '.join(missing)} missing in tests/clients; install with: {INSTALL_PACKAGES}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
