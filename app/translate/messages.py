"""A conversation in OpenAI's messages into Anthropic's system blocks and turns.

Everything between two assistant turns forms one user turn: tool results first, then the texts in their order. The same
history always gives the same bytes, since prompt caches and signed thinking hang on that.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.caching import mark_last, to_cache_control
from app.translate.content import Block, is_blank, text_block, to_text_blocks, to_user_blocks
from app.translate.facts import ModelFacts
from app.translate.notes import Notes
from app.translate.tools import CallIds, ToolNames, to_tool_input

_ROLES = ("system", "developer", "user", "assistant", "tool")
EMPTY_MESSAGE = "(empty message)"
CONVERSATION_GOES_ON = "(conversation continues)"
CONTINUE_EXACTLY = (
    "Continue your previous message exactly where it stopped. Do not repeat any of it, and add no preamble."
)
NO_RESULT = "No result was recorded for this call."
_LATE_SYSTEM = "late system message"


@dataclass(frozen=True)
class Conversation:
    """`sources[n]` is the index of the client's message that upstream message n began with."""

    system: list[Block]
    messages: list[dict[str, Any]]
    sources: tuple[int, ...]
    called_tools: tuple[str, ...]
    ends_with_prefill: bool
    open_loop_lacks_thinking: bool


_Result = tuple[int, Mapping[str, Any], Block]
"""Index of a tool message, the message, and its block, which lacks the id of the call that it answers."""


@dataclass
class _UserSide:
    """What stands between two assistant turns."""

    source: int
    results: list[_Result] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    """In the client's order; late system messages are of the type _LATE_SYSTEM until _Assembly places them."""
    has_user_message: bool = False


@dataclass
class _AssistantTurn:
    source: int
    blocks: list[Block] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """(the client's id, the upstream's) of each call, in order."""


def to_conversation(messages: Any, facts: ModelFacts, names: ToolNames, notes: Notes) -> Conversation:
    """Raises UntranslatableRequest with a path such as `messages[3].content[0].type`."""
    if not isinstance(messages, list):
        raise UntranslatableRequest("messages must be an array.", param="messages", code="invalid_type")
    if not messages:
        raise UntranslatableRequest("messages must not be empty.", param="messages", code="empty_array")
    system, rest = _leading_system(messages)
    if rest == len(messages):
        return _system_only(system, notes)
    turns = _to_turns(messages, rest, names, notes)
    if not system and not any(isinstance(t, _AssistantTurn) or t.blocks or t.results for t in turns):
        raise UntranslatableRequest("All messages are empty.", param="messages", code="empty_array")
    return _Assembly(facts, names, notes).assemble(system, turns)


def _leading_system(messages: list[Any]) -> tuple[list[Block], int]:
    blocks: list[Block] = []
    for i, message in enumerate(messages):
        if _role(message, i) not in ("system", "developer"):
            return blocks, i
        texts = to_text_blocks(message.get("content"), f"messages[{i}].content")
        mark_last(texts, to_cache_control(message, f"messages[{i}]"))
        blocks += texts
    return blocks, len(messages)


def _system_only(system: list[Block], notes: Notes) -> Conversation:
    """Claude needs a user turn: the last instruction is what the caller wants answered."""
    if not system:
        raise UntranslatableRequest("All messages are empty.", param="messages", code="empty_array")
    notes.warn("system_as_user", "messages", "Claude needs a user message; the last system message takes its place.")
    user = {"role": "user", "content": [system[-1]]}
    return Conversation(system[:-1], [user], (0,), (), ends_with_prefill=False, open_loop_lacks_thinking=False)


def _role(message: Any, i: int) -> str:
    if not isinstance(message, dict):
        raise UntranslatableRequest(f"messages[{i}] must be an object.", param=f"messages[{i}]", code="invalid_type")
    role = message.get("role")
    if role not in _ROLES:
        raise UntranslatableRequest(
            f"messages[{i}].role is {shown(role)}; accepted are {', '.join(_ROLES)}.",
            param=f"messages[{i}].role",
            code="missing_required_parameter" if role is None else "invalid_value",
        )
    return str(role)


def _to_turns(messages: list[Any], start: int, names: ToolNames, notes: Notes) -> list[_UserSide | _AssistantTurn]:
    """User sides and assistant turns in strict alternation."""
    turns: list[_UserSide | _AssistantTurn] = []
    ids = CallIds()
    for i in range(start, len(messages)):
        message = messages[i]
        role = _role(message, i)
        if role == "assistant":
            turn = _to_assistant_turn(message, i, names, ids, notes)
            last = turns[-1] if turns else None
            if isinstance(last, _AssistantTurn):
                last.blocks += turn.blocks
                last.calls += turn.calls
            elif turn.blocks:
                turns.append(turn)
            continue
        if not turns or isinstance(turns[-1], _AssistantTurn):
            turns.append(_UserSide(i))
        side = turns[-1]
        assert isinstance(side, _UserSide)
        _add_to_user_side(side, role, message, i, notes)
    return turns


def _to_assistant_turn(
    message: Mapping[str, Any], i: int, names: ToolNames, ids: CallIds, notes: Notes
) -> _AssistantTurn:
    path = f"messages[{i}]"
    turn = _AssistantTurn(i, to_text_blocks(message.get("content"), f"{path}.content"))
    refusal = message.get("refusal")
    if not turn.blocks and isinstance(refusal, str) and not is_blank(refusal):
        turn.blocks.append(text_block(refusal))
    calls = message.get("tool_calls")
    if calls is None:
        calls = []
    if not isinstance(calls, list):
        raise UntranslatableRequest(
            f"{path}.tool_calls must be an array.", param=f"{path}.tool_calls", code="invalid_type"
        )
    if not calls and message.get("audio") is not None and not turn.blocks:
        raise UntranslatableRequest("Claude models do not take audio.", param=f"{path}.audio", code="unsupported_value")
    for j, call in enumerate(calls):
        function = _called_function(call, f"{path}.tool_calls[{j}]")
        upstream_id = ids.to_upstream(call.get("id"), i, j)
        turn.calls.append((str(call.get("id") or ""), upstream_id))
        turn.blocks.append(
            {
                "type": "tool_use",
                "id": upstream_id,
                "name": names.to_upstream(function["name"]),
                "input": to_tool_input(function.get("arguments"), f"{path}.tool_calls[{j}].function.arguments", notes),
            }
        )
    mark_last(turn.blocks, to_cache_control(message, path))
    return turn


def _called_function(call: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(call, dict):
        raise UntranslatableRequest(f"{path} must be an object.", param=path, code="invalid_type")
    if call.get("type", "function") != "function":
        raise UntranslatableRequest(
            f"Tool calls of type {shown(call['type'])} are not supported by this version of the gateway.",
            param=f"{path}.type",
            code="unsupported_parameter",
        )
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UntranslatableRequest(
            f"{path}.function must be an object with a `name`.",
            param=f"{path}.function.name",
            code="missing_required_parameter",
        )
    return function


def _add_to_user_side(side: _UserSide, role: str, message: Mapping[str, Any], i: int, notes: Notes) -> None:
    param = f"messages[{i}].content"
    control = to_cache_control(message, f"messages[{i}]")
    if role == "user":
        side.has_user_message = True
        blocks = to_user_blocks(message.get("content"), param, notes)
        mark_last(blocks, control)
        side.blocks += blocks
    elif role == "tool":
        if not isinstance(message.get("tool_call_id"), str):
            raise UntranslatableRequest(
                f"messages[{i}].tool_call_id must be a string.",
                param=f"messages[{i}].tool_call_id",
                code="missing_required_parameter",
            )
        result = _to_tool_result(message, param, notes)
        mark_last([result], control)
        side.results.append((i, message, result))
    else:
        texts = to_text_blocks(message.get("content"), param)
        mark_last(texts, control)
        side.blocks += [{**b, "type": _LATE_SYSTEM} for b in texts]


def _inlined(block: Block) -> Block:
    """A late system message for a model that has no such role in a conversation."""
    if block["type"] != _LATE_SYSTEM:
        return block
    return {**block, "type": "text", "text": f"<system>\n{block['text']}\n</system>"}


def _to_tool_result(message: Mapping[str, Any], param: str, notes: Notes) -> Block:
    result: Block = {"type": "tool_result", "tool_use_id": ""}
    content = message.get("content")
    if isinstance(content, str):
        if not is_blank(content):
            result["content"] = content
    else:
        blocks = to_user_blocks(content, param, notes)
        for block in blocks:  # a breakpoint within a result is one behind it
            mark_last([result], block.pop("cache_control", None))
        if blocks:
            result["content"] = blocks
    if message.get("is_error") is True or message.get("status") == "error":
        result["is_error"] = True
    return result


class _Assembly:
    """Puts the turns together as the Messages API wants them."""

    def __init__(self, facts: ModelFacts, names: ToolNames, notes: Notes) -> None:
        self._facts = facts
        self._names = names
        self._notes = notes
        self._messages: list[dict[str, Any]] = []
        self._sources: list[int] = []

    def assemble(self, system: list[Block], turns: list[_UserSide | _AssistantTurn]) -> Conversation:
        pending: list[tuple[str, str]] = []
        for turn in turns:
            if isinstance(turn, _AssistantTurn):
                self._append("assistant", turn.blocks, turn.source)
                pending = turn.calls
            else:
                self._append_user_side(turn, pending)
                pending = []
        if not self._messages:
            return _system_only(system, self._notes)
        if pending:
            self._append_user_side(_UserSide(self._sources[-1]), pending)
        ends_with_prefill = self._end_of_assistant_turn()
        called = [b["name"] for m in self._messages for b in m["content"] if b["type"] == "tool_use"]
        return Conversation(
            system,
            self._messages,
            tuple(self._sources),
            tuple(dict.fromkeys(called)),
            ends_with_prefill,
            self._open_loop_lacks_thinking(),
        )

    def _append(self, role: str, blocks: list[Block], source: int) -> None:
        if not self._messages and role == "assistant":
            self._notes.warn("inserted_user_turn", "messages", "A conversation with Claude begins with a user message.")
            self._append("user", [text_block(CONVERSATION_GOES_ON)], source)
        if self._messages and self._messages[-1]["role"] == role:
            self._messages[-1]["content"] += blocks
            return
        self._messages.append({"role": role, "content": blocks})
        self._sources.append(source)

    def _append_user_side(self, side: _UserSide, pending: list[tuple[str, str]]) -> None:
        results, orphans = self._match_results(side, pending)
        content = results + orphans + [b for b in side.blocks if b["type"] != _LATE_SYSTEM]
        late_system = [{**b, "type": "text"} for b in side.blocks if b["type"] == _LATE_SYSTEM]
        if late_system and not (self._facts.mid_system and content):
            content = results + orphans + [_inlined(b) for b in side.blocks]
            late_system = []
        if not content and side.has_user_message:
            content = [text_block(EMPTY_MESSAGE)]
        if content:
            self._append("user", content, side.source)
        if late_system:
            # Behind the user's words and before the answer is the only place the API takes the role at.
            self._append("system", late_system, side.source)

    def _match_results(self, side: _UserSide, pending: list[tuple[str, str]]) -> tuple[list[Block], list[Block]]:
        """One result for each pending call, in the order of the calls; the results of no pending call as text."""
        unmatched: dict[str, deque[_Result]] = {}
        for result in side.results:
            unmatched.setdefault(result[1]["tool_call_id"], deque()).append(result)
        results = []
        for client_id, upstream_id in pending:
            candidates = unmatched.get(client_id)
            if not candidates:
                self._notes.warn(
                    "missing_tool_result",
                    f"messages[{side.source}]",
                    f"The tool call {shown(client_id)} has no tool message with its result.",
                )
                results.append(
                    {"type": "tool_result", "tool_use_id": upstream_id, "content": NO_RESULT, "is_error": True}
                )
                continue
            results.append({**candidates.popleft()[2], "tool_use_id": upstream_id})
        orphans = sorted((o for left in unmatched.values() for o in left), key=lambda orphan: orphan[0])
        return results, [b for orphan in orphans for b in self._orphan(*orphan)]

    def _orphan(self, i: int, message: Mapping[str, Any], result: Block) -> list[Block]:
        self._notes.warn(
            "orphan_tool_result",
            f"messages[{i}].tool_call_id",
            f"messages[{i}] answers no tool call of the assistant message before it.",
        )
        content = result.get("content", [])
        blocks = [text_block(content)] if isinstance(content, str) else content
        opening = text_block(f'<tool_result id="{message["tool_call_id"]}">')
        return [opening, *blocks, text_block("</tool_result>")]

    def _end_of_assistant_turn(self) -> bool:
        """Mends a conversation that ends with the assistant's words; whether it does so still, as a prefill."""
        last = self._messages[-1]
        if last["role"] != "assistant":
            return False
        if not self._facts.prefill:
            self._notes.warn(
                "prefill_emulated",
                "messages",
                f"{self._facts.id} cannot continue an assistant message; end with a user message.",
            )
            self._append("user", [text_block(CONTINUE_EXACTLY)], self._sources[-1])
            return False
        text = last["content"][-1]
        last["content"][-1] = {**text, "text": text["text"].rstrip()}
        return True

    def _open_loop_lacks_thinking(self) -> bool:
        """Manual thinking wants the last assistant turn of a tool loop to begin with a thinking block."""
        for message in reversed(self._messages):
            if message["role"] == "assistant":
                return any(b["type"] == "tool_use" for b in message["content"])
            if not any(b["type"] == "tool_result" for b in message["content"]):
                return False
        return False
