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
from app.translate.chat.assistant import History
from app.translate.chat.extensions import to_betas, to_extensions, to_output_config, to_speed, to_version
from app.translate.chat.fields import check_fields
from app.translate.chat.forcing import forcing
from app.translate.chat.legacy import uses_functions, with_tools
from app.translate.chat.memory import told_digest
from app.translate.chat.messages import Conversation, SystemPlacement, to_conversation
from app.translate.chat.output_format import to_output_format
from app.translate.chat.reasoning import LEVELS, Reasoning, nearest, to_reasoning
from app.translate.chat.sampling import to_sampling
from app.translate.content import agree_on_citations, is_blank
from app.translate.facts import ModelFacts
from app.translate.notes import Notes
from app.translate.pause import Pause, no_pause
from app.translate.search import WEB_SEARCH, to_web_search
from app.translate.thinking import BINDING_BETA
from app.translate.tools import Tool, ToolNames, Tools, reserved_names, to_tool_choice, to_tools
from app.translate.translation import API_VERSION, API_VERSION_WITH_SAMPLING, ReplyContext, Translation

UNKNOWN_MODEL_MAX_TOKENS = 32_000
_LONG_ANSWER_TOKENS = 16_000
SERVICE_TIERS = {
    "default": "standard_only",
    "flex": "standard_only",
    "scale": "standard_only",
    "standard_only": "standard_only",
    "auto": "auto",
    "priority": "auto",
    "fast": "",
}
_LONGEST_USER_ID = 256
_PERSONAL = re.compile(r"[@\s]|^[\d+-]+$")


@dataclass(frozen=True)
class Options:
    """What a translation depends on beside the request and the model: the gateway's settings, the client's headers,
    and, when a request is repeated, what its first refusal taught."""

    strict: bool = False
    expose_reasoning: bool = True
    default_max_tokens: int = 0
    caching: Caching = "passive"
    system_placement: SystemPlacement = "in_place"
    refusal_finish: str = "content_filter"
    refusal_text: str = "content"
    always_usage: bool = False
    betas: str = ""
    """The client's header `anthropic-beta`."""
    has_mended_text: bool = False
    """Halves of characters in the body have been replaced."""
    replays_thinking: bool = True
    may_think: bool = True
    enforces_schemas: bool = True


def to_message_params(
    request: Mapping[str, Any],
    facts: ModelFacts,
    options: Options,
    remembered: Mapping[int, list[dict[str, Any]]] | None = None,
    *,
    pause: Pause = no_pause,
) -> Translation:
    """Translate a request whose top level has been checked by schemas/chat.py. `remembered` holds the exact blocks of
    earlier answers by the index of their message.

    Raises UntranslatableRequest with the path of the field at fault. The same arguments give the same bytes.
    """
    notes = Notes(strict=options.strict, pause=pause)
    check_fields(request, notes)
    if options.has_mended_text:
        notes.warn("broken_character", "messages", "Halves of characters (lone surrogates) were replaced by U+FFFD.")
    calls_functions = uses_functions(request)
    request = with_tools(request)
    names = ToolNames(reserved_names(request))
    max_tokens, limit_is_explicit = _max_tokens(request, facts, options, notes)
    reasoning = to_reasoning(
        request,
        facts,
        expose=options.expose_reasoning,
        max_tokens=max_tokens,
        limit_is_explicit=limit_is_explicit,
        notes=notes,
    )
    # Before the conversation, whose calls have their names from them.
    offered = to_tools(request.get("tools"), names, facts, notes, enforces=options.enforces_schemas)
    output = to_output_format(request.get("response_format"), facts, names, notes, enforces=options.enforces_schemas)
    # Claude takes no prefill beside an enforced format; continuing is then asked for in words.
    conversation = to_conversation(
        request["messages"],
        replace(facts, prefill=False) if output.enforced or output.tool else facts,
        names,
        notes,
        history=History(facts.family, remembered or {}, reasoning.replays and options.replays_thinking),
        instructions=request.get("system"),
        placement=options.system_placement,
    )
    notes.pause()
    tools, tool_choice = _tools(request, offered, conversation, names, facts)
    forced = forcing(tools, tool_choice, output, facts, notes, enforces=options.enforces_schemas)
    tools, tool_choice, output = forced.tools, forced.tool_choice, forced.output
    if output.tool is not None:
        tools, tool_choice = _with_answer_tool(output.tool, tools, tool_choice)
    reasoning = _fitting(reasoning, conversation, tool_choice, options, notes)
    stop_sequences, emulated_stops = _stops(request)
    if forced.answers_as is not None and (stop_sequences or emulated_stops):
        param = "stop" if request.get("stop") else "stop_sequences"
        notes.warn("stop_ignored", param, "Stop strings do not apply to the arguments of a tool.")
        stop_sequences, emulated_stops = [], ()
    sampling = to_sampling(request, facts, reasoning, notes)
    effort_and_format = {"effort": reasoning.effort, "format": output.enforced}

    body: dict[str, Any] = {"model": facts.id, "max_tokens": max_tokens}
    optional = {
        "system": [*conversation.system, *(i for i in (output.instruction, forced.instruction) if i)],
        "messages": conversation.messages,
        "tools": tools,
        "tool_choice": tool_choice,
        "thinking": _with_binding(reasoning.thinking, facts, notes),
        "output_config": _output_config(
            request, {name: value for name, value in effort_and_format.items() if value}, reasoning, facts, notes
        ),
        "stop_sequences": stop_sequences,
        "metadata": _metadata(request),
        "service_tier": SERVICE_TIERS[request["service_tier"]] if request.get("service_tier") else None,
        "speed": to_speed(request, facts, notes),
        **to_extensions(request, notes),
    }
    body.update({name: value for name, value in optional.items() if value})
    body.update(sampling)
    caches_for_an_hour = apply_caching(body, request, options.caching, notes)
    cites_documents = agree_on_citations(body, notes)
    headers = {"anthropic-version": to_version(request) or (API_VERSION_WITH_SAMPLING if sampling else API_VERSION)}
    betas = to_betas(request, options.betas, notes)
    if betas:
        headers["anthropic-beta"] = betas
    return Translation(
        body,
        headers,
        may_run_long=max_tokens > _LONG_ANSWER_TOKENS,
        caches_for_an_hour=caches_for_an_hour,
        reply=ReplyContext(
            include_usage=bool((request.get("stream_options") or {}).get("include_usage")),
            always_usage=options.always_usage,
            tool_names=names.originals,
            parameter_names=names.parameters,
            custom_tools=offered.custom,
            text_is_call_of=forced.answers_as,
            call_is_text_of=output.tool["name"] if output.tool else None,
            calls_functions=calls_functions,
            cites_documents=cites_documents,
            stops=emulated_stops,
            strips_json=output.stripped,
            unwraps_json=output.wrapped,
            exposes_reasoning=reasoning.exposed,
            shows_anthropic_content=request.get("include_anthropic_content") is True,
            refusal_finish=options.refusal_finish,
            refusal_text=options.refusal_text,
            metadata=request.get("metadata"),
            demand=forced.demand,
            told=told_digest(request["messages"], user_of(request), pause),
            message_sources=conversation.sources,
            warnings=notes.codes,
        ),
        notes=notes.warnings,
        system_sources=conversation.system_sources,
    )


def _max_tokens(request: Mapping[str, Any], facts: ModelFacts, options: Options, notes: Notes) -> tuple[int, bool]:
    """OpenAI has no limit unless the client sets one: then the most the model writes is the faithful default."""
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    if asked is None:
        known = facts.max_tokens or UNKNOWN_MODEL_MAX_TOKENS
        return min(known, options.default_max_tokens or known), False
    if facts.max_tokens is not None and asked > facts.max_tokens:
        param = "max_completion_tokens" if request.get("max_completion_tokens") else "max_tokens"
        notes.warn("max_tokens_clamped", param, f"{facts.id} writes at most {facts.max_tokens} tokens.")
        return facts.max_tokens, True
    return int(asked), True


def _tools(
    request: Mapping[str, Any], offered: Tools, conversation: Conversation, names: ToolNames, facts: ModelFacts
) -> tuple[list[Tool], dict[str, Any] | None]:
    """(tools, tool choice)."""
    parallel = request.get("parallel_tool_calls") is not False
    tools, choice = to_tool_choice(request.get("tool_choice"), parallel=parallel, offered=offered, names=names)
    if request.get("web_search_options") is not None and WEB_SEARCH not in offered.hosted.values():
        tools = [*tools, to_web_search(request["web_search_options"], "web_search_options", facts)]
    if not tools and conversation.called_tools:
        # The API wants the tools of a history declared; none of them may be called now.
        stubs = [{"name": name, "input_schema": {"type": "object"}} for name in conversation.called_tools]
        return stubs, {"type": "none"}
    return tools, choice


def _with_answer_tool(
    tool: Tool, tools: list[Tool], choice: dict[str, Any] | None
) -> tuple[list[Tool], dict[str, Any]]:
    """Without tools of the client's that may be called, the answer's is the only one."""
    if not tools or (choice is not None and choice["type"] == "none"):
        return [*tools, tool], {"type": "tool", "name": tool["name"]}
    if choice is not None and choice["type"] == "tool":
        return [*tools, tool], choice
    return [*tools, tool], {**(choice or {}), "type": "any"}


def _output_config(
    request: Mapping[str, Any], made: dict[str, Any], reasoning: Reasoning, facts: ModelFacts, notes: Notes
) -> dict[str, Any]:
    config = to_output_config(request, made, notes)
    asked = config.get("effort")
    thinks_less = reasoning.thinking is not None and reasoning.thinking["type"] in ("disabled", "between_tools")
    most = tuple(level for level in facts.effort if not thinks_less or level not in ("xhigh", "max"))
    if asked in LEVELS and asked not in most:
        notes.warn("effort_lowered", "output_config.effort", f"{facts.id} takes no effort of {asked} here.")
        level = nearest(asked, most)
        config = {**config, "effort": level} if level else {k: v for k, v in config.items() if k != "effort"}
    return config


def _with_binding(thinking: dict[str, Any] | None, facts: ModelFacts, notes: Notes) -> dict[str, Any] | None:
    """Where thinking is bound to what stood before it, a block that does not fit any more is to be dropped, not
    refused: clients shorten and mend their histories. The first turn says so, too, since a `thinking` that changes
    from turn to turn costs the prompt cache."""
    if not facts.bound_thinking or thinking is None or thinking["type"] != "adaptive":
        return thinking
    notes.need_beta(BINDING_BETA)
    drops = {"prefix_mismatch_behavior": "drop_block"}
    return {**thinking, "block_binding": thinking.get("block_binding", drops)}


def _fitting(
    reasoning: Reasoning,
    conversation: Conversation,
    tool_choice: dict[str, Any] | None,
    options: Options,
    notes: Notes,
) -> Reasoning:
    """Thinking where the conversation allows it: the API refuses some combinations outright."""
    off = replace(reasoning, thinking=None, effort=None, asked_for=False)
    if not options.may_think and reasoning.may_think:
        return off
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


def _stops(request: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """(what Claude takes, what the gateway must cut at itself: Claude refuses stop strings of white space only)."""
    wanted = [*(request.get("stop") or ()), *(request.get("stop_sequences") or ())]
    distinct = [s for s in dict.fromkeys(wanted) if s]
    return [s for s in distinct if not is_blank(s)], tuple(s for s in distinct if is_blank(s))


def user_of(request: Mapping[str, Any]) -> str:
    """Whom the client speaks for, "" where it does not say."""
    metadata = request.get("metadata") or {}
    return str(request.get("safety_identifier") or request.get("user") or metadata.get("user_id") or "")


def _metadata(request: Mapping[str, Any]) -> dict[str, str] | None:
    user = user_of(request)
    if not user:
        return None
    if len(user) > _LONGEST_USER_ID or _PERSONAL.search(user):
        user = hashlib.sha256(user.encode()).hexdigest()
    return {"user_id": user}
