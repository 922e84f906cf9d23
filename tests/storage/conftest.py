"""Applications without routes, on SQLite and PostgreSQL: a test that takes one of these runs on both."""

import pytest


@pytest.fixture
def make(make_storage_app, either_database):
    """Called twice it is two processes' worth on the same database."""

    def make(**values):
        return make_storage_app(**{**either_database, **values})

    return make


@pytest.fixture
def app(make):
    return make()
