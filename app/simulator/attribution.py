"""The line with which Claude Code says whose request it is. The API takes it out before anything else sees it."""

from typing import Any

MARK = "x-anthropic-billing-header:"


def without_attribution(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the attribution block; one that does not stand first in `system` is text like any other."""
    system = body.get("system")
    if not isinstance(system, list) or not system or not str(system[0].get("text")).startswith(MARK):
        return body
    return {**body, "system": system[1:]}
