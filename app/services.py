"""What an application holds besides Flask's own: made in create_app(), reached with services()."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from app.settings import Settings
from app.storage.config import PersistentConfig
from app.storage.keys import KeyRing
from app.storage.secrets import Vault


@dataclass(frozen=True)
class Services:
    settings: Settings
    vault: Vault
    config: PersistentConfig
    keys: KeyRing


def services() -> Services:
    found: Services = current_app.extensions["dragoman"]
    return found
