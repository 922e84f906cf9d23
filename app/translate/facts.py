"""What the translation must know of a model: which parameters it takes and how much it can write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MOST_TOKENS = 10**9
"""What a model says it takes or writes beyond that is nonsense."""
_SNAPSHOT_DATE = re.compile(r"-\d{8}$")


@dataclass(frozen=True)
class ModelFacts:
    """The defaults are those of the newest generation: what it refuses, older models can do without.

    `thinking` holds the types of the `thinking` parameter, `effort` the levels in rising order, `thinking_default`
    what happens when nothing is sent (off, on, always), `max_tokens` the most output (None: not known).
    """

    id: str
    display_name: str = ""
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    thinking: frozenset[str] = frozenset({"adaptive"})
    thinking_default: str = "always"
    effort: tuple[str, ...] = ("low", "medium", "high", "xhigh", "max")
    sampling: bool = False
    prefill: bool = False
    forced_tool: bool = False
    mid_system: bool = False
    structured_outputs: bool = True
    web_search: bool = True
    bound_thinking: bool = False
    """Thinking blocks are bound to what stood before them."""
    fast_mode: bool = False

    @property
    def thinks_by_default(self) -> bool:
        return self.thinking_default != "off"

    @property
    def family(self) -> str:
        return family_of(self.id)


def family_of(model: str) -> str:
    """The id without the date of its snapshot: thinking blocks are good for all snapshots of a model."""
    return _SNAPSHOT_DATE.sub("", model)


def facts_for(model: str, overlay: Mapping[str, Mapping[str, Any]]) -> ModelFacts:
    """The overlay's facts of `model`, by id or alias, with or without the date of a snapshot."""
    for name in (model, family_of(model)):
        entry = overlay.get(name) or next((e for e in overlay.values() if name in e["aliases"]), None)
        if entry is not None:
            return _from_overlay(model, entry)
    return ModelFacts(model, display_name=model)


def _from_overlay(model: str, entry: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(
        id=model,
        display_name=entry["display_name"],
        max_input_tokens=entry["max_input_tokens"],
        max_tokens=entry["max_tokens"],
        thinking=frozenset(entry["thinking"]),
        thinking_default=entry["thinking_default"],
        effort=tuple(entry["effort"]),
        sampling=entry["sampling"],
        prefill=entry["prefill"],
        forced_tool=entry["forced_tool"],
        mid_system=entry["mid_system"],
        bound_thinking=entry["bound_thinking"],
        fast_mode=entry["fast_mode"],
    )


def with_upstream(facts: ModelFacts, info: Mapping[str, Any]) -> ModelFacts:
    """The facts corrected by a model object of Anthropic's `GET /v1/models`; null fields leave them as they are.

    https://docs.anthropic.com/en/api/models-list
    """
    known: dict[str, Any] = {}
    if isinstance(info.get("display_name"), str) and info["display_name"]:
        known["display_name"] = info["display_name"]
    for name in ("max_input_tokens", "max_tokens"):
        if type(info.get(name)) is int and 0 < info[name] <= MOST_TOKENS:
            known[name] = info[name]
    capabilities = _object(info.get("capabilities"))
    types = _object(_object(capabilities.get("thinking")).get("types"))
    if types:
        known["thinking"] = frozenset(t for t, entry in types.items() if _supported(entry))
    effort = _object(capabilities.get("effort"))
    if effort:
        levels = ("low", "medium", "high", "xhigh", "max")
        known["effort"] = tuple(e for e in levels if _supported(effort.get(e))) if _supported(effort) else ()
    if capabilities.get("structured_outputs"):
        known["structured_outputs"] = _supported(capabilities["structured_outputs"])
    server_tools = _object(capabilities.get("server_tools"))
    if server_tools.get("web_search"):
        known["web_search"] = _supported(server_tools["web_search"])
    return replace(facts, **known)


FLAGS = (
    *("sampling", "prefill", "forced_tool", "mid_system", "structured_outputs"),
    *("web_search", "bound_thinking", "fast_mode"),
)


def with_operator(facts: ModelFacts, entry: Mapping[str, Any]) -> ModelFacts:
    """The facts as an entry of ANTHROPIC_MODELS says; what it does not name stays as it is."""
    known: dict[str, Any] = {name: entry[name] for name in FLAGS if isinstance(entry.get(name), bool)}
    if entry.get("name"):
        known["display_name"] = entry["name"]
    if entry.get("max_tokens"):
        known["max_tokens"] = entry["max_tokens"]
    return replace(facts, **known)


def _object(value: Any) -> Mapping[str, Any]:
    """Servers that imitate the API may send anything."""
    return value if isinstance(value, dict) else {}


def _supported(entry: Any) -> bool:
    return bool(_object(entry).get("supported"))
