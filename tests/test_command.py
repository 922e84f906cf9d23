"""How our command is typed: with the folder that the gateway was started with, and on pages without foreign paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.command import command, command_in_our_folder
from app.settings import ROOT, Settings


@pytest.mark.parametrize(
    ("folder", "anywhere", "in_our_folder"),
    [
        (ROOT / "instance", "", ""),
        (ROOT / "instance" / "demo", f"INSTANCE_PATH={ROOT / 'instance' / 'demo'} ", "INSTANCE_PATH=instance/demo "),
        (Path("/var/lib/my gate"), "INSTANCE_PATH='/var/lib/my gate' ", "INSTANCE_PATH=… "),
    ],
)
def test_a_command_begins_with_the_folder_that_is_not_the_usual_one(
    folder: Path, anywhere: str, in_our_folder: str
) -> None:
    settings = Settings(instance_path=folder)
    typed = command(settings, "keys", "list")
    assert typed.startswith(f"{anywhere}/")
    assert typed.endswith("/dragoman keys list")
    assert command_in_our_folder(settings, "keys", "list") == f"{in_our_folder}.venv/bin/dragoman keys list"
