"""What an application holds besides Flask's own: made in create_app(), reached with services()."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask, current_app

from app.settings import Settings
from app.storage.books import Books
from app.storage.config import ConfigSnapshot, PersistentConfig
from app.storage.keys import KeyRing
from app.storage.remembered import RememberedAnswers
from app.storage.secrets import Vault

if TYPE_CHECKING:
    from app.upstream.catalogue import Catalogue
    from app.upstream.pool import Pool


@dataclass(frozen=True)
class Services:
    settings: Settings
    vault: Vault
    config: PersistentConfig
    keys: KeyRing
    answers: RememberedAnswers
    books: Books


def this_app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    return app


def services() -> Services:
    found: Services = current_app.extensions["dragoman"]
    return found


@dataclass(frozen=True)
class Upstream:
    """The way to Anthropic; apart from Services, since the command line does without and the SDK is slow to import."""

    pool: Pool
    catalogue: Catalogue

    def follow(self, snapshot: ConfigSnapshot) -> None:
        """Call it at each change of the configuration, and now and then."""
        self.pool.follow(snapshot.connections)
        self.catalogue.follow(snapshot)


def upstream() -> Upstream:
    found: Upstream = current_app.extensions["dragoman.upstream"]
    return found
