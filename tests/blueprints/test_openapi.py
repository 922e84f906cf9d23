"""The API's description: true to the routes, and no request that it allows makes the gateway fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from flask import Flask
from jsonschema import Draft202012Validator

from app.access.endpoint import declared
from app.blueprints.openapi import specification
from tests.conftest import ADMIN_KEY, CLIENT_KEY, GatewayMaker

EXAMPLES = os.environ.get("DRAGOMAN_SCHEMATHESIS_EXAMPLES", "15")


def test_every_documented_route_is_described(app: Flask) -> None:
    described = set(specification(app)["paths"])
    documented = {
        rule.rule.replace("<path:model>", "{model}").replace("<id>", "{id}")
        for rule in app.url_map.iter_rules()
        if (found := declared(app.view_functions[rule.endpoint])) is not None and found.documented
    }
    assert described == documented
    assert "/v1/chat/completions" in described


def test_schemas_in_the_description_are_json_schemas(app: Flask) -> None:
    for schema in specification(app)["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_description_tells_types_and_limits(app: Flask) -> None:
    chat = specification(app)["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["messages", "model"]
    temperature = chat["properties"]["temperature"]
    assert (temperature["minimum"], temperature["maximum"]) == (0, 2)
    assert "number" in temperature["type"]


def test_the_docs_page_needs_nothing_from_outside(app: Flask) -> None:
    page = app.test_client().get("/docs")
    assert page.status_code == 200
    assert re.findall(r"""(?:src|href)="(?!/|#)[^"]*""", page.text) == []
    assert "<script" not in page.text


def test_fields_and_keys_are_described(app: Flask) -> None:
    described = specification(app)
    chat = described["components"]["schemas"]["ChatRequest"]["properties"]
    assert [name for name, field in chat.items() if not field.get("description")] == []
    assert {"tool_choice", "reasoning", "thinking", "top_k"} <= set(chat)
    assert next(iter(described["paths"])) == "/v1/chat/completions"
    operation = {path: next(iter(methods.values())) for path, methods in described["paths"].items()}
    assert "a **client key**" in operation["/v1/chat/completions"]["description"]
    assert "an **admin key**" in operation["/config"]["description"]
    assert "from the machine itself" in operation["/metrics"]["description"]
    page = app.test_client().get("/docs").text
    assert "web_search_options" in page
    assert "Needs an <strong>admin key</strong>" in page


CONFIGURATION = "^/config"


@pytest.mark.parametrize(
    ("caller", "selection"),
    [
        ("anonymous", ()),
        ("client", ()),
        # Apart, since fuzzing the configuration disables the integration, and then 503 is the right answer elsewhere.
        ("admin", ("--exclude-path-regex", CONFIGURATION)),
        ("admin", ("--include-path-regex", CONFIGURATION)),
    ],
)
def test_schemathesis_finds_no_server_error(
    gateway: GatewayMaker, simulator: str, tmp_path: Path, caller: str, selection: tuple[str, ...]
) -> None:
    running = gateway(ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS="sk-ant-test", ANTHROPIC_API_BASE_URLS=simulator)
    key = {"client": CLIENT_KEY, "admin": ADMIN_KEY}.get(caller)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json"),
        *("--checks", "not_a_server_error", "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "20", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
        *selection,
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert "Server error" not in done.stdout, done.stdout[-6000:]
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert requests.get(f"{running.url}/healthz", timeout=5).ok
    assert "Traceback" not in running.log
