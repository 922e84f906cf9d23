"""Anthropic's own request fields, given by clients that want more than OpenAI's API can say.

https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/beta-headers
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.errors import UntranslatableRequest
from app.translate.facts import ModelFacts
from app.translate.native import COMPACTION_BETA, MCP_BETA
from app.translate.notes import Notes

CONTEXT_MANAGEMENT_BETA = "context-management-2025-06-27"
TASK_BUDGETS_BETA = "task-budgets-2026-03-13"
CACHE_DIAGNOSIS_BETA = "cache-diagnosis-2026-04-07"
FAST_MODE_BETA = "fast-mode-2026-02-01"
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BETA = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_NAMES: Mapping[Any, str] = {str: "a string", dict: "an object", list: "an array", (str, dict): "a string or an object"}
_PASSED: Mapping[str, Any] = {
    "container": (str, dict),
    "inference_geo": str,
    "context_management": dict,
    "mcp_servers": list,
    "diagnostics": dict,
}


def flattened(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A literal `extra_body` is what a client library should have unpacked; the top level's own fields win."""
    nested = request.get("extra_body")
    if nested is None:
        return request
    if not isinstance(nested, dict) or nested.get("extra_body") is not None:
        raise UntranslatableRequest(
            "extra_body must be an object, without another extra_body in it.",
            param="extra_body",
            code="invalid_type",
        )
    return {**nested, **{name: value for name, value in request.items() if name != "extra_body"}}


def to_extensions(request: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """The fields that go upstream as they are. Raises UntranslatableRequest for one of a wrong type."""
    passed: dict[str, Any] = {}
    for name, kind in _PASSED.items():
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise UntranslatableRequest(f"{name} must be {_NAMES[kind]}.", param=name, code="invalid_type")
        passed[name] = value
    if "context_management" in passed:
        notes.need_beta(CONTEXT_MANAGEMENT_BETA)
        edits = passed["context_management"].get("edits")
        if any(isinstance(e, dict) and str(e.get("type", "")).startswith("compact") for e in _items(edits)):
            notes.need_beta(COMPACTION_BETA)
    if "mcp_servers" in passed:
        notes.need_beta(MCP_BETA)
    if "diagnostics" in passed:
        notes.need_beta(CACHE_DIAGNOSIS_BETA)
    return passed


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def to_speed(request: Mapping[str, Any], facts: ModelFacts, notes: Notes) -> str | None:
    """`speed: "fast"`, or OpenAI's `service_tier: "fast"`, on models that have it."""
    speed = request.get("speed")
    if speed not in (None, "standard", "fast"):
        raise UntranslatableRequest("speed must be 'standard' or 'fast'.", param="speed", code="invalid_value")
    param = "speed" if speed else "service_tier"
    if speed != "fast" and request.get("service_tier") != "fast":
        return None
    if not facts.fast_mode:
        notes.warn(f"{param}_ignored", param, f"{facts.id} has no fast mode.")
        return None
    if not facts.bound_thinking:
        notes.need_beta(FAST_MODE_BETA)  # on models of before September 2026 it is still being tried out
    return "fast"


def to_output_config(request: Mapping[str, Any], made: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """What the gateway made, with the client's own output_config merged into it; the client's wins."""
    own = request.get("output_config")
    if own is None:
        return made
    if not isinstance(own, dict):
        raise UntranslatableRequest("output_config must be an object.", param="output_config", code="invalid_type")
    if own.get("task_budget") is not None:
        notes.need_beta(TASK_BUDGETS_BETA)
    return _merged(made, own)


def _merged(made: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(made)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return {name: value for name, value in merged.items() if value is not None}


def to_version(request: Mapping[str, Any]) -> str | None:
    """The API version that the client itself asks for."""
    version = request.get("anthropic_version")
    if version is None:
        return None
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise UntranslatableRequest(
            "anthropic_version must be a date such as 2023-06-01.", param="anthropic_version", code="invalid_value"
        )
    return version


def to_betas(request: Mapping[str, Any], header: str, notes: Notes) -> str:
    """The value of the header `anthropic-beta`: the client's, by field or header, and what the request needs."""
    asked = request.get("anthropic_beta")
    entries = asked.split(",") if isinstance(asked, str) else asked
    if not isinstance(entries, list | None) or not all(isinstance(entry, str) for entry in entries or ()):
        raise UntranslatableRequest(
            "anthropic_beta must be a string or an array of strings.", param="anthropic_beta", code="invalid_type"
        )
    names = [name for entry in (*(entries or ()), *header.split(",")) if (name := entry.strip())]
    wrong = next((name for name in names if _BETA.fullmatch(name) is None), None)
    if wrong is not None:
        raise UntranslatableRequest(
            "anthropic_beta holds what is no name of a beta feature.", param="anthropic_beta", code="invalid_value"
        )
    return ",".join(dict.fromkeys([*names, *notes.betas]))
