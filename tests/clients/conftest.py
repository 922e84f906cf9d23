"""What client programs talk to, what the simulator received of them, and Node for the JavaScript ones.

Clients of OpenAI's API talk to the gateway, those of Anthropic's to each door of `MESSAGES_DOORS`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
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
            before = body["messages"][:place]
            prefixes = [prefix_digest(seen, before) for seen in (body, without_attribution(body))]
            assert bound.prefix in ("", *prefixes), "another conversation"
            found.append(block)
    return found


@dataclass
class MessagesDoor:
    """Where a client of Anthropic's own API is pointed to, and what came of it at the simulator behind that."""

    url: str
    key: str
    simulator: str
    paced: str = ""
    """What stands before a model's name where the answer is to come piece by piece."""
    keeps_threads: bool = True
    """Else message threads are refused, and the SDKs send the whole history."""

    def journal(self) -> list[dict[str, Any]]:
        """The simulator's requests since the test began, once each of them has ended."""

        def ended() -> list[dict[str, Any]] | None:
            entries: list[dict[str, Any]] = requests.get(f"{self.simulator}/_sim/requests", timeout=5).json()[
                "requests"
            ]
            return entries if all(entry["ended"] for entry in entries) else None

        found: list[dict[str, Any]] = wait_for(lambda: (entries := ended()) is not None and [entries])[0]
        return found

    def messages(self) -> list[dict[str, Any]]:
        """Those that asked for an answer."""
        return [entry for entry in self.journal() if (entry["method"], entry["path"]) == ("POST", "/v1/messages")]

    def forget(self) -> None:
        requests.delete(f"{self.simulator}/_sim/requests", timeout=5).raise_for_status()

    def fail_next(self, times: int, **fault: Any) -> None:
        """Has the simulator fail as many requests: see app/simulator/faults.py."""
        self._order({"key": "*", "fault": fault, "times": times})

    def mend(self) -> None:
        self._order({"key": "*", "fault": None})

    def _order(self, order: dict[str, Any]) -> None:
        requests.post(f"{self.simulator}/_sim/faults", json=order, timeout=5).raise_for_status()


MESSAGES_DOORS: dict[str, Callable[[pytest.FixtureRequest, str], MessagesDoor]] = {
    "simulator": lambda _request, simulator: MessagesDoor(simulator, "sk-ant-test-of-a-client", simulator),
    "gateway": lambda request, simulator: MessagesDoor(
        request.getfixturevalue("running").url, CLIENT_KEY, simulator, paced="paced.", keeps_threads=False
    ),
}
"""By name, what makes a door of the test's request and the simulator's URL."""


@pytest.fixture(params=MESSAGES_DOORS)
def messages_door(request: pytest.FixtureRequest, simulator: str) -> Iterator[MessagesDoor]:
    """Every test that asks for this runs at each door."""
    door = MESSAGES_DOORS[request.param](request, simulator)
    door.forget()
    yield door
    door.mend()


def without_attribution(body: dict[str, Any]) -> dict[str, Any]:
    """The same without Claude Code's line for the bill, which the API takes off the head of the system prompt."""
    system = body.get("system") or []
    is_first = isinstance(system, list) and system and system[0]["text"].startswith("x-anthropic-billing-header:")
    return {**body, "system": system[1:]} if is_first else body


THREADED = pytest.param(None, id="threaded")
"""What the tool loops of Anthropic's SDKs do unless told otherwise: the second request holds no history."""

NodeRunner = Callable[..., Any]


@pytest.fixture(scope="session")
def node_program() -> str:
    """Node's path, once the packages are there too."""
    program = needs("node", install="nodejs npm")
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    need_packages({name: f"{name}/package.json" for name in wanted})
    return program


@pytest.fixture
def node(node_program: str, running: Gateway) -> NodeRunner:
    """Runs a script of this folder with the gateway's address and the given values; what it says, as JSON."""
    return lambda script, **values: run_node(
        node_program, script, {"baseURL": f"{running.url}/v1", "apiKey": CLIENT_KEY, **values}
    )


@pytest.fixture
def node_at_door(node_program: str, messages_door: MessagesDoor) -> NodeRunner:
    """The same with the door's address, which has no /v1."""
    return lambda script, **values: run_node(
        node_program, script, {"baseURL": messages_door.url, "apiKey": messages_door.key, **values}
    )


def run_node(program: str, script: str, given: dict[str, Any]) -> Any:
    done = subprocess.run(
        [program, str(HERE / script)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def need_packages(wanted: dict[str, str]) -> None:
    """Without a file of each npm package the test is skipped by name, or fails under CI=true."""
    missing = [name for name, file in wanted.items() if not (HERE / "node_modules" / file).exists()]
    if not missing:
        return
    message = f"{', '.join(missing)} missing in tests/clients; install with: {INSTALL_PACKAGES}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
