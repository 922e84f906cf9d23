"""What each warning means, in words: of `x-gateway-warnings`, and of `gateway.warnings` at the end of an answer.

Notes.warn() takes no code that is not declared here, so that docs/compatibility.md lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping

AT_THE_HEAD: Mapping[str, str] = {
    "bad_tool_arguments": "A call in the history has arguments that are no JSON object; Claude gets them as `_raw`.",
    "broken_character": "A text held half a character, as where it was cut within an emoji; Claude sees U+FFFD.",
    "cache_breakpoints_dropped": "There were more than four `cache_control`; the last of tools and system and the "
    "latest ones were kept.",
    "caching_off": "`cache_control` was left out: `PROMPT_CACHE` is off.",
    "citations_dropped": "Claude cites no documents beside structured output.",
    "effort_lowered": "The model, or its thinking being off, admits less effort, or none to be set.",
    "encoding_guessed": "A text file was not in UTF-8; it was read as Windows-1252.",
    "forced_tool_emulated": "The model cannot be forced to call a tool: the arguments were asked for as structured "
    "output, or the call in words.",
    "grammar_not_enforced": "A custom tool's grammar was told to Claude, which cannot be held to it.",
    "history_mended": "An earlier message held what Claude does not take; it was left out, or put right.",
    "image_detail_ignored": "Claude has no low-detail mode for images.",
    "image_url_not_https": "Anthropic fetches images over https only, and is likely to refuse this one.",
    "inserted_user_turn": "The conversation began with the assistant; a neutral user message was put before it.",
    "max_tokens_clamped": "More was asked for than the model can write; its most was sent.",
    "missing_tool_result": "A tool call has no result; Claude was told that none was recorded.",
    "orphan_tool_result": "A tool result answers no call; Claude sees it as text of the user.",
    "parameters_renamed": "Claude refuses names of a tool's parameters: it knows them by others, the client by its.",
    "prefill_emulated": "The model cannot continue an assistant message; it was asked in words to go on.",
    "reasoning_cannot_be_disabled": "The model always thinks; it was asked for low effort, and the thinking is hidden.",
    "sampling_ignored": "The model, or its thinking, takes no such temperature, top_p or top_k.",
    "schema_map_lossy": "The schema allows any property names, which Claude cannot be held to; it was told in words.",
    "schema_not_enforced": "Claude cannot be held to the schema; it was told in words.",
    "schema_rewritten": "A tool's parameters had a union at their top (they became one object, the rest words), or "
    "held what is no JSON Schema (it was left out).",
    "schema_too_complex": "Anthropic refused the schema as too complex; it was told in words.",
    "schema_wrapped": "The schema's root is no object: the value was asked for as a property, and taken out again.",
    "stop_ignored": "Stop strings do not apply to the arguments of an emulated tool call.",
    "strict_dropped": "A strict tool's schema cannot be enforced; the tool works without.",
    "system_as_user": "There was no user message; the last system message took its place.",
    "temperature_clamped": "Claude's temperature goes up to 1.",
    "thinking_budget_raised": "Claude thinks with a budget of at least 1,024 tokens, which is what was sent.",
    "thinking_dropped_for_forced_tool": "The model cannot think and be forced to call a tool; it does not think.",
    "thinking_dropped_small_max_tokens": "`max_tokens` leaves no room for a thinking budget; the model does not think.",
    "thinking_rewritten": "The model does not take this form of `thinking`; the nearest one was sent.",
    "tool_error_flag_dropped": "A failed tool's result may hold text only; the mark was left out.",
    "top_p_ignored": "The model takes a temperature or top_p, not both.",
    "unknown_field": "The gateway does not know the field; it was left out.",
}
AT_THE_END: Mapping[str, str] = {
    "context_window_exceeded": "The answer ended because the context window was full (`finish_reason: length`).",
    "forced_tool_not_honoured": "The model was to call a tool, was told so twice or held to its schema, and answered "
    "with something else.",
    "pause_turn": "Claude paused more than five times; this is what it had said.",
    "refusal": "Claude declined; see `refusal` and `stop_details`.",
    "server_tool_failed": "A tool that runs at Anthropic failed; Claude went on without.",
    "usage_estimated": "The gateway ended the answer at a stop string; its output tokens are an estimate.",
}


def warnings_table() -> str:
    """The table of warnings for docs/compatibility.md."""
    rows = ["| warning | what it means |", "|---|---|"]
    rows += [f"| `{code}` | {meaning} |" for code, meaning in AT_THE_HEAD.items()]
    rows.append("| `<field>_ignored` | The field of that name has no counterpart; the table of fields says why. |")
    rows += [f"| `{code}` (at the end) | {meaning} |" for code, meaning in AT_THE_END.items()]
    return "\n".join(rows)
