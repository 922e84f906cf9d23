"""Forced tool calls on models that cannot be forced.

A single tool that must be called is asked for as structured output with the tool's schema, and the JSON that comes is
given to the client as the arguments of a call. Of several tools the model is told in words to call one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.translate.chat.output_format import OutputFormat
from app.translate.content import Block, text_block
from app.translate.facts import ModelFacts
from app.translate.notes import Notes
from app.translate.schema import Inexpressible, normalised_arguments
from app.translate.tools import Tool


@dataclass(frozen=True)
class Forcing:
    """What goes upstream instead. `answers_as` is the upstream name of the tool whose arguments the text will be;
    `demand` is what the model is told once more when it calls no tool after all."""

    tools: list[Tool]
    tool_choice: dict[str, Any] | None
    output: OutputFormat
    instruction: Block | None = None
    answers_as: str | None = None
    demand: str | None = None


def forcing(
    tools: list[Tool],
    tool_choice: dict[str, Any] | None,
    output: OutputFormat,
    facts: ModelFacts,
    notes: Notes,
    *,
    enforces: bool = True,
) -> Forcing:
    """As it was, for a model that can be forced or a choice that forces nothing."""
    forced = tool_choice is not None and tool_choice["type"] in ("any", "tool")
    if tool_choice is None or not forced or facts.forced_tool:
        return Forcing(tools, tool_choice, output)
    notes.warn(
        "forced_tool_emulated",
        "tool_choice",
        f"{facts.id} cannot be forced to call a tool.",
        strict_code="unsupported_value",
    )
    named = tool_choice.get("name")
    wanted = [tool for tool in tools if named in (None, tool.get("name"))]
    if len(wanted) == 1 and output == OutputFormat() and "input_schema" in wanted[0]:
        try:
            if not (facts.structured_outputs and enforces):
                raise Inexpressible("", "no structured output")
            enforced = {"type": "json_schema", "schema": normalised_arguments(wanted[0]["input_schema"])}
        except Inexpressible:
            pass
        else:
            return Forcing(tools, {"type": "none"}, OutputFormat(enforced=enforced), answers_as=wanted[0]["name"])
    one = f"the tool {named}" if named else "one of the tools"
    free = {"type": "auto"} | {k: v for k, v in tool_choice.items() if k == "disable_parallel_tool_use"}
    demand = f"You must answer by calling {one}, not with text."
    choice = None if free == {"type": "auto"} else free
    return Forcing(wanted, choice, output, instruction=text_block(demand), demand=demand)
