"""Imports point one way: pages and blueprints, then access and serve, then schemas, translate, upstream and storage.

Nothing points back, and no two rooms lean on each other.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1] / "app"
MAY_USE = {
    "pages": {"access", "blueprints", "schemas", "serve", "services", "storage", "translate", "upstream"},
    "blueprints": {"access", "money", "schemas", "serve", "services", "storage", "translate", "upstream"},
    "access": {"services", "storage"},
    "serve": {"services", "storage", "upstream"},
    "services": {"storage", "upstream"},
    "schemas": {"translate"},
    "reconcile": {"money", "services", "storage", "upstream"},
    "upstream": {"money", "storage", "translate"},
    "storage": {"money"},
    "translate": set(),
    "money": set(),
    "simulator": set(),
}
"""Of our own, beside itself and what has no rooms of its own: settings, errors, extensions, command, turns, version."""
GROUND = {"settings", "errors", "extensions", "command", "turns", "version"}
FOREIGN_WORLDS = {
    "translate": ("flask", "anthropic", "httpx2", "sqlalchemy", "time", "random", "gevent"),
    "upstream": ("flask", "sqlalchemy"),
    "storage": ("anthropic",),
    "schemas": ("anthropic",),
    "money": ("flask", "anthropic", "httpx2", "sqlalchemy", "time", "random", "gevent"),
    "simulator": ("flask", "anthropic", "gevent"),
}
STANDS_ALONE = {"translate": {"errors"}, "money": set(), "simulator": set()}
"""Rooms that do without most of the ground, too."""


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"app.{alias.name}" for alias in node.names} if node.module == "app" else {node.module}
    return names


def files_of(room: str) -> list[Path]:
    files = sorted((APP / room).rglob("*.py")) if (APP / room).is_dir() else [APP / f"{room}.py"]
    assert files
    return files


def test_every_room_is_in_the_plan() -> None:
    rooms = {path.name for path in APP.iterdir() if path.is_dir() and path.name != "__pycache__"}
    modules = {path.stem for path in APP.glob("*.py")}
    assert rooms | modules == MAY_USE.keys() | GROUND | {"__init__", "cli"}


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_imports_nothing_from_above(room: str) -> None:
    allowed = MAY_USE[room] | {room} | STANDS_ALONE.get(room, GROUND)
    wrong = [
        f"{file.relative_to(APP)} imports {name}"
        for file in files_of(room)
        for name in sorted(imports_of(file))
        if name.partition(".")[0] == "app" and name.split(".")[1] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_rests_on_itself(module: str) -> None:
    ours = {name for name in imports_of(APP / f"{module}.py") if name.partition(".")[0] == "app"}
    assert {name.split(".")[1] for name in ours} <= GROUND


@pytest.mark.parametrize("room", FOREIGN_WORLDS)
def test_a_room_does_without_what_is_not_its_own(room: str) -> None:
    wrong = [
        f"{file.relative_to(APP)} imports {name}"
        for file in files_of(room)
        for name in sorted(imports_of(file))
        if name.partition(".")[0] in FOREIGN_WORLDS[room]
    ]
    assert wrong == []


def test_what_is_claudes_own_does_not_know_who_asks() -> None:
    languages = ("app.translate.chat",)
    wrong = [
        f"{file.name} imports {name}"
        for file in sorted((APP / "translate").glob("*.py"))
        for name in sorted(imports_of(file))
        if name.startswith(languages)
    ]
    assert wrong == []
