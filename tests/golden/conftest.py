"""`pytest tests/golden --update-goldens` writes what the code does now as what is expected; review the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite the expectations of the golden cases")


@pytest.fixture(scope="session")
def updates_goldens(request: pytest.FixtureRequest) -> bool:
    # Without this folder on the command line pytest reads this file too late to know the option.
    return bool(request.config.getoption("--update-goldens", default=False))
