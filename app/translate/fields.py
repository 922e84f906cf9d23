"""What becomes of each top-level field of a chat completion request, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import UntranslatableRequest
from app.translate.notes import Notes

Disposition = Literal["mapped", "ignored", "warned", "rejected", "later"]


def _always(value: Any) -> bool:
    return value is not None


@dataclass(frozen=True)
class Field:
    """`applies` says for which values a warned, rejected or later field is one; for others it is ignored."""

    disposition: Disposition
    reason: str
    applies: Callable[[Any], bool] = _always


def _non_zero(value: Any) -> bool:
    return bool(value)


_MAPPED = (
    "model", "messages", "max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "stream",
    "stream_options", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "reasoning", "thinking",
    "service_tier", "user", "safety_identifier", "metadata",
)  # fmt: skip

FIELDS: Mapping[str, Field] = {
    **{name: Field("mapped", "") for name in _MAPPED},
    "prediction": Field("ignored", "It only makes an answer faster."),
    "prompt_cache_key": Field("ignored", "Anthropic's prompt cache needs no key."),
    "store": Field("warned", "Nothing is stored.", _non_zero),
    "seed": Field("warned", "Claude has no seed."),
    "presence_penalty": Field("warned", "Claude has no presence penalty.", _non_zero),
    "frequency_penalty": Field("warned", "Claude has no frequency penalty.", _non_zero),
    "logit_bias": Field("warned", "Claude has no logit bias.", _non_zero),
    "verbosity": Field("warned", "Claude has no verbosity.", lambda v: v not in (None, "medium")),
    "moderation": Field("warned", "Claude has its own safety stop."),
    "logprobs": Field("rejected", "Claude gives no log probabilities.", _non_zero),
    "top_logprobs": Field("rejected", "Claude gives no log probabilities.", _non_zero),
    "audio": Field("rejected", "This gateway cannot produce audio."),
    "modalities": Field(
        "rejected",
        'This gateway cannot produce audio; modalities must be ["text"].',
        lambda v: v not in (None, ["text"]),
    ),
    "response_format": Field(
        "later", "Structured output is not translated yet.", lambda v: v not in (None, {"type": "text"})
    ),
    "functions": Field("later", "Use tools; the older functions are not translated yet."),
    "function_call": Field("later", "Use tool_choice; the older function_call is not translated yet."),
    "web_search_options": Field("later", "Web search is not translated yet."),
    "prompt_cache_retention": Field("later", "Prompt caching is not translated yet."),
    "prompt_cache_options": Field("later", "Prompt caching is not translated yet."),
    "cache_control": Field("later", "Prompt caching is not translated yet."),
    "output_config": Field("later", "Anthropic's output_config is not passed on yet."),
    "container": Field("later", "Containers are not passed on yet."),
    "context_management": Field("later", "Context management is not passed on yet."),
    "mcp_servers": Field("later", "MCP servers are not passed on yet."),
    "inference_geo": Field("later", "inference_geo is not passed on yet."),
    "speed": Field("later", "Fast mode is not passed on yet."),
    "extra_body": Field("later", "A nested extra_body is not flattened yet; put its fields at the top level."),
    "anthropic_beta": Field("later", "Beta headers are not passed on yet."),
    "anthropic_version": Field("later", "The API version is chosen by the gateway."),
    "extra_headers": Field("ignored", "A client does not choose the headers that go upstream."),
}
_CODES = {"modalities": "unsupported_value"}


def check_fields(request: Mapping[str, Any], notes: Notes) -> None:
    """Raises UntranslatableRequest for what is refused, and notes what is left out."""
    for name, value in request.items():
        field = FIELDS.get(name)
        if field is None:
            notes.warn("unknown_field", name, f"The field {name!r} is not known to this gateway.")
        elif field.disposition in ("mapped", "ignored") or not field.applies(value):
            continue
        elif field.disposition == "warned":
            notes.warn(f"{name}_ignored", name, field.reason)
        else:
            raise UntranslatableRequest(field.reason, param=name, code=_CODES.get(name, "unsupported_parameter"))
