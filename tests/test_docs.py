"""The documents say what the program does: their tables are the ones that the program makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from app.settings import settings_table
from app.translate.chat.compatibility import TABLES
from app.translate.warnings import AT_THE_HEAD

ROOT = Path(__file__).resolve().parents[1]


def section(document: str, name: str) -> str:
    text = (ROOT / document).read_text()
    match = re.search(rf"<!-- {name}: .*? -->\n(.*?)\n?<!-- end of {name} -->", text, re.DOTALL)
    assert match, f"{document} has no section {name}"
    return match[1]


def test_readme_lists_every_setting_with_its_default() -> None:
    assert section("README.md", "settings") == settings_table()


@pytest.mark.parametrize("table", TABLES)
def test_compatibility_lists_what_the_translation_goes_by(table: str) -> None:
    assert section("docs/compatibility.md", table) == TABLES[table]()


def test_readme_quotes_the_benchmark_as_it_was_measured() -> None:
    quoted = [line for line in section("README.md", "benchmark").splitlines() if line.startswith("|")]
    assert len(quoted) > 10
    measured = (ROOT / "bench" / "README.md").read_text().splitlines()
    assert [line for line in quoted if line not in measured] == []


def test_readme_names_every_route_of_the_api(app: Flask) -> None:
    text = (ROOT / "README.md").read_text()
    routes = {
        rule.rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(("/static", "/admin", "/setup"))
    }
    missing = [
        route
        for route in routes - {"/", "/v1/models/<path:model>"}
        if f"{route}`" not in text and f"{route} " not in text
    ]
    assert missing == []


@pytest.mark.parametrize(
    "document", ["README.md", "SECURITY.md", "docs/clients.md", "docs/deploy.md", "docs/threat-model.md"]
)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
        assert (ROOT / document).parent.joinpath(target).exists(), target


def test_every_warning_that_the_translation_gives_is_explained() -> None:
    given = set()
    for file in (ROOT / "app" / "translate").rglob("*.py"):
        given |= set(re.findall(r'\.warn\(\s*"([a-z_]+)"', file.read_text()))
    declared = {
        code for code in AT_THE_HEAD if code not in ("schema_map_lossy", "schema_not_enforced", "schema_too_complex")
    }
    assert given == declared  # the three are codes of Inexpressible
