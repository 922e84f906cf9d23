"""What becomes of each top-level field of a chat completion request, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import UntranslatableRequest, shown
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


_MAPPED = {
    "model": "Alias, provider prefix and dots in the version are taken off; unknown names go upstream as they are.",
    "messages": "System blocks and turns; see translate/messages.py.",
    "max_completion_tokens": "`max_tokens`, at most what the model can write.",
    "max_tokens": "The same; `max_completion_tokens` wins. Without either: the most the model can write.",
    "temperature": "Where the model takes it, at most 1; else told as `sampling_ignored`.",
    "top_p": "Where the model takes it, and not beside a temperature.",
    "top_k": "Where the model takes it; 0 and below mean off.",
    "n": "1 only, for now.",
    "response_format": "json_schema: `output_config.format`, or in words where Claude cannot enforce the "
    "schema (told as `schema_not_enforced`); json_object: in words. Prose around the JSON is stripped then.",
    "prompt_cache_retention": "How long an automatic breakpoint lasts: 24h is an hour, the longest there is.",
    "prompt_cache_options": "explicit: no automatic breakpoint; implicit: one; `ttl` as far as Claude has it.",
    "cache_control": "Anthropic's automatic breakpoint; on messages, parts and tools its explicit ones.",
    "stop": "`stop_sequences`; white space, which Claude refuses, is cut at by the gateway.",
    "stream": "Server-sent events.",
    "stream_options": "`include_usage`.",
    "tools": "Functions; names are altered reversibly where Claude refuses them. `strict` is not enforced yet.",
    "tool_choice": "none, auto, required or a function. Models that cannot be forced are asked for the arguments as "
    "structured output, or told in words (`forced_tool_emulated`).",
    "functions": "Tools, one call at a time; the answer has `function_call`.",
    "function_call": "`tool_choice`.",
    "parallel_tool_calls": "`disable_parallel_tool_use`.",
    "reasoning_effort": "`thinking` and `effort`, by what the model can.",
    "reasoning": "OpenRouter's form of the same: effort, max_tokens, exclude, enabled.",
    "thinking": "Anthropic's own form, adapted to what the model can.",
    "service_tier": "default, flex, scale: `standard_only`; auto, priority: `auto`.",
    "user": "`metadata.user_id`; hashed where it could name a person.",
    "safety_identifier": "The same; it wins.",
    "metadata": "Given back in the answer; its `user_id` is used where there is no `user`.",
}

FIELDS: Mapping[str, Field] = {
    **{name: Field("mapped", how) for name, how in _MAPPED.items()},
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
    "web_search_options": Field("later", "Web search is not translated yet."),
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
            notes.warn("unknown_field", name, f"The field {shown(name)} is not known to this gateway.")
        elif field.disposition in ("mapped", "ignored") or not field.applies(value):
            continue
        elif field.disposition == "warned":
            notes.warn(f"{name}_ignored", name, field.reason)
        else:
            raise UntranslatableRequest(field.reason, param=name, code=_CODES.get(name, "unsupported_parameter"))


_IN_WORDS: Mapping[Disposition, str] = {
    "mapped": "translated",
    "ignored": "ignored: it changes nothing",
    "warned": "ignored and told in `x-gateway-warnings`; 400 in strict mode",
    "rejected": "400",
    "later": "400, for now",
}


def compatibility_table() -> str:
    """The table of docs/compatibility.md."""
    rows = ["| field | what becomes of it | how, or why |", "|---|---|---|"]
    rows += [f"| `{name}` | {_IN_WORDS[f.disposition]} | {f.reason} |" for name, f in sorted(FIELDS.items())]
    rows.append("| any other | ignored and told as `unknown_field`; 400 in strict mode | OpenAI adds fields monthly. |")
    return "\n".join(rows)
