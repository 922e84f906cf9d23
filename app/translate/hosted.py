"""What a request has Anthropic run, or fetch, or keep for it: tools of its own, MCP servers, containers and files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TOOLS = re.compile(r"(?:web_search|web_fetch|code_execution)_|mcp_toolset")


def hosted_fields(body: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a request for the Messages API that ask for it, but for files."""
    for field in ("mcp_servers", "container"):
        if body.get(field):
            yield field
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and _TOOLS.match(kind):
            yield f"tools.{index}"
