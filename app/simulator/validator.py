"""What the real API refuses, as strictly as its documentation says and no stricter than recordings show.

Pure. A rule answers with the text and path that the API uses, since gateways learn from them.
"""

from typing import Any

from app.simulator.attribution import without_attribution
from app.simulator.message_rules import check_messages, check_thinking, with_contents
from app.simulator.models import Model
from app.simulator.refusal import Refusal
from app.simulator.reports import Drop
from app.simulator.rules import (
    NEW_VERSION,
    OLD_VERSION,
    VERSIONS,
    Check,
    Context,
    Leniency,
    anything,
    array,
    boolean,
    cache_control,
    fail,
    fields,
    integer,
    list_of,
    non_empty,
    number_between,
    obj,
    one_of,
    optional,
    optional_string,
    string,
)
from app.simulator.schema_rules import check_schema
from app.simulator.tool_rules import check_tools
from app.simulator.usage import count_prompt

MAX_BREAKPOINTS = 4
MIN_BUDGET = 1024
MAX_USER_ID = 256
DISABLED_NEEDS_MODEST_EFFORT = frozenset({"claude-opus-5", "claude-haiku-5-5"})
"""Models that take `disabled` thinking only with an effort of at most high (`between_tools` always has that rule)."""
SAMPLING: dict[str, Check] = {
    "temperature": number_between(0, 1),
    "top_p": number_between(0, 1),
    "top_k": optional(integer),
}
REQUIRED: dict[str, Check] = {"model": non_empty, "messages": array}
PROMPT: dict[str, Check] = {
    "system": anything,
    "tools": array,
    "tool_choice": obj,
    "thinking": obj,
    "output_config": obj,
    "cache_control": cache_control,
    "speed": optional(one_of("standard", "fast")),
    "context_management": optional(obj),
    "mcp_servers": list_of(obj),
    "output_format": optional(obj),
    "compaction": optional(obj),
}
ANSWER: dict[str, Check] = {
    "stream": boolean,
    "stop_sequences": list_of(string),
    "metadata": obj,
    "service_tier": one_of("auto", "standard_only"),
    "container": optional(anything),
    "diagnostics": optional(obj),
    "inference_geo": optional_string,
    "safeguards": optional(list_of(obj)),
    "fallbacks": optional(anything),
    "fallback_credit_token": optional(anything),
    "billing_policy": optional(anything),
    "thread": optional(anything),
    "user_profile_id": string,
    "workspace_id": string,
}
BETA_FIELDS: dict[str, tuple[str, ...]] = {
    "context_management": ("context-management-", "compact-"),
    "mcp_servers": ("mcp-client-",),
    "output_format": ("structured-outputs-",),
    "compaction": ("compact-",),
    "fallbacks": ("server-side-fallback-",),
    "fallback_credit_token": ("fallback-credit-",),
    "billing_policy": ("user-profiles-billing-",),
    "thread": ("message-threads-",),
}


def validate_version(headers: dict[str, str]) -> None:
    """Raises a Refusal without an `anthropic-version` that the API knows."""
    version = headers.get("anthropic-version")
    if version is None:
        fail("anthropic-version", "header is required")
    if version not in VERSIONS:
        fail("anthropic-version", f'"{version}" is not a valid version')


def validate(
    body: dict[str, Any], headers: dict[str, str], model: Model, account: str = "", leniency: Leniency | None = None
) -> tuple[dict[str, Any], list[Drop]]:
    """The body of `POST /v1/messages` as the model gets it, without attribution and without thinking that has to be
    dropped; and what that was.

    Raises a Refusal for the first rule that is broken. `headers` have lower-case names.
    """
    context = _context(headers, model, account, leniency)
    body = with_contents(body)
    fields(body, "", {**REQUIRED, "max_tokens": integer}, {**PROMPT, **ANSWER, **_sampling_fields(context)})
    _max_tokens(body, model)
    _stop_sequences(body)
    _metadata(body)
    _prompt(body, context)
    _sampling(body, model)
    if (tokens := count_prompt(body)) > model.max_input_tokens:
        raise Refusal(f"prompt is too long: {tokens} tokens > {model.max_input_tokens} maximum")
    return check_thinking(without_attribution(body), context)


def validate_count_tokens(
    body: dict[str, Any], headers: dict[str, str], model: Model, account: str = "", leniency: Leniency | None = None
) -> dict[str, Any]:
    """The same for `POST /v1/messages/count_tokens`, which takes what makes up the prompt and nothing else."""
    context = _context(headers, model, account, leniency)
    body = with_contents(body)
    fields(body, "", REQUIRED, PROMPT)
    _prompt(body, context)
    return check_thinking(without_attribution(body), context)[0]


def betas_of(headers: dict[str, str]) -> tuple[str, ...]:
    """The values of `anthropic-beta`."""
    return tuple(beta.strip() for beta in headers.get("anthropic-beta", "").split(",") if beta.strip())


def _context(headers: dict[str, str], model: Model, account: str, leniency: Leniency | None) -> Context:
    version = headers.get("anthropic-version", OLD_VERSION)
    return Context(model, version, betas_of(headers), account, leniency or Leniency())


def _prompt(body: dict[str, Any], context: Context) -> None:
    for name, betas in BETA_FIELDS.items():
        if name in body:
            context.need_beta(betas, name)
    _system(body.get("system", ""))
    check_messages(body, context)
    check_tools(body, context)
    _output_config(body, context)
    _thinking(body, context)
    _breakpoints(body)
    _speed(body, context)


def _max_tokens(body: dict[str, Any], model: Model) -> None:
    limit = body["max_tokens"]
    if limit < 0:
        fail("max_tokens", "Input should be greater than or equal to 0")
    if model.strict and limit > model.max_tokens:
        text = f"{limit} > {model.max_tokens}, which is the maximum allowed number of output tokens for {model.id}"
        fail("max_tokens", text)


def _stop_sequences(body: dict[str, Any]) -> None:
    for stop in body.get("stop_sequences", ()):
        if not stop.strip():
            fail("stop_sequences", "each stop sequence must contain non-whitespace")


def _metadata(body: dict[str, Any]) -> None:
    metadata = body.get("metadata", {})
    fields(metadata, "metadata", {}, {"user_id": optional_string})
    user_id = metadata.get("user_id") or ""
    if len(user_id) > MAX_USER_ID:
        fail("metadata.user_id", f"String should have at most {MAX_USER_ID} characters")
    if "@" in user_id:
        fail("metadata.user_id", "user_id appears to contain an email address")


def _system(system: Any) -> None:
    if isinstance(system, str):
        return
    array(system, "system")
    shape: dict[str, Check] = {"cache_control": cache_control, "citations": optional(array)}
    for place, block in enumerate(system):
        fields(block, f"system.{place}", {"type": one_of("text"), "text": string}, shape)
        if not block["text"]:
            fail(f"system.{place}.text", "text content blocks must be non-empty")
        if not block["text"].strip():
            fail(f"system.{place}.text", "text content blocks must contain non-whitespace text")


# --------------------------------------------------------------------------------------------------------- sampling


def _sampling_fields(context: Context) -> dict[str, Check]:
    """None of them exists any more since version 2026-10-21."""
    return {} if context.version >= NEW_VERSION else SAMPLING


def _sampling(body: dict[str, Any], model: Model) -> None:
    given = [name for name in SAMPLING if body.get(name) is not None]
    if not given or not model.strict:
        return
    if not model.sampling:
        raise Refusal(f"`{given[0]}` is deprecated for this model.")
    if model.one_of_temperature_and_top_p and {"temperature", "top_p"} <= set(given):
        raise Refusal("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        _sampling_with_thinking(body)


def _sampling_with_thinking(body: dict[str, Any]) -> None:
    if body.get("temperature") not in (None, 1):
        raise Refusal("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if body.get("top_k") is not None:
        raise Refusal("`top_k` must be unset when thinking is enabled or in adaptive mode.")
    top_p = body.get("top_p")
    if top_p is not None and top_p < 0.95:
        raise Refusal("`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.")


# ------------------------------------------------------------------------------------------------ thinking and effort

UNSUPPORTED_THINKING = {
    "adaptive": "adaptive thinking is not supported on this model",
    "enabled": (
        '"thinking.type.enabled" is not supported for this model. '
        'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
    ),
    "disabled": 'thinking.type: "disabled" is not supported for this model',
    "between_tools": 'thinking.type: "between_tools" is not supported for this model',
}


def _display(value: Any, path: str) -> None:
    optional(one_of("summarized", "omitted", "updates"))(value, path)


THINKING_FIELDS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "adaptive": ({}, {"display": _display, "block_binding": optional(obj)}),
    "enabled": ({"budget_tokens": integer}, {"display": _display, "block_binding": optional(obj)}),
    "disabled": ({}, {}),
    "between_tools": ({}, {}),
}


def _thinking(body: dict[str, Any], context: Context) -> None:
    if "thinking" not in body:
        return
    thinking = body["thinking"]
    kind = thinking.get("type")
    if kind not in THINKING_FIELDS:
        fail("thinking", f"Input tag '{kind}' found using 'type' does not match any of the expected tags")
    required, allowed = THINKING_FIELDS[kind]
    fields(thinking, f"thinking.{kind}", {"type": string, **required}, allowed)
    if context.model.strict and kind not in context.model.thinking:
        raise Refusal(UNSUPPORTED_THINKING[kind])
    if thinking.get("block_binding") is not None:
        context.need_beta("thinking-binding-controls-", f"thinking.{kind}.block_binding")
        behaviour: dict[str, Check] = {"prefix_mismatch_behavior": optional(one_of("error", "drop_block"))}
        fields(thinking["block_binding"], f"thinking.{kind}.block_binding", {}, behaviour)
    if thinking.get("display") == "updates":
        context.need_beta("thinking-display-updates-", f"thinking.{kind}.display")
    if kind == "enabled":
        _budget(thinking["budget_tokens"], body, context)
    effort = (body.get("output_config") or {}).get("effort")
    modest = kind == "between_tools" or (kind == "disabled" and context.model.id in DISABLED_NEEDS_MODEST_EFFORT)
    if modest and effort in ("xhigh", "max"):
        fail("output_config.effort", f'"{effort}" is not supported with thinking type "{kind}": use at most "high"')


def _budget(budget: int, body: dict[str, Any], context: Context) -> None:
    if budget < MIN_BUDGET:
        fail("thinking.enabled.budget_tokens", f"Input should be greater than or equal to {MIN_BUDGET}")
    interleaved = any(beta.startswith("interleaved-thinking-") for beta in context.betas)
    if "max_tokens" in body and budget >= body["max_tokens"] and not interleaved:
        raise Refusal(
            "`max_tokens` must be greater than `thinking.budget_tokens`. "
            "Please consult our documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking"
        )


def _output_config(body: dict[str, Any], context: Context) -> None:
    config = body.get("output_config", {})
    level = optional(one_of("low", "medium", "high", "xhigh", "max"))
    fields(config, "output_config", {}, {"effort": level, "format": optional(obj), "task_budget": optional(obj)})
    if config.get("task_budget") is not None:
        context.need_beta("task-budgets-", "output_config.task_budget")
    effort = config.get("effort")
    if effort is not None and context.model.strict:
        if not context.model.effort:
            fail("output_config.effort", "This model does not support the effort parameter: it is not supported here")
        if effort not in context.model.effort:
            levels = ", ".join(context.model.effort)
            fail(
                "output_config.effort", f'effort "{effort}" is not supported by this model. Supported levels: {levels}'
            )
    for name, output in (("output_config.format", config.get("format")), ("output_format", body.get("output_format"))):
        if output is not None:
            fields(output, name, {"type": one_of("json_schema"), "schema": obj}, {})
            check_schema(output["schema"], f"{name}.schema")
            _no_citations(body, name)


def _no_citations(body: dict[str, Any], name: str) -> None:
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "document" and (block.get("citations") or {}).get("enabled"):
                fail(name, "citations are incompatible with structured outputs")


# ------------------------------------------------------------------------------------------------ caching and speed


def _breakpoints(body: dict[str, Any]) -> None:
    """At most four, the one-hour ones first, in the order tools, system, messages."""
    found = [block["cache_control"].get("ttl", "5m") for block in _cacheable(body) if block.get("cache_control")]
    if automatic := body.get("cache_control"):
        ttl = automatic.get("ttl", "5m")
        last = _cacheable(body)[-1].get("cache_control")
        if last and last.get("ttl", "5m") != ttl:
            fail("cache_control", "the last block already has a `cache_control` with another ttl")
        if not last:
            found.append(ttl)
    if len(found) > MAX_BREAKPOINTS:
        raise Refusal(f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(found)}.")
    if "5m" in found and "1h" in found[found.index("5m") :]:
        raise Refusal(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
            "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
        )


def _cacheable(body: dict[str, Any]) -> list[dict[str, Any]]:
    system = body.get("system", "")
    blocks = [*body.get("tools", ()), *(system if isinstance(system, list) else ())]
    for message in body["messages"]:
        content = message["content"]
        for block in content if isinstance(content, list) else [{}]:
            blocks.append(block)
            if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
                blocks += block["content"]
    return blocks


def _speed(body: dict[str, Any], context: Context) -> None:
    if body.get("speed") != "fast":
        return
    if not context.model.fast_mode:
        fail("speed", '"fast" is not supported on this model')
    if context.model.line and not context.model.bound_thinking:
        context.need_beta("fast-mode-", "speed")
