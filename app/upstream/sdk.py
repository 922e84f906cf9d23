"""Anthropic's SDK without what it takes from the environment by itself."""

from __future__ import annotations

from typing import Any

import anthropic

from app.settings import hidden_from_libraries


def new_sdk(**options: Any) -> anthropic.Anthropic:
    """A client that sends what `options` say and nothing else. They name the credential and the base URL, or the SDK
    would look for those in the environment as well."""
    # Set for Claude Code, say: headers for all requests, credentials of somebody else's among them.
    with hidden_from_libraries("ANTHROPIC_CUSTOM_HEADERS"):
        return anthropic.Anthropic(**options)
