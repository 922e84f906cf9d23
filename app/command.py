"""How somebody on the gateway's machine types our command: it is in a virtual environment, and so not on the PATH."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from app.settings import ROOT

_USUAL = Path(".venv", "bin", "dragoman")


def command(*arguments: str) -> str:
    """With its full path."""
    return shlex.join([str(_program()), *arguments])


def command_in_our_folder(*arguments: str) -> str:
    """As it is typed in Dragoman's folder, for pages that strangers see too: our paths are none of their business."""
    program = _program()
    return shlex.join([str(program.relative_to(ROOT) if program.is_relative_to(ROOT) else program.name), *arguments])


def _program() -> Path:
    here = Path(sys.executable).parent.resolve() / "dragoman"
    return here if here.exists() else ROOT / _USUAL
