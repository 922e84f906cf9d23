"""Imports point one way: blueprints, then schemas, translate, upstream and storage; nothing points back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1] / "app"
FORBIDDEN = {
    "translate": ("flask", "anthropic", "httpx2", "sqlalchemy", "time", "random", "gevent", "app."),
    "upstream": ("flask", "sqlalchemy", "app.blueprints", "app.schemas", "app.services"),
    "storage": ("app.blueprints", "app.schemas", "app.services", "app.upstream", "app.translate", "anthropic"),
    "schemas": ("app.blueprints", "app.services", "app.upstream", "anthropic"),
    "simulator": ("flask", "anthropic", "gevent", "app."),
}
ALLOWED = {
    "translate": ("app.errors", "app.translate"),
    "simulator": ("app.simulator",),
}


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} - {"app"}
    return names


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p.rstrip(".") or name.startswith(p.rstrip(".") + ".") for p in prefixes)


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_nothing_from_above(layer: str) -> None:
    files = sorted((APP / layer).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(APP)} imports {name}"
        for file in files
        for name in sorted(imports_of(file))
        if starts_with(name, FORBIDDEN[layer]) and not starts_with(name, ALLOWED.get(layer, ()))
    ]
    assert wrong == []
