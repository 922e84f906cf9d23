"""Whose language a request speaks where both APIs could be meant: OpenAI's or Anthropic's."""

from __future__ import annotations

from flask import request

_AGENTS = ("claude-code/", "claude-cli/")
_PAGING = frozenset({"limit", "after_id", "before_id"})


def is_anthropics() -> bool:
    """Before anything can fail: an error is told in the client's language."""
    path = request.path
    if path == "/v1/messages" or path.startswith(("/v1/messages/", "/api/")):
        return True
    if path == "/v1/models" or path.startswith("/v1/models/"):
        return asks_for_models_of_anthropic()
    return request.url_rule is None and _names_version()


def asks_for_models_of_anthropic() -> bool:
    """Both have `/v1/models`. Claude Code does not always say which version it wants."""
    agent: str = request.environ.get("HTTP_USER_AGENT", "")
    return _names_version() or agent.startswith(_AGENTS) or not _PAGING.isdisjoint(request.args)


def _names_version() -> bool:
    return "HTTP_ANTHROPIC_VERSION" in request.environ
