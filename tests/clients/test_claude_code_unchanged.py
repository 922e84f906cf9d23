"""One session of Claude Code's with the gateway between and without: Anthropic gets the same."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.clients.claude_code import ClaudeCode, closed_proxy
from tests.clients.conftest import MESSAGES_DOORS, MessagesDoor

NEW_EACH_TIME = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{64}\b|\b(?:toolu|msg|req)_\w+"
    r'|"signature":"[^"]+"|"text":"x-anthropic-billing-header:[^"]*"'
)
"""What Claude Code and the simulator make up for each session: ids, signatures, a digest in the line for the bill."""
NOT_COMPARED = {
    *("host", "x-api-key", "authorization", "accept-encoding", "connection", "content-length", "x-sim-gap-ms"),
    "anthropic-dangerous-direct-browser-access",  # the gateway is no browser
}


def session(door: MessagesDoor, folder: Path) -> list[Any]:
    """(target, headers, body) of each request, of a session of two turns that writes a file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    door.forget()
    with closed_proxy() as (proxy, elsewhere):
        claude = ClaudeCode(door.url, door.key, folder, proxy, elsewhere)
        claude.run("sim-agent: make `greeting.txt` with `Hello, world.`", "--permission-mode", "acceptEdits")
        assert (claude.work / "greeting.txt").read_text() == "Hello, world."
        assert claude.run("Say hello.", "--continue").text.startswith("You said:")
        assert elsewhere == []
    found = []
    for entry in door.journal():
        raw = requests.get(f"{door.simulator}/_sim/requests/{entry['number']}/body", timeout=5).text
        headers = {
            name.lower(): NEW_EACH_TIME.sub("…", value)
            for name, value in entry["raw_headers"]
            if name.lower() not in NOT_COMPARED
        }
        found.append((entry["method"], entry["target"], headers, NEW_EACH_TIME.sub("…", raw)))
    return found


def test_a_session_is_the_same_to_anthropic_with_the_gateway_and_without(
    request: pytest.FixtureRequest, simulator: str, tmp_path: Path
) -> None:
    without, with_it = (session(make(request, simulator), tmp_path / "session") for make in MESSAGES_DOORS.values())
    assert len(without) == 3
    assert with_it == without
