"""A simulator that answers with the recordings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.recordings.recorded import FOLDER


@pytest.fixture(scope="module")
def replaying() -> Iterator[str]:
    command = [sys.executable, "-m", "app.cli", "simulator", "--port", "0", "--replay", str(FOLDER)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield line[line.index("http") :].split()[0].rstrip("/")
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
