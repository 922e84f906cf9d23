"""A conversation in OpenAI's messages into Anthropic's system blocks and turns.

Everything between two assistant turns forms one user turn: tool results first, then the texts in their order. The same
history always gives the same bytes, since prompt caches and signed thinking hang on that.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.errors import UntranslatableRequest, shown
from app.translate.caching import mark_last, to_cache_control
from app.translate.chat.assistant import AssistantTurn, AssistantTurns, History
from app.translate.content import Block, control_of, text_block, to_result_content, to_text_blocks, to_user_blocks
from app.translate.facts import ModelFacts
from app.translate.native import SERVER_CALLS
from app.translate.notes import Notes
from app.translate.pause import paced
from app.translate.thinking import is_thinking
from app.translate.tools import ToolNames

SystemPlacement = Literal["in_place", "hoist"]
_ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_MESSAGES = 100_000  # https://docs.anthropic.com/en/api/messages
EMPTY_MESSAGE = "(empty message)"
CONVERSATION_GOES_ON = "(conversation continues)"
CONTINUE_EXACTLY = (
    "Continue your previous message exactly where it stopped. Do not repeat any of it, and add no preamble."
)
NO_RESULT = "No result was recorded for this call."
_LATE_SYSTEM = "late system message"


@dataclass(frozen=True)
class Conversation:
    """`sources[n]` holds the indexes of the client's messages that upstream message n was made of, `system_sources`
    those of the system blocks (None: the field `system`)."""

    system: list[Block]
    messages: list[dict[str, Any]]
    sources: tuple[tuple[int, ...], ...]
    system_sources: tuple[int | None, ...] = ()
    called_tools: tuple[str, ...] = ()
    ends_with_prefill: bool = False
    open_loop_lacks_thinking: bool = False


Indexed = tuple[int, Any]
"""A message of the client's and its index."""

_Result = tuple[int, str | None, Block]
"""Index of the message, the client's id of the call (None where it has none: the next call is meant that no other
result answers), and the block, which lacks the upstream's id of it."""


@dataclass
class _UserSide:
    """What stands between two assistant turns."""

    members: list[int]
    results: list[_Result] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    """In the client's order; late system messages are of the type _LATE_SYSTEM until _Assembly places them."""
    system_members: list[int] = field(default_factory=list)
    empty_members: list[int] = field(default_factory=list)


def to_conversation(
    messages: Any,
    facts: ModelFacts,
    names: ToolNames,
    notes: Notes,
    *,
    history: History | None = None,
    instructions: Any = None,
    placement: SystemPlacement = "in_place",
) -> Conversation:
    """`instructions` is what Anthropic's own field `system` holds.

    Raises UntranslatableRequest with a path such as `messages[3].content[0].type`.
    """
    if not isinstance(messages, list):
        raise UntranslatableRequest("messages must be an array.", param="messages", code="invalid_type")
    if len(messages) > MOST_MESSAGES:
        raise UntranslatableRequest(
            f"messages must hold at most {MOST_MESSAGES:,} messages.", param="messages", code="array_above_max_length"
        )
    if not messages:
        raise UntranslatableRequest("messages must not be empty.", param="messages", code="empty_array")
    indexed = list(enumerate(messages))
    if placement == "hoist":
        indexed.sort(key=lambda one: _role(one[1], one[0]) not in ("system", "developer"))
    leading, rest = _leading_system(indexed, notes)
    system = leading
    if instructions is not None:
        system = [*((None, block) for block in to_text_blocks(instructions, "system", notes)), *leading]
    if not rest:
        return _system_only(system, notes)
    turns = _to_turns(rest, AssistantTurns(history or History(facts.family), names, notes), notes)
    if not system and not any(isinstance(t, AssistantTurn) or t.blocks or t.results for t in turns):
        raise UntranslatableRequest("All messages are empty.", param="messages", code="empty_array")
    return _Assembly(facts, notes).assemble(system, turns)


_System = list[tuple[int | None, Block]]
"""System blocks, each with the index of its message; None for those of the field `system`."""


def _leading_system(messages: Sequence[Indexed], notes: Notes) -> tuple[_System, Sequence[Indexed]]:
    system: _System = []
    for n, (i, message) in enumerate(messages):
        if _role(message, i) not in ("system", "developer"):
            return system, messages[n:]
        texts = to_text_blocks(message.get("content"), f"messages[{i}].content", notes)
        mark_last(texts, to_cache_control(message, f"messages[{i}]"))
        system += [(i, block) for block in texts]
    return system, []


def _system_only(system: _System, notes: Notes) -> Conversation:
    """Claude needs a user turn: the last instruction is what the caller wants answered."""
    if not system:
        raise UntranslatableRequest("All messages are empty.", param="messages", code="empty_array")
    notes.warn("system_as_user", "messages", "Claude needs a user message; the last system message takes its place.")
    last, asked = system[-1]
    before = system[:-1]
    return Conversation(
        [block for _, block in before],
        [{"role": "user", "content": [asked]}],
        (() if last is None else (last,),),
        system_sources=tuple(i for i, _ in before),
    )


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


def _to_turns(messages: Sequence[Indexed], assistant: AssistantTurns, notes: Notes) -> list[_UserSide | AssistantTurn]:
    """User sides and assistant turns in strict alternation. What stands before the last answer is history."""
    turns: list[_UserSide | AssistantTurn] = []
    before = AssistantTurn([])
    history = notes.of_history()
    roles = [_role(message, i) for i, message in paced(messages, notes.pause)]
    answers = roles.count("assistant")
    for (i, message), role in zip(messages, roles, strict=True):
        notes.pause()
        last = turns[-1] if turns else None
        if role == "assistant":
            answers -= 1
            turn = assistant.translate(message, i)
            if isinstance(last, AssistantTurn):
                new = turn.beyond(before)
                last.blocks += new.blocks
                last.calls += new.calls
                last.members += new.members
            elif turn.blocks:
                turns.append(turn)
            before = turn
            continue
        if not isinstance(last, _UserSide):
            last = _UserSide([])
            turns.append(last)
        _add_to_user_side(last, role, message, i, history if answers else notes)
    return turns


def _add_to_user_side(side: _UserSide, role: str, message: Mapping[str, Any], i: int, notes: Notes) -> None:
    param = f"messages[{i}].content"
    control = control_of(message, f"messages[{i}]", notes)
    if role == "user":
        blocks = to_user_blocks(message.get("content"), param, notes)
        (side.members if blocks else side.empty_members).append(i)
        mark_last(blocks, control)
        side.blocks += [block for block in blocks if block["type"] != "tool_result"]
        side.results += [(i, block["tool_use_id"], block) for block in blocks if block["type"] == "tool_result"]
    elif role == "tool":
        side.members.append(i)
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str):
            notes.forgive(
                UntranslatableRequest(
                    f"messages[{i}].tool_call_id must be a string.",
                    param=f"messages[{i}].tool_call_id",
                    code="missing_required_parameter",
                )
            )
            call_id = None
        result = _to_tool_result(message, param, notes)
        mark_last([result], control)
        side.results.append((i, call_id, result))
    else:
        side.system_members.append(i)
        texts = to_text_blocks(message.get("content"), param, notes)
        mark_last(texts, control)
        side.blocks += [{**b, "type": _LATE_SYSTEM} for b in texts]


def _inlined(block: Block) -> Block:
    """A late system message for a model that has no such role in a conversation."""
    if block["type"] != _LATE_SYSTEM:
        return block
    return {**block, "type": "text", "text": f"<system>\n{block['text']}\n</system>"}


def _to_tool_result(message: Mapping[str, Any], param: str, notes: Notes) -> Block:
    content = message.get("content")
    result: Block = {"type": "tool_result", "tool_use_id": "", **to_result_content(content, param, notes)}
    if message.get("is_error") is True or message.get("status") == "error":
        if isinstance(content, list) and any(block["type"] != "text" for block in result.get("content", ())):
            notes.warn("tool_error_flag_dropped", param, "A failed tool's result may hold text only.")
        else:
            result["is_error"] = True
    return result


class _Assembly:
    """Puts the turns together as the Messages API wants them."""

    def __init__(self, facts: ModelFacts, notes: Notes) -> None:
        self._facts = facts
        self._notes = notes
        self._messages: list[dict[str, Any]] = []
        self._sources: list[list[int]] = []

    def assemble(self, system: _System, turns: list[_UserSide | AssistantTurn]) -> Conversation:
        pending: list[tuple[str, str]] = []
        for turn in paced(turns, self._notes.pause):
            if isinstance(turn, AssistantTurn):
                self._append("assistant", turn.blocks, turn.members)
                pending = turn.calls
            else:
                self._append_user_side(turn, pending)
                pending = []
        if not self._messages:
            return _system_only(system, self._notes)
        if pending:
            self._append_user_side(_UserSide([]), pending)
        self._notes.pause()
        ends_with_prefill = self._end_of_assistant_turn()
        blocks = [block for message in self._messages for block in message["content"]]
        return Conversation(
            [block for _, block in system],
            self._messages,
            tuple(map(tuple, self._sources)),
            system_sources=tuple(i for i, _ in system),
            called_tools=tuple(dict.fromkeys(b["name"] for b in blocks if b["type"] == "tool_use")),
            ends_with_prefill=ends_with_prefill,
            open_loop_lacks_thinking=self._open_loop_lacks_thinking(),
        )

    def _append(self, role: str, blocks: list[Block], members: Sequence[int]) -> None:
        if not self._messages and role == "assistant":
            self._notes.warn("inserted_user_turn", "messages", "A conversation with Claude begins with a user message.")
            self._append("user", [text_block(CONVERSATION_GOES_ON)], ())
        if self._messages and self._messages[-1]["role"] == role:
            self._messages[-1]["content"] += blocks
            self._sources[-1] += members
            return
        self._messages.append({"role": role, "content": blocks})
        self._sources.append(list(members))

    def _append_user_side(self, side: _UserSide, pending: list[tuple[str, str]]) -> None:
        results, orphans = self._match_results(side, pending)
        content = results + orphans + [b for b in side.blocks if b["type"] != _LATE_SYSTEM]
        late_system = [{**b, "type": "text"} for b in side.blocks if b["type"] == _LATE_SYSTEM]
        members = list(side.members)
        if late_system and not (self._facts.mid_system and content):
            content = results + orphans + [_inlined(b) for b in side.blocks]
            late_system = []
            members = sorted(members + side.system_members)
        if not content and side.empty_members:
            content, members = [text_block(EMPTY_MESSAGE)], side.empty_members
        if content:
            self._append("user", content, members)
        if late_system:
            # Behind the user's words and before the answer is the only place the API takes the role at.
            self._append("system", late_system, side.system_members)

    def _match_results(self, side: _UserSide, pending: list[tuple[str, str]]) -> tuple[list[Block], list[Block]]:
        """One result for each pending call, in the order of the calls; the results of no pending call as text."""
        unmatched: dict[str | None, deque[_Result]] = {}
        matched: dict[str | None, Block] = {}
        for result in side.results:
            unmatched.setdefault(result[1], deque()).append(result)
        results = []
        for client_id, upstream_id in pending:
            self._notes.pause()
            candidates = unmatched.get(client_id) or unmatched.get(None)
            if not candidates:
                self._notes.warn(
                    "missing_tool_result",
                    "messages",
                    f"The tool call {shown(client_id)} has no tool message with its result.",
                )
                results.append(
                    {"type": "tool_result", "tool_use_id": upstream_id, "content": NO_RESULT, "is_error": True}
                )
                continue
            matched[client_id] = candidates.popleft()[2]
            results.append({**matched[client_id], "tool_use_id": upstream_id})
        left = (orphan for results in unmatched.values() for orphan in results)
        orphans = sorted((o for o in left if o[2] != matched.get(o[1])), key=lambda orphan: orphan[0])
        return results, [b for orphan in orphans for b in self._orphan(*orphan)]

    def _orphan(self, i: int, call_id: str | None, result: Block) -> list[Block]:
        self._notes.pause()
        self._notes.warn(
            "orphan_tool_result",
            f"messages[{i}].tool_call_id",
            f"messages[{i}] answers no tool call of the assistant message before it.",
            strict_code="invalid_value",
        )
        content = result.get("content", [])
        blocks = [text_block(content)] if isinstance(content, str) else content
        opening = text_block("<tool_result>" if call_id is None else f'<tool_result id="{call_id}">')
        return [opening, *blocks, text_block("</tool_result>")]

    def _end_of_assistant_turn(self) -> bool:
        """Mends a conversation that ends with the assistant's words; whether it does so still, as a prefill."""
        last = self._messages[-1]
        if last["role"] != "assistant":
            return False
        text = last["content"][-1]
        if text["type"] in (*SERVER_CALLS, "compaction") or text["type"].endswith("_tool_result"):
            return False  # a pause, which is continued as it is
        if not self._facts.prefill or text["type"] != "text":
            self._notes.warn(
                "prefill_emulated",
                "messages",
                f"{self._facts.id} cannot continue an assistant message; end with a user message.",
                strict_code="unsupported_value",
            )
            self._append("user", [text_block(CONTINUE_EXACTLY)], ())
            return False
        last["content"][-1] = {**text, "text": text["text"].rstrip()}
        return True

    def _open_loop_lacks_thinking(self) -> bool:
        """Manual thinking wants the last assistant turn of a tool loop to begin with a thinking block."""
        for message in reversed(self._messages):
            if message["role"] == "assistant":
                blocks = message["content"]
                return any(b["type"] == "tool_use" for b in blocks) and not is_thinking(blocks[0])
            if not any(b["type"] == "tool_result" for b in message["content"]):
                return False
        return False
