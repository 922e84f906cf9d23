"""What becomes of each top-level field of a chat completion request, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import UntranslatableRequest, shown
from app.translate.notes import Notes

Disposition = Literal["mapped", "ignored", "warned", "rejected"]


def _always(value: Any) -> bool:
    return value is not None


def _non_zero(value: Any) -> bool:
    return bool(value)


@dataclass(frozen=True)
class Field:
    """`applies` says for which values a field is what its disposition says; for others it is ignored. `sent_as` are the
    paths in Anthropic's request that a mapped one may end up at; with `in_one` only at the first that is there."""

    disposition: Disposition
    reason: str
    applies: Callable[[Any], bool] = _always
    sent_as: tuple[str, ...] = ()
    in_one: bool = False


def _mapped(how: str, *sent_as: str, in_one: bool = False, applies: Callable[[Any], bool] = _always) -> Field:
    return Field("mapped", how, applies, sent_as, in_one)


_THINKS = ("thinking", "output_config.effort")

FIELDS: Mapping[str, Field] = {
    "model": _mapped(
        "Alias, provider prefix and dots in the version are taken off; unknown names go upstream as they are.", "model"
    ),
    "system": _mapped("Anthropic's own: a string or text blocks, before the system messages.", "system", applies=bool),
    "messages": _mapped("System blocks and turns: see the table of content parts.", "system", "messages"),
    "max_completion_tokens": _mapped("`max_tokens`, at most what the model can write.", "max_tokens"),
    "max_tokens": _mapped(
        "`max_tokens`; `max_completion_tokens` wins over it. Without either: the most the model can write. Where no "
        "effort is asked for, below 1,024 no thinking where the model can leave it off; below 2,048 a model that "
        "thinks by itself does so with effort low: thinking would take what the answer needs.",
        "max_tokens",
    ),
    "temperature": _mapped(
        "Where the model takes it, at most 1 (`temperature_clamped`); else told as `sampling_ignored`.", "temperature"
    ),
    "top_p": _mapped("Where the model takes it, and not beside a temperature other than 1.", "top_p"),
    "top_k": _mapped("Where the model takes it; 0 and below mean off.", "top_k"),
    "n": _mapped(
        "Up to 8: that many requests to Anthropic over one connection, the usage added up.",
        applies=lambda v: v != 1,
    ),
    "response_format": _mapped(
        "json_schema: `output_config.format`, or in words where Claude cannot enforce the schema (told); json_object: "
        "in words. Prose around the JSON is stripped then. Lengths and ranges, which Claude cannot enforce, move into "
        "the descriptions.",
        "output_config.format",
        "system",
        in_one=True,
        applies=lambda v: not isinstance(v, dict) or v.get("type") != "text",
    ),
    "prompt_cache_retention": _mapped(
        "How long an automatic breakpoint lasts: 24h is an hour, the longest there is.", "cache_control"
    ),
    "prompt_cache_options": _mapped(
        "explicit: no automatic breakpoint; implicit: one, but for a lone question; `ttl` as far as Claude has it.",
        "cache_control",
    ),
    "prompt_cache_key": _mapped(
        "Anthropic's cache needs no key; with `PROMPT_CACHE=auto` it asks for a breakpoint.", "cache_control"
    ),
    "cache_control": _mapped(
        "Anthropic's automatic breakpoint; on messages, parts and tools its explicit ones.", "cache_control"
    ),
    "stop": _mapped("`stop_sequences`; white space, which Claude refuses, is cut at by the gateway.", "stop_sequences"),
    "stop_sequences": _mapped("Anthropic's own name of `stop`; both are joined.", "stop_sequences"),
    "stream": _mapped("Server-sent events.", "stream"),
    "stream_options": _mapped("`include_usage`."),
    "tools": _mapped("Functions, custom tools, web search and Anthropic's own tools: see the table of tools.", "tools"),
    "tool_choice": _mapped(
        "none, auto, required, a function, a custom tool, allowed tools; in Anthropic's form and that of OpenAI's "
        "Responses API, too. Models that cannot be forced are asked for "
        "the arguments as structured output, or told in words and asked once more (`forced_tool_emulated`).",
        "tool_choice",
        "output_config.format",
        "system",
        in_one=True,
    ),
    "functions": _mapped("Tools, one call at a time; the answer has `function_call`.", "tools", "tool_choice"),
    "function_call": _mapped("`tool_choice`.", "tool_choice"),
    "parallel_tool_calls": _mapped("`disable_parallel_tool_use`.", "tool_choice"),
    "reasoning_effort": _mapped(
        "`thinking` and `effort`, by what the model can. Without it, below `max_tokens` 1,024, no thinking where the "
        "model can leave it off: nothing would be left for the answer.",
        *_THINKS,
    ),
    "reasoning": _mapped("OpenRouter's form of `reasoning_effort`: effort, max_tokens, exclude, enabled.", *_THINKS),
    "thinking": _mapped("Anthropic's own form, adapted where the model does not take it.", *_THINKS),
    "enable_thinking": _mapped(
        "false: no thinking, where no effort is asked for (`reasoning_effort: none`).", *_THINKS
    ),
    "chat_template_kwargs": _mapped("`enable_thinking` in it, as at the top level.", *_THINKS),
    "service_tier": _mapped(
        "default, flex, scale, standard_only: `standard_only`; auto, priority: `auto`; fast: `speed`.",
        "service_tier",
        "speed",
        in_one=True,
    ),
    "user": _mapped("`metadata.user_id`; hashed where it could name a person.", "metadata"),
    "safety_identifier": _mapped("`metadata.user_id`; it wins over `user`.", "metadata"),
    "metadata": _mapped("Given back in a JSON answer; its `user_id` is used where there is no `user`."),
    "web_search_options": _mapped(
        "Anthropic's web search, `search_context_size` as `max_uses`; citations come back as `annotations`.", "tools"
    ),
    "output_config": _mapped("Anthropic's own, merged with what the gateway makes.", "output_config"),
    "container": _mapped("Anthropic's own, passed on.", "container"),
    "context_management": _mapped("Anthropic's own, passed on with its beta header.", "context_management"),
    "mcp_servers": _mapped("Anthropic's own, passed on with its beta header.", "mcp_servers"),
    "diagnostics": _mapped("Anthropic's own, passed on with its beta header.", "diagnostics"),
    "inference_geo": _mapped("Anthropic's own, passed on.", "inference_geo"),
    "speed": _mapped("Anthropic's fast mode, on models that have it.", "speed"),
    "anthropic_beta": _mapped("Added to the header `anthropic-beta`, as is the client's own header."),
    "anthropic_version": _mapped("The header `anthropic-version`."),
    "include_anthropic_content": _mapped(
        "true: Claude's own blocks stand in `message.provider_specific_fields.anthropic_content`."
    ),
    "extra_body": _mapped("Its fields count as fields of the request; those of the top level win."),
    "prediction": Field("ignored", "It only makes an answer faster."),
    "extra_headers": Field("ignored", "A client does not choose the headers that go upstream."),
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
}


def fields_table() -> str:
    """The table of top-level fields for docs/compatibility.md."""
    rows = ["| field | what becomes of it | how, or why |", "|---|---|---|"]
    rows += [f"| `{name}` | {_IN_WORDS[f.disposition]} | {f.reason} |" for name, f in sorted(FIELDS.items())]
    rows.append("| any other | ignored and told as `unknown_field`; 400 in strict mode | OpenAI adds fields monthly. |")
    return "\n".join(rows)
