"""Which models there are, what each accepts, and how `GET /v1/models` describes them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

DATA_FILE = Path(__file__).resolve().parent.parent / "models.json"
CLAUDE_IN_GENERAL = "claude-opus-4-6"
"""Stands in for a Claude model that the data file does not know (`find(..., known_only=False)`)."""
EPOCH = "1970-01-01"
DEPRECATED_ON = "2026-06-01"
"""A day for all deprecated models: the data file does not know theirs, and the API always gives one."""
THINKING_TYPES = ("adaptive", "between_tools", "disabled", "enabled")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
SIM_PREFIX = "sim-"


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of models.json; its keys are described there by name. `id` is what the API calls the model."""

    id: str
    display_name: str
    aliases: tuple[str, ...]
    line: str | None
    created: str | None
    lifecycle: str
    retires_at: str | None
    max_input_tokens: int
    max_tokens: int
    thinking: tuple[str, ...]
    thinking_default: str
    display_default: str
    default_effort: str | None
    effort: tuple[str, ...]
    sampling: bool
    prefill: bool
    forced_tool: bool
    mid_system: bool
    cache_minimum: int
    bound_thinking: bool
    fast_mode: bool
    strict: bool = True
    """False for a model we know nothing of: rules that differ from model to model are then not applied."""

    @property
    def family(self) -> str:
        """What thinking blocks are signed for: the id without its snapshot date."""
        head, _, tail = self.id.rpartition("-")
        return head if len(tail) == 8 and tail.isdigit() else self.id

    @property
    def account_bound_thinking(self) -> bool:
        """Sonnet and Haiku of the 5.5 generation take thinking blocks back only from the account that got them."""
        return self.bound_thinking and self.line in ("sonnet", "haiku")

    @property
    def one_of_temperature_and_top_p(self) -> bool:
        return self.sampling and self.line is not None


def _model(model_id: str, facts: dict[str, Any]) -> Model:
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return Model(id=model_id, **known)


SIM_MODEL = Model(
    id="sim",
    display_name="Simulator",
    aliases=(),
    line=None,
    created="1970-01-01",  # older than any Claude: where a list is sorted by age, the real names come first
    lifecycle="active",
    retires_at=None,
    max_input_tokens=1_000_000,
    max_tokens=128_000,
    thinking=("adaptive", "disabled", "enabled"),
    thinking_default="off",
    display_default="summarized",
    default_effort="high",
    effort=EFFORTS,
    sampling=True,
    prefill=True,
    forced_tool=True,
    mid_system=True,
    cache_minimum=1024,
    bound_thinking=False,
    fast_mode=True,
)
"""What a `sim-…` model accepts: everything, so that a scenario is never in the way of what is being tested."""

FLAGS = {
    "forced_tool": "forced_tool",
    "mid_system": "mid_system",
    "prefill": "prefill",
    "sampling": "sampling",
    "bound": "bound_thinking",
}


def _varied(name: str) -> Model:
    """The model of a scenario; parameters of its name alter what it accepts.

    sim-tool-use:forced_tool=0      cannot be forced; likewise mid_system, prefill, sampling
    sim-thinking:bound=1            its thinking is bound to the conversation
    sim-text:adaptive=0,xhigh=0     lacks a type of thinking and a level of effort; effort=0: all levels
    """
    pairs = [pair.split("=") for pair in name.partition(":")[2].split(",") if "=" in pair]
    flags: dict[str, Any] = {FLAGS[key]: value == "1" for key, value in pairs if key in FLAGS}
    lacking = {key for key, value in pairs if value == "0"}
    return replace(
        SIM_MODEL,
        id=name,
        display_name=_title(name),
        thinking=tuple(kind for kind in SIM_MODEL.thinking if kind not in lacking),
        effort=tuple(level for level in SIM_MODEL.effort if not lacking & {level, "effort"}),
        **flags,
    )


@dataclass(frozen=True)
class Catalogue:
    """All models by id and alias, newest first."""

    models: tuple[Model, ...]
    retired: tuple[str, ...]
    names: dict[str, Model]

    def find(self, name: str, known_only: bool = True) -> Model | None:
        """The model called `name`, or None. `known_only=False` lets retired and unknown Claude models through."""
        if found := self.names.get(name):
            return found
        if name.startswith(SIM_PREFIX):
            return _varied(name)
        if not known_only and name.startswith(self.retired):
            return replace(self.names[CLAUDE_IN_GENERAL], id=name, display_name=_title(name), strict=False)
        return None

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()


@cache
def catalogue(sim_names: tuple[str, ...] = ()) -> Catalogue:
    """The models of models.json, and one `sim-…` model for each scenario that is to be listed. Any other scenario is
    found by its name all the same."""
    data = json.loads(DATA_FILE.read_text(encoding="utf-8"))
    claude = [_model(model_id, facts) for model_id, facts in data["models"].items()]
    claude.sort(key=lambda model: model.created or EPOCH, reverse=True)
    simulated = [replace(SIM_MODEL, id=name, display_name=_title(name)) for name in sim_names]
    models = (*claude, *simulated)
    names = {name: model for model in models for name in (model.id, *model.aliases)}
    return Catalogue(models, tuple(data["retired"]), names)


def model_info(model: Model) -> dict[str, Any]:
    """The model as `GET /v1/models` gives it: https://docs.anthropic.com/en/api/models-list."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": _timestamp(model.created or EPOCH),
        "lifecycle": model.lifecycle,
        "deprecated_at": _timestamp(DEPRECATED_ON) if model.lifecycle == "deprecated" else None,
        "retires_at": _timestamp(model.retires_at) if model.retires_at else None,
        "line": model.line,
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_tokens,
        "capabilities": _capabilities(model),
    }


def _capabilities(model: Model) -> dict[str, Any]:
    yes, no = _supported(True), _supported(False)
    thinking_types = {kind: _supported(kind in model.thinking) for kind in THINKING_TYPES}
    return {
        "batch": yes,
        "citations": yes,
        "code_execution": _supported(bool(model.effort)),
        "context_management": {
            "supported": True,
            "clear_thinking_20251015": yes,
            "clear_tool_uses_20250919": yes,
            "compact_20260112": yes if model.max_input_tokens > 200_000 else no,
        },
        "effort": {"supported": bool(model.effort), **{level: _supported(level in model.effort) for level in EFFORTS}},
        "image_input": yes,
        "pdf_input": yes,
        "server_tools": {"supported": True, "web_search": yes, "code_execution": yes},
        "structured_outputs": yes,
        "thinking": {"supported": True, "types": thinking_types},
    }


def _supported(value: bool) -> dict[str, bool]:
    return {"supported": value}


def _timestamp(day: str) -> str:
    return f"{day}T00:00:00Z"
