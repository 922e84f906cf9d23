"""An assistant message into the blocks that Claude wrote: exactly those where they are known, else what can be seen.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.chat import memory
from app.translate.content import Block, control_of, is_blank, text_block, to_assistant_blocks
from app.translate.native import note_betas
from app.translate.notes import Notes
from app.translate.pause import paced
from app.translate.thinking import interleaved, is_thinking, returned_thinking, without_thinking
from app.translate.tools import CallIds, ToolNames, is_upstream_name, to_tool_input


@dataclass
class AssistantTurn:
    """`members` are the indexes of the client's messages in it; `calls` holds (the client's id, the upstream's) of
    each call, in order. `told` are the blocks with the client's ids."""

    members: list[int]
    blocks: list[Block] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    told: list[Block] = field(default_factory=list)

    def beyond(self, before: AssistantTurn) -> AssistantTurn:
        """What it says that the message before it did not: some clients give a call twice, and its result once."""
        calls = [block for block in self.told if block["type"] == "tool_use"]
        has_ids = all(isinstance(call["id"], str) and call["id"] for call in calls)
        if not calls or not has_ids or calls != [block for block in before.told if block["type"] == "tool_use"]:
            return self
        repeats_all = self.told == before.told
        return replace(self, blocks=[b for b in self.blocks if not repeats_all and b["type"] != "tool_use"], calls=[])


@dataclass(frozen=True)
class History:
    """What is known of earlier answers: the exact blocks of some messages by index, and whether thinking may be sent
    to this model at all."""

    family: str
    remembered: Mapping[int, list[Block]] = field(default_factory=dict)
    replays_thinking: bool = True


class AssistantTurns:
    """Translates the assistant messages of one conversation, in order: ids of calls are unique over all of it. They are
    history, whose faults are forgiven in lenient mode."""

    def __init__(self, history: History, names: ToolNames, notes: Notes) -> None:
        self._history = history
        self._names = names
        self._notes = notes.of_history()
        self._ids = CallIds()

    def translate(self, message: Mapping[str, Any], i: int) -> AssistantTurn:
        """Raises UntranslatableRequest."""
        path = f"messages[{i}]"
        seen = to_assistant_blocks(message.get("content"), f"{path}.content", self._notes)
        refusal = message.get("refusal")
        calls = self._list(message, "tool_calls", path)
        if not seen and isinstance(refusal, str) and not is_blank(refusal):
            seen.append(text_block(refusal))
        if not seen and not calls and message.get("audio") is not None:
            self._notes.forgive(
                UntranslatableRequest(
                    "Claude models do not take audio.", param=f"{path}.audio", code="unsupported_value"
                )
            )
        seen = self._with_calls(seen, calls, f"{path}.tool_calls")
        self._notes.pause()
        blocks = self._exact(message, i, seen) or self._of_what_is_seen(message, path, seen)
        if not self._history.replays_thinking or all(map(is_thinking, paced(blocks, self._notes.pause))):
            blocks = without_thinking(blocks)  # thinking alone is no message
        self._notes.pause()
        turn = AssistantTurn([i], [self._with_id(block, i, j) for j, block in enumerate(blocks)], told=blocks)
        self._notes.pause()
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        sent = [block["id"] for block in turn.blocks if block["type"] == "tool_use"]
        self._notes.pause()
        turn.calls = [(str(client_id or ""), upstream_id) for client_id, upstream_id in zip(asked, sent, strict=True)]
        control = control_of(message, path, self._notes)
        last = next((n for n in reversed(range(len(turn.blocks))) if not is_thinking(turn.blocks[n])), None)
        if control is not None and last is not None:
            turn.blocks[last] = {**turn.blocks[last], "cache_control": control}
        return turn

    def _list(self, message: Mapping[str, Any], name: str, path: str) -> list[Any]:
        value = message.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            param = f"{path}.{name}"
            self._notes.forgive(UntranslatableRequest(f"{param} must be an array.", param=param, code="invalid_type"))
        return value if isinstance(value, list) else []

    def _with_calls(self, seen: list[Block], calls: list[Any], path: str) -> list[Block]:
        """The calls of the content and those of `tool_calls`: what stands in both (by its id) is one. LangChain writes
        it twice, and knows its arguments in `tool_calls` alone when it was streamed."""
        if not calls and not any(block["type"] == "tool_use" for block in paced(seen, self._notes.pause)):
            return seen
        uses = []
        for j, call in enumerate(calls):
            self._notes.pause()
            try:
                uses.append(self._tool_use(call, f"{path}[{j}]"))
            except UntranslatableRequest as fault:
                self._notes.forgive(fault)
        by_id: dict[str, int] = {}
        for n, use in enumerate(uses):
            if isinstance(use["id"], str):
                by_id.setdefault(use["id"], n)
        blocks, told = [], set()
        for block in seen:
            if block["type"] == "tool_use":
                again = by_id.pop(block["id"], None)
                name = block["name"] if is_upstream_name(block["name"]) else self._names.to_upstream(block["name"])
                block = {**block, "name": name, "input": self._names.to_upstream_input(name, block["input"])}
                if again is not None:
                    told.add(again)
                    block = self._of_both(block, uses[again], f"{path}[{again}]")
            blocks.append(block)
        return blocks + [use for n, use in enumerate(uses) if n not in told]

    def _of_both(self, block: Block, use: Block, path: str) -> Block:
        """A call as `tool_calls` has it, which is what people and programs alter, unless it says nothing there."""
        says_nothing = not use["input"] or use["input"].keys() == {"_raw"}
        differs = bool(block["input"]) and not says_nothing and block["input"] != use["input"]
        if differs or block["name"] != use["name"]:
            self._notes.warn(
                "history_mended",
                path,
                f"{path} and the content of its message tell one call differently; Claude gets that of tool_calls.",
                strict_code="invalid_value",
            )
        return {**block, "name": use["name"], "input": block["input"] or use["input"] if says_nothing else use["input"]}

    def _tool_use(self, call: Any, path: str) -> Block:
        kind, called = _called(call, path)
        if kind == "custom":
            text = called.get("input")
            given: dict[str, Any] = {"input": text if isinstance(text, str) else ""}
        else:
            given = to_tool_input(called.get("arguments"), f"{path}.function.arguments", self._notes)
        name = self._names.to_upstream(called["name"])
        given = self._names.to_upstream_input(name, given)
        return {"type": "tool_use", "id": call.get("id"), "name": name, "input": given}

    def _exact(self, message: Mapping[str, Any], i: int, seen: list[Block]) -> list[Block] | None:
        blocks = self._history.remembered.get(i)
        if blocks is None or any(block["type"] not in ("text", "tool_use") for block in seen):
            return None
        uses = [block for block in seen if block["type"] == "tool_use"]
        if not all(isinstance(use["id"], str) for use in uses):
            return None
        calls = {use["id"]: (use["name"], use["input"]) for use in uses}
        if len(calls) != len(uses) or not memory.matches(blocks, memory.visible_text(message.get("content")), calls):
            return None
        for block in blocks:
            note_betas(block, self._notes)
        return blocks

    def _of_what_is_seen(self, message: Mapping[str, Any], path: str, seen: list[Block]) -> list[Block]:
        if any(is_thinking(block) for block in seen):
            return seen
        for name in ("thinking_blocks", "reasoning_details"):
            self._list(message, name, path)
        return interleaved(returned_thinking(message, self._history.family), seen)

    def _with_id(self, block: Block, message_index: int, block_index: int) -> Block:
        if block["type"] != "tool_use":
            return block
        upstream_id = self._ids.to_upstream(block["id"], message_index, block_index)
        return block if upstream_id == block["id"] else {**block, "id": upstream_id}


def _called(call: Any, path: str) -> tuple[str, Mapping[str, Any]]:
    """(function or custom, what it holds): some clients leave the type out."""
    if not isinstance(call, dict):
        raise UntranslatableRequest(f"{path} must be an object.", param=path, code="invalid_type")
    kind = call.get("type") or "function"
    if kind not in ("function", "custom"):
        raise UntranslatableRequest(
            f"{path}.type is {shown(kind)}; accepted are 'function' and 'custom'.",
            param=f"{path}.type",
            code="invalid_value",
        )
    called = call.get(kind)
    if not isinstance(called, dict) or not isinstance(called.get("name"), str) or not called["name"]:
        raise UntranslatableRequest(
            f"{path}.{kind} must be an object with a `name`.",
            param=f"{path}.{kind}.name",
            code="missing_required_parameter",
        )
    return kind, called
