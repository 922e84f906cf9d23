"""A chat completion request into the body of Anthropic's `POST /v1/messages`.

https://platform.openai.com/docs/api-reference/chat/create, https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.errors import UntranslatableRequest
from app.translate.caching import Caching, apply_caching
from app.translate.content import is_blank
from app.translate.facts import ModelFacts
from app.translate.fields import check_fields
from app.translate.forcing import forcing
from app.translate.legacy import uses_functions, with_tools
from app.translate.messages import Conversation, to_conversation
from app.translate.notes import Notes
from app.translate.output_format import to_output_format
from app.translate.reasoning import Reasoning, to_reasoning
from app.translate.sampling import to_sampling
from app.translate.tools import ToolNames, to_tool_choice, to_tools

API_VERSION = "2026-10-21"
API_VERSION_WITH_SAMPLING = "2023-06-01"
UNKNOWN_MODEL_MAX_TOKENS = 32_000
_LONG_ANSWER_TOKENS = 16_000
SERVICE_TIERS = {
    "default": "standard_only",
    "flex": "standard_only",
    "scale": "standard_only",
    "auto": "auto",
    "priority": "auto",
    "fast": "",
}
_LONGEST_USER_ID = 256
_PERSONAL = re.compile(r"[@\s]|^[\d+-]+$")


@dataclass(frozen=True)
class Options:
    """The gateway's settings that a translation depends on."""

    strict: bool = False
    expose_reasoning: bool = True
    default_max_tokens: int = 0
    caching: Caching = "passive"


@dataclass(frozen=True)
class ReplyContext:
    """What the answer's translation must remember of the request."""

    include_usage: bool = False
    tool_names: Mapping[str, str] | None = None
    """Upstream name to the client's, of the tools that had to be renamed."""
    text_is_call_of: str | None = None
    """The upstream name of the tool whose arguments the answer's text is."""
    calls_functions: bool = False
    """Calls are given as the older `function_call`."""
    stops: tuple[str, ...] = ()
    """Stop strings that Claude refuses, so that the gateway cuts at them."""
    strips_json: bool = False
    """Prose around a JSON object is left out."""
    unwraps_json: bool = False
    """The answer is the value of the only property of the object that Claude writes."""
    exposes_reasoning: bool = True
    metadata: Mapping[str, str] | None = None
    message_sources: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Translation:
    """`body` lacks `stream`; `may_run_long` asks for a stream upstream even if the client wants none."""

    body: dict[str, Any]
    api_version: str
    may_run_long: bool
    reply: ReplyContext


def to_message_params(request: Mapping[str, Any], facts: ModelFacts, options: Options) -> Translation:
    """Translate a request whose top level has been checked by schemas/chat.py.

    Raises UntranslatableRequest with the path of the field at fault. The same request and facts give the same bytes.
    """
    notes = Notes(strict=options.strict)
    check_fields(request, notes)
    calls_functions = uses_functions(request)
    request = with_tools(request)
    names = ToolNames()
    output = to_output_format(request.get("response_format"), facts, notes)
    # Claude takes no prefill beside an enforced format; continuing is then asked for in words.
    conversation_facts = replace(facts, prefill=False) if output.enforced else facts
    conversation = to_conversation(request["messages"], conversation_facts, names, notes)
    max_tokens, limit_is_explicit = _max_tokens(request, facts, options, notes)
    reasoning = to_reasoning(
        request,
        facts,
        expose=options.expose_reasoning,
        max_tokens=max_tokens,
        limit_is_explicit=limit_is_explicit,
        notes=notes,
    )
    tools, tool_choice = _tools(request, conversation, names, notes)
    forced = forcing(tools, tool_choice, output, facts, notes)
    tools, tool_choice, output = forced.tools, forced.tool_choice, forced.output
    reasoning = _fitting(reasoning, conversation, tool_choice, notes)
    stop_sequences, emulated_stops = _stops(request.get("stop"))
    sampling = to_sampling(request, facts, reasoning, notes)

    body: dict[str, Any] = {"model": facts.id, "max_tokens": max_tokens}
    optional = {
        "system": [*conversation.system, *(i for i in (output.instruction, forced.instruction) if i)],
        "messages": conversation.messages,
        "tools": tools,
        "tool_choice": tool_choice,
        "thinking": reasoning.thinking,
        "output_config": {
            name: value for name, value in (("effort", reasoning.effort), ("format", output.enforced)) if value
        },
        "stop_sequences": stop_sequences,
        "metadata": _metadata(request),
        "service_tier": _service_tier(request.get("service_tier"), notes),
    }
    body.update({name: value for name, value in optional.items() if value})
    body.update(sampling)
    apply_caching(body, request, options.caching, notes)
    return Translation(
        body,
        API_VERSION_WITH_SAMPLING if sampling else API_VERSION,
        may_run_long=max_tokens > _LONG_ANSWER_TOKENS,
        reply=ReplyContext(
            include_usage=bool((request.get("stream_options") or {}).get("include_usage")),
            tool_names=names.originals,
            text_is_call_of=forced.answers_as,
            calls_functions=calls_functions,
            stops=emulated_stops,
            strips_json=output.stripped,
            unwraps_json=output.wrapped,
            exposes_reasoning=reasoning.exposed,
            metadata=request.get("metadata"),
            message_sources=conversation.sources,
            warnings=notes.codes,
        ),
    )


def _max_tokens(request: Mapping[str, Any], facts: ModelFacts, options: Options, notes: Notes) -> tuple[int, bool]:
    """OpenAI has no limit unless the client sets one: then the most the model writes is the faithful default."""
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    if asked is None:
        known = facts.max_tokens or UNKNOWN_MODEL_MAX_TOKENS
        return min(known, options.default_max_tokens or known), False
    if facts.max_tokens is not None and asked > facts.max_tokens:
        notes.warn("max_tokens_clamped", "max_tokens", f"{facts.id} writes at most {facts.max_tokens} tokens.")
        return facts.max_tokens, True
    return int(asked), True


def _tools(
    request: Mapping[str, Any], conversation: Conversation, names: ToolNames, notes: Notes
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    tools = to_tools(request.get("tools"), names, notes)
    choice = to_tool_choice(
        request.get("tool_choice"),
        parallel=request.get("parallel_tool_calls") is not False,
        tools=tools,
        names=names,
    )
    if not tools and conversation.called_tools:
        # The API wants the tools of a history declared; none of them may be called now.
        stubs = [{"name": name, "input_schema": {"type": "object"}} for name in conversation.called_tools]
        return stubs, {"type": "none"}
    return tools, choice


def _fitting(
    reasoning: Reasoning, conversation: Conversation, tool_choice: dict[str, Any] | None, notes: Notes
) -> Reasoning:
    """Thinking where the conversation allows it: the API refuses some combinations outright."""
    off = replace(reasoning, thinking=None, effort=None, asked_for=False)
    if conversation.ends_with_prefill and reasoning.may_think:
        if reasoning.asked_for:
            raise UntranslatableRequest(
                "Claude cannot think and continue an assistant message at once; end with a user message, "
                "or leave reasoning_effort out.",
                param="messages",
                code="unsupported_value",
            )
        return off
    if not reasoning.is_manual:
        return reasoning
    if tool_choice is not None and tool_choice["type"] in ("any", "tool"):
        notes.warn(
            "thinking_dropped_for_forced_tool", "tool_choice", "Claude cannot think and be forced to call a tool."
        )
        return off
    return off if conversation.open_loop_lacks_thinking else reasoning


def _stops(stop: Any) -> tuple[list[str], tuple[str, ...]]:
    """(what Claude takes, what the gateway must cut at itself: Claude refuses stop strings of white space only)."""
    wanted = [stop] if isinstance(stop, str) else stop or []
    distinct = [s for s in dict.fromkeys(wanted) if s]
    return [s for s in distinct if not is_blank(s)], tuple(s for s in distinct if is_blank(s))


def _metadata(request: Mapping[str, Any]) -> dict[str, str] | None:
    user = request.get("safety_identifier") or request.get("user") or (request.get("metadata") or {}).get("user_id")
    if not user:
        return None
    if len(user) > _LONGEST_USER_ID or _PERSONAL.search(user):
        user = hashlib.sha256(user.encode()).hexdigest()
    return {"user_id": user}


def _service_tier(tier: str | None, notes: Notes) -> str | None:
    if tier == "fast":
        notes.warn("service_tier_ignored", "service_tier", "Fast mode is not translated yet.")
        return None
    return SERVICE_TIERS[tier] if tier else None
