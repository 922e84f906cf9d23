"""How somebody on the gateway's machine types our command: it is in a virtual environment, and so not on the PATH."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from app.settings import ROOT, Settings

_USUAL = Path(".venv", "bin", "dragoman")


def command(settings: Settings, *arguments: str) -> str:
    """With full paths, as it can be typed anywhere."""
    place = shlex.quote(str(settings.instance_path.resolve()))
    return _prefix(settings, place) + shlex.join([str(_program()), *arguments])


def command_in_our_folder(settings: Settings, *arguments: str) -> str:
    """As it is typed in Dragoman's folder, for pages that strangers see too: paths elsewhere are none of their
    business."""
    folder, program = settings.instance_path.resolve(), _program()
    place = shlex.quote(str(folder.relative_to(ROOT))) if folder.is_relative_to(ROOT) else "…"
    typed = shlex.join([str(program.relative_to(ROOT) if program.is_relative_to(ROOT) else program.name), *arguments])
    return _prefix(settings, place) + typed


def _prefix(settings: Settings, place: str) -> str:
    """A command without it would look after another gateway's data."""
    return "" if settings.instance_path.resolve() == ROOT / "instance" else f"INSTANCE_PATH={place} "


def _program() -> Path:
    here = Path(sys.executable).parent.resolve() / "dragoman"
    return here if here.exists() else ROOT / _USUAL
