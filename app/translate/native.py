"""Anthropic's own content blocks, given by clients that mix both formats: passed through where they are well formed.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import UntranslatableRequest
from app.translate.notes import Notes

FILES_BETA = "files-api-2025-04-14"
MCP_BETA = "mcp-client-2025-11-20"
COMPACTION_BETA = "compact-2026-01-12"

_SERVER_RESULTS = (
    *("web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result"),
    *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
)
SERVER_CALLS = ("server_tool_use", "mcp_tool_use")
THINKING = ("thinking", "redacted_thinking")

# What each must hold, by the type of its value. What else it holds is the API's to judge.
_REQUIRED: Mapping[str, Mapping[str, type]] = {
    "image": {"source": dict},
    "document": {"source": dict},
    "search_result": {"source": str, "title": str, "content": list},
    "thinking": {"thinking": str, "signature": str},
    "redacted_thinking": {"data": str},
    "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"tool_use_id": str},
    "server_tool_use": {"id": str, "name": str, "input": dict},
    "mcp_tool_use": {"id": str, "name": str, "input": dict, "server_name": str},
    "mcp_tool_result": {"tool_use_id": str},
    "container_upload": {"file_id": str},
    "compaction": {},
    **{kind: {"tool_use_id": str} for kind in _SERVER_RESULTS},
}
IN_USER = ("image", "document", "search_result", "tool_result", "container_upload")
IN_ASSISTANT = (*THINKING, "tool_use", *SERVER_CALLS, "mcp_tool_result", "compaction", *_SERVER_RESULTS)
_BETAS = {
    "mcp_tool_use": MCP_BETA,
    "mcp_tool_result": MCP_BETA,
    "compaction": COMPACTION_BETA,
    "container_upload": FILES_BETA,
}
_NEVER_EMPTY = ("signature", "data")
_NOT_ITS_OWN = ("cache_control", "prompt_cache_breakpoint", "index", "partial_json")
_NAMES: Mapping[Any, str] = {str: "a string", dict: "an object", list: "an array"}


def to_native_block(part: Mapping[str, Any], path: str, notes: Notes) -> dict[str, Any]:
    """A copy of `part` without its breakpoint, which is checked elsewhere, and what LangChain leaves of a stream.

    Raises UntranslatableRequest for one that lacks what its type needs.
    """
    for name, kind in _REQUIRED[part["type"]].items():
        if not isinstance(part.get(name), kind) or (name in _NEVER_EMPTY and not part[name]):
            raise UntranslatableRequest(
                f"{path}.{name} must be {_NAMES[kind]} in a part of type {part['type']!r}.",
                param=f"{path}.{name}",
                code="invalid_type" if part.get(name) else "missing_required_parameter",
            )
    source = part.get("source")
    if isinstance(source, dict) and not isinstance(source.get("type"), str):
        param = f"{path}.source.type"
        raise UntranslatableRequest(f"{param} must be a string.", param=param, code="missing_required_parameter")
    note_betas(part, notes)
    return {name: value for name, value in part.items() if name not in _NOT_ITS_OWN}


def is_well_formed(block: Mapping[str, Any]) -> bool:
    """Whether it holds what its type needs, thinking its signature."""
    required = _REQUIRED.get(block.get("type", ""))
    if required is None or not all(isinstance(block.get(name), kind) for name, kind in required.items()):
        return False
    return all(block.get(name, True) for name in _NEVER_EMPTY)


def note_betas(block: Mapping[str, Any], notes: Notes) -> None:
    """What a block needs in the header `anthropic-beta`."""
    if block["type"] in _BETAS:
        notes.need_beta(_BETAS[block["type"]])
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "file":
        notes.need_beta(FILES_BETA)
